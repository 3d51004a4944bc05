"""What an evaluation run knows: which metrics, which pairs, and one value per metric and measured frame; and that as a JSON file.

Protocols fill these, the cache keeps them, statistics and the report read them. Nothing here measures or draws.

In the file numbers are Python's shortest exact decimals, and nothing is lost. JSON has no infinities: numbers that are not finite are
written as null and read as missing. Fields that this version does not know, such as a report's statistics, are left aside.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from dagan.checks import require_file
from dagan.errors import InputError
from dagan.media.output import atomic_output

# A frame's value; None where a detector found no face there. Such frames are counted, never dropped silently.
Value = float | None
COPY = "copy"  # the name of the baseline that answers every frame with the source
Standing = Literal["better", "worse", "same"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One ruler. key: short name, such as "lpips"; title: heading; better: which way is good; range, unit: of its values, in words;
    tool: what measures it, with the library's name and settings; per: one value a "frame", or one a "clip" (flicker, ...), or one a
    "set" (FID), which has no values per pair; signed: whether values can lie below 0, so that their ratios say nothing."""

    key: str
    title: str
    better: Literal["lower", "higher"]
    range: str
    tool: str
    unit: str = ""
    per: Literal["frame", "clip", "set"] = "frame"
    signed: bool = False

    def ratio(self, value: float, other: float) -> float | None:
        """value / other; None where that says nothing: of signed values, of decibels, which are logarithms, and of nothing."""
        if self.signed or self.unit == "dB" or value < 0 or other <= 0:
            return None
        return value / other

    def standing(self, value: float, other: float) -> Standing:
        """Which of two means is better, in this metric's own direction."""
        if value == other:
            return "same"
        return "better" if (value > other) == (self.better == "higher") else "worse"


@dataclass(frozen=True, kw_only=True)
class PairScores:
    """One method on one pair.

    pair: "source--driving", unique in a run; source, driving: names below the clip folder; source_frame: number of the source
    frame in its clip. frames: the numbers of the driving frames that were measured. values: metric key -> one value per measured
    frame (one in all for metrics per clip). missing: "result" and "driving" -> frames in which no face was found.
    rotation: per measured frame, angle in degrees between the head in the driving frame and in the source; None without a face.
    expressions: for each measured frame with a face everywhere, ten numbers: the first five of `media.expression` in the driving
    frame and then in the result, both less those of the source. problem: why nothing, or not everything, could be measured; None
    where all went well.
    """

    pair: str
    source: str
    driving: str
    method: str
    source_frame: int = 0
    frames: tuple[int, ...] = ()
    values: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)
    rotation: tuple[Value, ...] = ()
    expressions: tuple[tuple[float, ...], ...] = ()
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A whole run. protocol: "reconstruction" or "cross-identity"; methods: in the order to show, the measured one first, baselines
    last; settings: what a reader needs to repeat it (model, weights' digest, frames taken, versions). totals: method -> metric key ->
    value, for metrics per set. pictures: method (or "source", "driving") -> pair -> JPEG strip of frames, a file in the run's folder:
    every strip of a pair shows the same measured frames, left to right, each of the same side."""

    protocol: Literal["reconstruction", "cross-identity"]
    metrics: tuple[Metric, ...]
    methods: tuple[str, ...]
    scores: tuple[PairScores, ...]
    settings: Mapping[str, str] = field(default_factory=dict)
    totals: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    pictures: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def save(path: Path | str, evaluation: Evaluation, overwrite: bool = False) -> None:
    """Writes the run, whole or not at all. Raises InputError as `atomic_output` does."""
    with atomic_output(path, overwrite) as partial:
        partial.write_text(json.dumps(finite(asdict(evaluation)), indent=1, allow_nan=False), encoding="utf-8")


def load(path: Path | str) -> Evaluation:
    """The run in a file that `save` or a report wrote. Raises InputError when it is missing, damaged or no such file."""
    path = Path(path)
    require_file(path, "evaluation")
    try:
        known = _known(Evaluation, json.loads(path.read_text(encoding="utf-8")))
        known["metrics"] = tuple(Metric(**_known(Metric, entry)) for entry in known["metrics"])
        known["scores"] = tuple(scores_from(entry) for entry in known["scores"])
        known["methods"] = tuple(known["methods"])
        return Evaluation(**known)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no evaluation that can be read ({type(error).__name__}: {error}): run it again") from None


def scores_from(entry: Mapping[str, Any]) -> PairScores:
    """One method on one pair from what JSON makes of it. Raises KeyError, TypeError or AttributeError when it does not fit."""
    known = _known(PairScores, entry)
    for name in ("frames", "rotation"):
        known[name] = tuple(known.get(name, ()))
    known["expressions"] = tuple(tuple(row) for row in known.get("expressions", ()))
    known["values"] = {key: tuple(values) for key, values in known.get("values", {}).items()}
    return PairScores(**known)


def finite(value: Any) -> Any:
    """With None where a number is not finite, in nested dicts and sequences."""
    if isinstance(value, Mapping):
        return {name: finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _known(kind: type, entry: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in entry.items() if name in names}
