"""Lists of pairs in CSV files, as this program writes them and as they are published.

A row pairs a source with a driving clip, or a frame with a frame. A frame is named as a file in its clip, `CLIP.mp4/0000013.png`, whether
the clip is a folder of such files or a video, of which the frame with that number is decoded; frames are counted from 0. Clips are named
by their path below the clip folder, by the end of that, or by their file name, with or without suffix. A path from somebody else's
machine may have more folders in front. They are stripped as far as needed; what is left must still say whom the clip shows.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from dagan.checks import require_file
from dagan.data.clips import bare
from dagan.errors import InputError
from dagan.evaluate.animation.pairs import Pair
from dagan.media.images import IMAGE_SUFFIXES, Clip, image_files
from dagan.media.output import atomic_output

COLUMNS = ("source", "driving", "frame", "driving_frame")
# Other programs name the columns so. Case, spaces and underscores do not matter. Other columns, such as `distance`, are left aside.
_SYNONYMS = {
    "source": ("source", "sourceimage", "sourceframe", "sourcepath", "src", "reference"),
    "driving": ("driving", "drivingimage", "drivingpath", "drivingvideo", "driver", "drv", "target", "targetpath"),
    "frame": ("frame", "sourceframenumber", "sourceindex"),
    "driving_frame": ("drivingframe", "drivingframenumber", "drivingindex"),
}


def read_pairs(file: Path, sources: Sequence[Clip], drivers: Sequence[Clip]) -> tuple[list[Pair], list[str]]:
    """Returns the pairs of a list, and the names in it that no clip or frame has, whose pairs are left out.

    Raises InputError when the file is missing or no such list, and when none of its pairs is left.
    """
    require_file(file, "pair list")
    known = {"source": _Clips(sources), "driving": _Clips(drivers)}
    pairs: dict[Pair, None] = {}  # Pairs stay in their order, each once.
    unknown: dict[str, None] = {}
    for line, row in _rows(file):
        places = {column: known[column].find(row[column]) for column in known}
        missing = [row[column] for column, place in places.items() if place is None]
        unknown |= dict.fromkeys(missing)
        source, driving = places["source"], places["driving"]
        if source is None or driving is None:
            continue
        start = source.frame if source.frame is not None else _number(row.get("frame"), "frame", file, line) or 0
        only = driving.frame if driving.frame is not None else _number(row.get("driving_frame"), "driving_frame", file, line)
        pairs[Pair(source.clip, driving.clip, start, only)] = None
    if not pairs:
        fault = f"names no clip of the folder, such as {next(iter(unknown))!r}" if unknown else "holds no pairs"
        raise InputError(f"{file} {fault}: name clips by their path below the folder, and frames as CLIP.mp4/0000013.png")
    return list(pairs), list(unknown)


def write_pairs(file: Path, pairs: Iterable[Pair], overwrite: bool = False) -> None:
    """Writes the list that `read_pairs` reads. Raises InputError as `atomic_output` does."""
    listed = list(pairs)
    columns = COLUMNS if any(pair.driving_frame is not None for pair in listed) else COLUMNS[:3]
    with atomic_output(file, overwrite) as partial, partial.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines)
        writer.writerow(columns)
        for pair in listed:
            row = (pair.source.name, pair.driving.name, pair.frame, "" if pair.driving_frame is None else pair.driving_frame)
            writer.writerow(row[: len(columns)])


def _rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields line numbers and rows, whose cells are named by COLUMNS. Raises InputError for what is no such table."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines, skipinitialspace=True)
            named = {column: _column(column, reader.fieldnames or ()) for column in COLUMNS}
            missing = sorted(column for column in ("source", "driving") if named[column] is None)
            if missing:
                lacking = " and no column ".join(missing)
                raise InputError(f"{file} has no column {lacking}: its first line must name {', '.join(COLUMNS[:3])}")
            for row in reader:
                yield reader.line_num, {column: (row[name] or "").strip() for column, name in named.items() if name is not None}
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file} is no CSV file ({error}): give a list with the columns {', '.join(COLUMNS[:3])}") from None


def _column(wanted: str, names: Sequence[str | None]) -> str | None:
    """Returns what the table calls a column, or None where it has none. The program's own name goes before other names."""
    plain = {(name or "").lower().replace("_", "").replace(" ", ""): name for name in reversed(names)}
    return next((plain[word] for word in _SYNONYMS[wanted] if word in plain), None)


def _number(text: str | None, column: str, file: Path, line: int) -> int | None:
    if not text:
        return None
    try:
        value = float(text)  # Tables written by other programs may have 0.0.
        if value < 0 or not value.is_integer():
            raise ValueError
    except ValueError:
        raise InputError(f"{file}, line {line}: {column} is {text!r}, must be a whole number from 0") from None
    return int(value)


@dataclass(frozen=True)
class _Place:
    """What a cell of a list names."""

    clip: Clip
    frame: int | None = None
    """The number of the frame that is named; None where the cell names the clip."""


class _Clips:
    """Finds clips and their frames by names in a list."""

    def __init__(self, clips: Sequence[Clip]) -> None:
        self._clips = clips
        self._frames: dict[Path, Mapping[str, int]] = {}

    @cached_property
    def _full(self) -> dict[str, Clip]:
        return {clip.name: clip for clip in self._clips}

    @cached_property
    def _ends(self) -> dict[str, Clip | None]:
        """The clips by the ends of their names. An end that two clips share names neither."""
        index: dict[str, Clip | None] = {}
        for clip in self._clips:
            parts = PurePosixPath(clip.name).parts
            for name in {form for i in range(len(parts)) for form in _forms("/".join(parts[i:]))}:
                index[name] = None if name in index and index[name] is not clip else clip
        return index

    @cached_property
    def _telling(self) -> dict[str, Clip | None]:
        """The ends that still hold the identity where the name holds it, which are enough for a path of which folders were stripped."""
        telling: dict[str, Clip | None] = {}
        for name, clip in self._ends.items():
            if clip is not None and (clip.identity in name or clip.identity not in clip.name or name in _forms(clip.name)):
                telling[name] = clip
        return telling

    def find(self, cell: str) -> _Place | None:
        """Returns what a cell names, or None."""
        name = cell.replace("\\", "/").removeprefix("./")
        if name in self._full:
            return _Place(self._full[name])
        folder, _, last = name.rpartition("/")
        if folder and PurePosixPath(last).suffix.lower() in IMAGE_SUFFIXES and (clip := self._clip(folder)) is not None and not clip.still:
            number = self._frame(clip, last)
            return None if number is None else _Place(clip, number)
        clip = self._clip(name)
        return None if clip is None else _Place(clip)

    def _clip(self, name: str) -> Clip | None:
        parts = [part for part in name.split("/") if part]
        for stripped in range(len(parts)):
            known = self._telling if stripped or name.startswith("/") else self._ends
            for form in _forms("/".join(parts[stripped:])):
                if (clip := known.get(form)) is not None:
                    return clip
        return None

    def _frame(self, clip: Clip, file: str) -> int | None:
        """Returns the number of a frame: of the file with that name, or that number, in a folder, and what the name says in a video."""
        digits = PurePosixPath(file).stem
        if not clip.path.is_dir():
            return int(digits) if digits.isdecimal() else None
        if clip.path not in self._frames:
            names = [path.name for path in image_files(clip.path)]
            numbers = {str(int(Path(name).stem)): i for i, name in enumerate(names) if Path(name).stem.isdecimal()}
            self._frames[clip.path] = numbers | {name: i for i, name in enumerate(names)}
        known = self._frames[clip.path]
        return known.get(file, known.get(str(int(digits))) if digits.isdecimal() else None)


def _forms(name: str) -> tuple[str, ...]:
    """Returns a name as it is, and without a suffix."""
    return tuple(dict.fromkeys((name, bare(name))))
