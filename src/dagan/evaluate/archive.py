"""An evaluation run as a JSON file and back, with nothing lost.

Numbers are written as Python's shortest exact decimals. JSON has no infinities: numbers that are not finite are written as null
and read as missing. Fields that this version does not know, such as a report's statistics, are left aside.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from dagan.errors import InputError
from dagan.evaluate.records import Evaluation, Metric, PairScores
from dagan.media.images import require_file
from dagan.media.output import atomic_output


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
