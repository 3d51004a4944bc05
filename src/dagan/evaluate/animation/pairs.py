"""Pairs: which source is driven by which clip, and which frames of it are measured.

Pairs are drawn by seed, or come from a list in a CSV file. A list has the columns source, driving and frame, which is the number of the
source's frame, or 0 where it is left out. Other columns, such as the `distance` of published lists, are ignored. Clips are named by
their path below the clip folder, by their file name, or by that without its suffix.

Legend: H W picture.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dagan.checks import require_file
from dagan.errors import InputError
from dagan.media.decode import probe
from dagan.media.images import read_image
from dagan.media.kinds import Clip
from dagan.media.output import atomic_output
from dagan.media.video import VideoReader, open_video

COLUMNS = ("source", "driving", "frame")


@dataclass(frozen=True)
class Pair:
    """A source and a driving clip."""

    source: Clip
    """The clip that the source frame is from."""
    driving: Clip
    """The clip that drives."""
    frame: int = 0
    """The number of the source's frame in its clip."""

    @property
    def name(self) -> str:
        """The name "source--driving", with the frame where it is not the first. It is unique in a run."""
        return f"{self.source.name}{f'@{self.frame}' if self.frame else ''}--{self.driving.name}"

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


def read_pairs(file: Path, sources: Sequence[Clip], drivers: Sequence[Clip]) -> tuple[list[Pair], list[str]]:
    """Returns the pairs of a list, and the names in it that no clip has, whose pairs are left out.

    Raises InputError when the file is missing or no such list, and when none of its pairs is left.
    """
    require_file(file, "pair list")
    source_of, driving_of = _index(sources), _index(drivers)
    pairs: dict[Pair, None] = {}  # Pairs stay in their order, each once.
    unknown: dict[str, None] = {}
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines, skipinitialspace=True)
            missing = {"source", "driving"} - set(reader.fieldnames or ())
            if missing:
                lacking = " and no column ".join(sorted(missing))
                raise InputError(f"{file} has no column {lacking}: its first line must name {', '.join(COLUMNS)}")
            for row in reader:
                names = {column: (row[column] or "").strip() for column in ("source", "driving")}
                source, driving = source_of.get(names["source"]), driving_of.get(names["driving"])
                if source is None or driving is None:
                    unknown |= {names[c]: None for c, clip in (("source", source), ("driving", driving)) if clip is None}
                    continue
                pairs[Pair(source, driving, _frame(row.get("frame"), file, reader.line_num))] = None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file} is no CSV file ({error}): give a list with the columns {', '.join(COLUMNS)}") from None
    if not pairs:
        fault = f"names no clip of the folder, such as {next(iter(unknown))!r}" if unknown else "holds no pairs"
        raise InputError(f"{file} {fault}: name clips by their path below the folder")
    return list(pairs), list(unknown)


def write_pairs(file: Path, pairs: Iterable[Pair], overwrite: bool = False) -> None:
    """Writes the list that `read_pairs` reads. Raises InputError as `atomic_output` does."""
    with atomic_output(file, overwrite) as partial, partial.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines)
        writer.writerow(COLUMNS)
        writer.writerows((pair.source.name, pair.driving.name, pair.frame) for pair in pairs)


def _frame(text: str | None, file: Path, line: int) -> int:
    try:
        value = float(text or 0)  # Tables written by other programs may have 0.0.
        if value < 0 or not value.is_integer():
            raise ValueError
    except ValueError:
        raise InputError(f"{file}, line {line}: frame is {text!r}, must be a whole number from 0") from None
    return int(value)


def _index(clips: Sequence[Clip]) -> dict[str, Clip]:
    """Returns the clips by their names. Full names take precedence; a short name that two clips share names neither."""
    index: dict[str, Clip | None] = {}
    for clip in clips:
        path = Path(clip.name)
        stem = path.with_suffix("").as_posix() if not clip.path.is_dir() else clip.name
        for name in {stem, path.name, Path(stem).name}:
            index[name] = None if name in index and index[name] is not clip else clip
    full = {clip.name: clip for clip in clips}
    return {name: clip for name, clip in index.items() if clip is not None} | full


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


def make_plan(length: int, every: int, left_out: int | None) -> Plan:
    """Plans to measure every `every`-th frame from the first, except `left_out`, the source's own. Raises InputError when none is left."""
    measured = tuple(i for i in range(0, length, every) if i != left_out)
    if not measured:
        raise InputError(f"none of its {length} frames is left to measure with --every {every}: give a smaller one")
    return Plan(measured, evenly([i for i in measured if i + 1 < length], FLICKER_PAIRS), evenly(measured, STRIP_FRAMES), length)


def evenly(numbers: tuple[int, ...] | list[int], most: int) -> tuple[int, ...]:
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


def read_source(clip: Clip, frame: int) -> Image:
    """Returns a clip's frame, or a still. Raises InputError when there is no such frame."""
    if clip.still:
        if frame:
            raise InputError(f"{clip.path} is one picture, it has no frame {frame}: name frame 0")
        return read_image(clip.path)
    with open_video(clip.path) as video:
        for _, image in numbered(video, (frame,)):
            return image
    raise InputError(f"{clip.path} has no frame {frame}: name one of its frames, from 0")
