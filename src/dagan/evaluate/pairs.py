"""Pairs: which source is driven by which clip or frame, and which frames of a clip are measured.

Pairs are drawn by seed, or come from a list: a CSV file, as this program writes it or as they are published. A row pairs a source with a
driving clip, or a frame with a frame. A frame is named as a file in its clip, `CLIP.mp4/0000013.png`, whether the clip is a folder of such
files or a video, of which the frame with that number is decoded; frames are counted from 0. Clips are named by their path below the clip
folder, by the end of that, or by their file name, with or without suffix. A path from somebody else's machine may have more folders in
front. They are stripped as far as needed; what is left must still say whom the clip shows.

Legend: H W picture.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from dagan.checks import require_file
from dagan.data.clips import bare
from dagan.errors import InputError
from dagan.media.decode import probe
from dagan.media.images import IMAGE_SUFFIXES, Clip, image_files, read_image
from dagan.media.output import atomic_output
from dagan.media.video import VideoReader, open_video


@dataclass(frozen=True)
class Pair:
    """A source and a driving clip, or one frame of each."""

    source: Clip
    """The clip that the source frame is from."""
    driving: Clip
    """The clip that drives."""
    frame: int = 0
    """The number of the source's frame in its clip."""
    driving_frame: int | None = None
    """The number of the one driving frame that is measured; None for a pair whose whole driving clip is."""

    @property
    def name(self) -> str:
        """The name "source--driving", unique in a run. It has the source's frame, unless that is the first, and a single driving one."""
        return self.called(self.source.name, self.driving.name)

    def called(self, source: str, driving: str, joint: str = "--") -> str:
        """Returns the pair's name where source and driving clip are called so."""
        only = "" if self.driving_frame is None else f"@{self.driving_frame}"
        return f"{source}{f'@{self.frame}' if self.frame or only else ''}{joint}{driving}{only}"

    @property
    def same(self) -> bool:
        """Whether a clip is driven by itself."""
        return self.source.path == self.driving.path


def self_pairs(clips: Iterable[Clip]) -> list[Pair]:
    """Returns every clip driven by itself, from its first frame."""
    return [Pair(clip, clip) for clip in clips]


def draw_pairs(drivers: Sequence[Clip], sources: Sequence[Clip], seed: int, count: int | None = None) -> list[Pair]:
    """Draws a source of another identity for each driving clip. There are `count` pairs, or all for None.

    Sources are chosen by hashes of names and seed. So the same names give the same pairs on every machine, and a clip that comes or goes
    does not change the order of other pairs. Raises InputError when no source shows another identity.
    """
    if count is not None and count < 1:
        raise InputError(f"the number of pairs is {count}: must be at least 1")
    chosen = []
    for driving in sorted(drivers, key=lambda clip: _place(seed, "", clip.name))[:count]:
        others = [clip for clip in sources if clip.identity != driving.identity]
        if others:
            chosen.append(Pair(min(others, key=lambda clip: _place(seed, driving.name, clip.name)), driving))
    if not chosen:
        raise InputError("no source shows another identity than the driving clips: give clips of two people or more, or --portraits")
    return sorted(chosen, key=lambda pair: pair.name)


def _place(seed: int, first: str, second: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{first}\0{second}".encode()).digest()


Image = NDArray[np.uint8]

FLICKER_PAIRS = 8  # Flicker is measured at so many evenly spaced places of a clip, because optical flow costs more than all else.
STRIP_FRAMES = 6  # A strip shows so many frames.


@dataclass(frozen=True)
class Plan:
    """Which frames of a driving clip are looked at."""

    measured: tuple[int, ...]
    """The numbers of the frames that are measured."""
    followed: tuple[int, ...]
    """Those of them whose next frame is looked at too, for flicker."""
    shown: tuple[int, ...]
    """Those of them that are in the strip."""
    length: int
    """The number of the video's frames."""

    @property
    def needed(self) -> tuple[int, ...]:
        """All frames that are looked at, in order."""
        return tuple(sorted({*self.measured, *(i + 1 for i in self.followed)}))


def make_plan(pair: Pair, length: int, every: int) -> Plan:
    """Plans which of a driving clip's `length` frames are measured.

    It is the pair's driving frame, or every `every`-th frame from the first, except the source's own. Raises InputError when the clip has
    no such frame, and when none is left.
    """
    if pair.driving_frame is not None:
        if pair.driving_frame >= length:
            raise InputError(f"{pair.driving.path} has no frame {pair.driving_frame}: it has {length}, which are counted from 0")
        return Plan((pair.driving_frame,), (), (pair.driving_frame,), length)
    left_out = pair.frame if pair.same else None
    measured = tuple(i for i in range(0, length, every) if i != left_out)
    if not measured:
        raise InputError(f"none of its {length} frames is left to measure with --every {every}: give a smaller one")
    return Plan(measured, evenly([i for i in measured if i + 1 < length], FLICKER_PAIRS), evenly(measured, STRIP_FRAMES), length)


def evenly(numbers: Sequence[int], most: int) -> tuple[int, ...]:
    """Returns at most `most` of the numbers, evenly spaced, including the first and the last."""
    if len(numbers) <= most:
        return tuple(numbers)
    return tuple(numbers[round(i * (len(numbers) - 1) / (most - 1))] for i in range(most))


def count_frames(path: Path) -> int:
    """Counts a video's frames by its packets without decoding, because headers may be wrong. Raises InputError for what is no video."""
    return probe(Clip(path, path.name, "")).count


def numbered(video: VideoReader, numbers: tuple[int, ...]) -> Iterator[tuple[int, Image]]:
    """Yields (number, picture) of the wanted frames, in ascending order, as far as the video goes. It reads the video once."""
    if not numbers:
        return
    wanted = set(numbers)
    for frame in video:
        if frame.index in wanted:
            yield frame.index, frame.filled
        if frame.index >= numbers[-1]:
            return


def read_frame(clip: Clip, frame: int) -> Image:
    """Returns a clip's frame, or a still. Raises InputError when there is no such frame."""
    if clip.still:
        if frame:
            raise InputError(f"{clip.path} is one picture, it has no frame {frame}: name frame 0")
        return read_image(clip.path)
    if clip.path.is_dir():  # The images before it need not be read.
        files = image_files(clip.path)
        if frame < len(files):
            return read_image(files[frame])
    else:
        with open_video(clip.path) as video:
            for _, image in numbered(video, (frame,)):
                return image
    raise InputError(f"{clip.path} has no frame {frame}: name one of its frames, from 0")


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
