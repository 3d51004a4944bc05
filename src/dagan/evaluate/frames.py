"""Which frames of a driving video are measured, and frames by their numbers. Legend: H W picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dagan.data.clips import Clip
from dagan.errors import InputError
from dagan.media.images import read_image
from dagan.media.video import open_video

Image = NDArray[np.uint8]

FLICKER_PAIRS = 8  # of a clip, evenly spaced: optical flow costs more than everything else
STRIP_FRAMES = 6
_REST = 1 << 30  # a step that converts the first frame only; the others are decoded and counted


@dataclass(frozen=True)
class Plan:
    """measured: numbers of the frames that are measured; followed: of those, the ones whose next frame is looked at too, for flicker;
    shown: of those, the ones in the strip; length: frames of the video."""

    measured: tuple[int, ...]
    followed: tuple[int, ...]
    shown: tuple[int, ...]
    length: int

    @property
    def needed(self) -> tuple[int, ...]:
        """All frames that are looked at, in order."""
        return tuple(sorted({*self.measured, *(i + 1 for i in self.followed)}))


def make_plan(length: int, every: int, left_out: int | None) -> Plan:
    """Every `every`-th frame from the first without `left_out`, the source's own. Raises InputError when none is left."""
    measured = tuple(i for i in range(0, length, every) if i != left_out)
    if not measured:
        raise InputError(f"none of its {length} frames is left to measure with --every {every}: give a smaller one")
    return Plan(measured, evenly([i for i in measured if i + 1 < length], FLICKER_PAIRS), evenly(measured, STRIP_FRAMES), length)


def evenly(numbers: tuple[int, ...] | list[int], most: int) -> tuple[int, ...]:
    """At most `most` of the numbers, evenly spaced, first and last among them."""
    if len(numbers) <= most:
        return tuple(numbers)
    return tuple(numbers[round(i * (len(numbers) - 1) / (most - 1))] for i in range(most))


def count_frames(path: Path) -> int:
    """Frames that can be read, by decoding them all: headers lie. Raises InputError as `open_video` does."""
    with open_video(path) as video:
        for _ in video.frames(step=_REST):
            pass
        return video.frames_read


def numbered(path: Path, numbers: tuple[int, ...]) -> Iterator[tuple[int, Image]]:
    """(number, picture) of the wanted frames, ascending, as far as the video goes. Raises InputError as `open_video` does."""
    if not numbers:
        return
    wanted = set(numbers)
    with open_video(path) as video:
        for frame in video:
            if frame.index in wanted:
                yield frame.index, frame.filled
            if frame.index >= numbers[-1]:
                return


def read_source(clip: Clip, frame: int) -> Image:
    """A clip's frame, or a still. Raises InputError when there is no such frame."""
    if clip.still:
        if frame:
            raise InputError(f"{clip.path} is one picture, it has no frame {frame}: name frame 0")
        return read_image(clip.path)
    for _, image in numbered(clip.path, (frame,)):
        return image
    raise InputError(f"{clip.path} has no frame {frame}: name one of its frames, from 0")
