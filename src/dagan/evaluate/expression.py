"""Whether a result speaks, blinks, looks and smiles as far as the driving face does, over all frames of a run.

Slope: by how much the result's expression differs from the source's where the driving frame's differs by one (least squares through
zero); 1 is as far as driven. Correlation: of the two differences. Strongest: the slope over the tenth of the frames in which
the driving face differs most.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from dagan.evaluate.records import Metric, PairScores
from dagan.media.expression import EXPRESSIONS

# Title and the numbers of `media.expression` that belong to it.
MOVEMENTS = {
    "mouth": ("Mouth opening", ("mouth",)), "eyes": ("Eye opening", ("eyes",)), "gaze": ("Gaze", ("gaze across", "gaze up")),
    "smile": ("Smile", ("smile",)),
}  # fmt: skip
# How many of EXPRESSIONS are kept of every frame.
KEPT = 5
_FEWEST = 10  # frames; of fewer, slopes say nothing
_STRONGEST = 0.9  # quantile above which a difference is among the strongest tenth


def expression_metrics(tool: str) -> list[Metric]:
    """What `expression_totals` gives, in the order to show. tool: what finds the landmarks, in words."""
    found = []
    for key, (title, numbers) in MOVEMENTS.items():
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
    totals: dict[str, float] = {}
    if len(rows) < _FEWEST:
        return totals
    table = np.array(rows, dtype=np.float64)
    for key, (_, numbers) in MOVEMENTS.items():
        places = [EXPRESSIONS.index(number) for number in numbers]
        driven, drawn = table[:, places].ravel(), table[:, [KEPT + place for place in places]].ravel()
        strong = np.abs(driven) >= np.quantile(np.abs(driven), _STRONGEST)
        if not driven.any():
            continue
        totals[f"{key}_slope"] = float(driven @ drawn / (driven @ driven))
        totals[f"{key}_strongest"] = float(driven[strong] @ drawn[strong] / (driven[strong] @ driven[strong]))
        if driven.std() > 0 and drawn.std() > 0:
            totals[f"{key}_correlation"] = float(np.corrcoef(driven, drawn)[0, 1])
    return totals
