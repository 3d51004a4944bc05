"""Pairs: which source is driven by which clip or frame, and which frames of a clip are measured.

Pairs are drawn by seed, or come from a list (see `lists`).

Legend: H W picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dagan.errors import InputError
from dagan.media.decode import probe
from dagan.media.images import Clip, image_files, read_image
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
