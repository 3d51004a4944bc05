"""Animates many pairs of a photo and something that drives it, by one worker or by many, each with an engine of its own.

Results that are there count as finished and are kept, so that a run that was stopped goes on. A pair that fails does not stop the others.
The folder of results gets one summary, `summary.json`.
"""

from __future__ import annotations

import csv
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from dagan.animate.pipeline import AnimateOptions, animate, check_animate
from dagan.checks import json_text, nearest
from dagan.engine.base import Engine
from dagan.errors import InputError
from dagan.media.images import IMAGE_SUFFIXES
from dagan.media.output import atomic_output
from dagan.processes import share_out
from dagan.progress import Progress, Warn, silent, to_stderr

SUMMARY = "summary.json"
STAGE = "pairs"  # `Progress` is told of this stage.
_COLUMNS = ("source", "driving", "output")
# These options concern the whole run, or name a file of their own.
_COMMON = ("overwrite", "report", "save_motion", "credentials")


@dataclass(frozen=True)
class BatchPair:
    """One result that is wanted."""

    source: Path
    """The photo."""
    driving: Path
    """What drives it."""
    output: Path
    """The result's file."""
    options: AnimateOptions
    """How to animate."""


@dataclass(frozen=True)
class BatchEntry:
    """What came of a pair."""

    source: str
    driving: str
    output: str
    state: Literal["written", "kept", "failed"]
    """Whether the result was written now, had been written before, or could not be made."""
    problem: str | None = None
    """Why it could not be made."""
    frames: int = 0
    """The number of frames that were written now."""
    seconds: float = 0.0
    """How long that took."""
    warnings: tuple[str, ...] = ()
    """What the user is to know of the result."""


def read_pairs(table: Path, folder: Path, options: AnimateOptions) -> list[BatchPair]:
    """Reads a CSV file with the columns source and driving, and perhaps output and options of `AnimateOptions` by their names.

    Relative paths start at the table's folder, and those of outputs at `folder`. An empty cell leaves an option as `options` has it. Raises
    InputError for unknown columns, for values out of range, and where two pairs have one output.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = list(reader.fieldnames or ())
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table} cannot be read as a CSV file ({error}): give one with the columns source and driving") from None
    known = {field.name for field in fields(AnimateOptions)} - set(_COMMON)
    for name in names:
        if name not in known and name not in _COLUMNS:
            raise InputError(f"{table} has a column {name!r}: {nearest(name, [*_COLUMNS, *sorted(known)])}")
    if not {"source", "driving"} <= set(names) or not rows:
        raise InputError(f"{table} lists no pairs: it needs a first line with source,driving and a line for each pair")
    pairs = []
    for number, row in enumerate(rows, 2):
        where = f"{table}, line {number}"
        cells = {name: (value or "").strip() for name, value in row.items() if name is not None}
        if not cells["source"] or not cells["driving"]:
            raise InputError(f"{where}: source or driving is empty: name both")
        source, driving = table.parent / cells["source"], table.parent / cells["driving"]
        if not driving.exists() and not driving.suffix:  # It is the name of a motion that comes with the program.
            driving = Path(cells["driving"])
        output = folder / (cells.get("output") or f"{source.stem}-{driving.stem}.mp4")
        chosen = {name: _value(name, cells[name], where) for name in names if name in known and cells[name]}
        pairs.append(BatchPair(source, driving, output, replace(options, **chosen)))
    return _distinct(pairs, str(table))


def pairs_of(photos: Path, driving: Path, folder: Path, options: AnimateOptions) -> list[BatchPair]:
    """Pairs every image file of a folder with one driving input. Results are named like photos. Raises InputError."""
    found = sorted(path for path in photos.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."))
    if not found:
        raise InputError(f"{photos} holds no photos: name a folder with .jpg or .png files, or one photo")
    return _distinct([BatchPair(photo, driving, folder / f"{photo.stem}.mp4", options) for photo in found], str(photos))


def _distinct(pairs: list[BatchPair], where: str) -> list[BatchPair]:
    seen: dict[Path, BatchPair] = {}
    for pair in pairs:
        if pair.output in seen:
            raise InputError(f"{where}: two pairs write {pair.output}: give them names of their own in the column output")
        seen[pair.output] = pair
    return pairs


def _value(name: str, text: str, where: str) -> Any:
    if name == "frame_rate":
        try:
            return Fraction(text)
        except (ValueError, ZeroDivisionError):
            raise InputError(f"{where}: frame_rate is {text!r}: must be a number such as 25, 29.97 or 30000/1001") from None
    kind = typing.get_type_hints(AnimateOptions)[name]
    try:
        return TypeAdapter(kind).validate_python(text)
    except ValidationError:
        wanted = "true or false" if kind is bool else "a number" if kind in (int, float) else "a word"
        raise InputError(f"{where}: {name} is {text!r}: must be {wanted}") from None


def animate_many(
    pairs: Sequence[BatchPair], open_engine: Callable[[], Engine], folder: Path, *, workers: int = 1, cluster: str | None = None,
    progress: Progress = silent, warn: Warn = to_stderr,
) -> list[BatchEntry]:  # fmt: skip
    """Animates all pairs and writes the summary. Returns what came of each, in their order.

    `open_engine` is called once in each of `workers` processes, of this machine or of the Ray cluster at the address `cluster`. Raises
    InputError for a model that cannot be opened, and where no worker can be had. What is wrong with a pair stands in its entry.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entries: dict[Path, BatchEntry] = {}
    for pair in pairs:
        if pair.output.exists() and not pair.options.overwrite:
            entries[pair.output] = _entry(pair, "kept")
    waiting = [pair for pair in pairs if pair.output not in entries]
    progress(STAGE, len(entries), len(pairs))
    alone = workers == 1 and cluster is None
    for pair, entry in share_out(partial(_Animating, open_engine, alone), waiting, workers, cluster):
        entries[pair.output] = entry
        if entry.problem is not None:
            warn(f"{entry.source} with {entry.driving}: {entry.problem}")
        progress(STAGE, len(entries), len(pairs))
    found = [entries[pair.output] for pair in pairs]
    with atomic_output(folder / SUMMARY, overwrite=True) as part:
        part.write_text(json_text(summary_of(found)), encoding="utf-8")
    return found


def summary_of(entries: Sequence[BatchEntry]) -> Mapping[str, Any]:
    """Returns the summary as a plain mapping: counts, and every pair."""
    states = {state: sum(entry.state == state for entry in entries) for state in ("written", "kept", "failed")}
    return {"pairs": len(entries), **states, "frames": sum(e.frames for e in entries), "entries": [asdict(entry) for entry in entries]}


def _entry(pair: BatchPair, state: Literal["written", "kept", "failed"], **more: Any) -> BatchEntry:
    return BatchEntry(str(pair.source), str(pair.driving), str(pair.output), state, **more)


class _Animating:
    """A worker with an open engine."""

    def __init__(self, open_engine: Callable[[], Engine], alone: bool) -> None:
        if not alone:
            import torch

            torch.set_num_threads(1)  # Workers share the cores out already.
        self.engine = open_engine()

    def __call__(self, pair: BatchPair) -> BatchEntry:
        said: list[str] = []
        try:
            pair.output.parent.mkdir(parents=True, exist_ok=True)
            check_animate(pair.source, pair.driving, pair.output, pair.options)
            report = animate(self.engine, pair.source, pair.driving, pair.output, pair.options, silent, said.append)
        except InputError as error:
            return _entry(pair, "failed", problem=str(error), warnings=tuple(said))
        except Exception as error:  # A fault of the program or of a library with one pair must not cost the others.
            return _entry(pair, "failed", problem=f"{type(error).__name__}: {error}", warnings=tuple(said))
        return _entry(pair, "written", frames=report.frames, seconds=report.wall_seconds, warnings=tuple(report.warnings))
