"""Whether a result speaks, blinks, looks and smiles as far as the driving face does, over all frames of a run.

Slope: by how much the result's expression differs from the source's where the driving frame's differs by one (least squares through
zero); 1 is as far as driven. Correlation: of the two differences. Strongest: the slope over the tenth of the frames in which
the driving face differs most.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from dagan.evaluate.records import Metric, PairScores
from dagan.media.expression import MOVEMENTS, followed

_TITLES = {"mouth": "Mouth opening", "eyes": "Eye opening", "gaze": "Gaze", "smile": "Smile"}
# How many of EXPRESSIONS are kept of every frame.
KEPT = 5


def expression_metrics(tool: str) -> list[Metric]:
    """What `expression_totals` gives, in the order to show. tool: what finds the landmarks, in words."""
    found = []
    for key, numbers in MOVEMENTS.items():
        title = _TITLES[key]
        how = f"{' and '.join(numbers)} of {tool}, result against driving frame, both less the source's, all frames of the run together"
        found += [
            Metric(key=f"{key}_slope", title=f"{title}, slope", better="higher", signed=True,
                   range="any; 1 is as far as driven", per="set", tool=f"least squares through zero: {how}"),
            Metric(key=f"{key}_correlation", title=f"{title}, correlation", better="higher", signed=True, range="-1 to 1", per="set",
                   tool=f"Pearson's: {how}"),
            Metric(key=f"{key}_strongest", title=f"{title}, slope of the strongest tenth", better="higher", signed=True,
                   range="any; 1 is as far as driven", per="set", tool=f"the slope where the driving face differs most: {how}"),
        ]  # fmt: skip
    return found


def expression_totals(scores: Iterable[PairScores]) -> dict[str, float]:
    """The figures of one method by metric key; those that cannot be told (too few frames, nothing that moves) are left out."""
    rows = [row for pair in scores for row in pair.expressions]
    if not rows:
        return {}
    table = np.array(rows, dtype=np.float64)
    return followed(table[:, :KEPT], table[:, KEPT:])
