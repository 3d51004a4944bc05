"""Holds what an evaluation run knows, and reads and writes it as a JSON file: metrics, pairs, and a value per metric and measured frame.

Protocols fill these records, the cache keeps them, and statistics and the report read them. Nothing here measures or draws.

In the file numbers are Python's shortest exact decimals, so that nothing is lost. JSON has no infinities: numbers that are not finite are
written as null and read as missing. Fields that this version does not know, such as a report's statistics, are ignored.
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

# This is a frame's value. None means that a detector found no face there. Such frames are counted, and never dropped silently.
Value = float | None
COPY = "copy"  # This is the name of the baseline that answers every frame with the source.
Standing = Literal["better", "worse", "same"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric."""

    key: str
    """A short name, such as "lpips"."""
    title: str
    """The heading."""
    better: Literal["lower", "higher"]
    """Which values are better."""
    range: str
    """The range of values, in words."""
    tool: str
    """What measures it, with the library's name and settings."""
    unit: str = ""
    """The unit of values, in words."""
    per: Literal["frame", "clip", "set"] = "frame"
    """Whether there is one value per frame, one per clip (such as flicker), or one per set (such as FID), with none for a pair."""
    signed: bool = False
    """Whether values can lie below 0, so that their ratios say nothing."""

    def ratio(self, value: float, other: float) -> float | None:
        """Returns value / other, or None where a ratio says nothing: for signed values, for decibels (logarithms), and over zero."""
        if self.signed or self.unit == "dB" or value < 0 or other <= 0:
            return None
        return value / other

    def standing(self, value: float, other: float) -> Standing:
        """Says whether `value` is better or worse than `other`, in this metric's own direction."""
        if value == other:
            return "same"
        return "better" if (value > other) == (self.better == "higher") else "worse"


@dataclass(frozen=True, kw_only=True)
class PairScores:
    """The values of one method on one pair."""

    pair: str
    """The pair's name, "source--driving", which is unique in a run."""
    source: str
    """The source's name below the clip folder."""
    driving: str
    """The driving clip's name below the clip folder."""
    method: str
    """The method's name."""
    source_frame: int = 0
    """The number of the source frame in its clip."""
    frames: tuple[int, ...] = ()
    """The numbers of the driving frames that were measured."""
    values: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    """For each metric's key one value per measured frame, or a single one for metrics per clip."""
    missing: Mapping[str, int] = field(default_factory=dict)
    """The number of frames in which no face was found, for "result" and for "driving"."""
    rotation: tuple[Value, ...] = ()
    """For each measured frame the angle in degrees between the head there and in the source; None without a face."""
    expressions: tuple[tuple[float, ...], ...] = ()
    """Ten numbers for each measured frame with a face everywhere.

    They are the first five of `media.landmarks.expressions` in the driving frame and then in the result, both less those of the source.
    """
    problem: str | None = None
    """Why nothing, or not everything, could be measured; None where all went well."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A whole run."""

    protocol: Literal["reconstruction", "cross-identity"]
    """What was measured."""
    metrics: tuple[Metric, ...]
    """The metrics, in the order to show."""
    methods: tuple[str, ...]
    """The methods in the order to show. The measured one comes first, and baselines come last."""
    scores: tuple[PairScores, ...]
    """The values of each method on each pair."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """What a reader needs to repeat the run (model, digest of its weights, frames taken, versions)."""
    totals: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """For each method the values of metrics per set, by their keys."""
    pictures: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """For each method, and for "source" and "driving", the strip of each pair: a JPEG file in the run's folder.

    A strip is a row of frames of one size. All strips of a pair show the same measured frames.
    """


def save(path: Path | str, evaluation: Evaluation, overwrite: bool = False) -> None:
    """Writes the run, whole or not at all. Raises InputError as `atomic_output` does."""
    with atomic_output(path, overwrite) as partial:
        partial.write_text(json.dumps(finite(asdict(evaluation)), indent=1, allow_nan=False), encoding="utf-8")


def load(path: Path | str) -> Evaluation:
    """Reads the run in a file that `save` or a report wrote. Raises InputError when it is missing, damaged or no such file."""
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
    """Makes the values of one method on one pair of a JSON entry. Raises KeyError, TypeError or AttributeError where it does not fit."""
    known = _known(PairScores, entry)
    for name in ("frames", "rotation"):
        known[name] = tuple(known.get(name, ()))
    known["expressions"] = tuple(tuple(row) for row in known.get("expressions", ()))
    known["values"] = {key: tuple(values) for key, values in known.get("values", {}).items()}
    return PairScores(**known)


def finite(value: Any) -> Any:
    """Replaces numbers that are not finite by None, in nested dicts and sequences."""
    if isinstance(value, Mapping):
        return {name: finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _known(kind: type, entry: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in entry.items() if name in names}
