"""What every source of moving pictures offers: facts about it, and its frames one by one with the exact time of each.

Readers stream: whatever the length, a few frames are in memory. Iterating again starts again at the first frame.
"""

from __future__ import annotations

import abc
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a video: H x W x 3 uint8 RGB, and when it is shown.

    time: seconds after the first frame, exact. index: from 0. duration: seconds until the next frame or the end.
    place: left, top, width and height of what the frame fills of the picture, where it is of other proportions than the first
    and stands on black; None where it fills all.
    """

    image: np.ndarray
    time: Fraction
    index: int
    duration: Fraction
    place: tuple[int, int, int, int] | None = None

    @property
    def filled(self) -> np.ndarray:
        """The picture without black beside it."""
        if self.place is None:
            return self.image
        left, top, width, height = self.place
        return self.image[top : top + height, left : left + width]


class VideoReader(abc.ABC):
    """What a video is and, by iteration, its frames. A context manager.

    width, height: of the pictures as seen, after rotation. rotation: degrees counter-clockwise that were applied.
    rate: average frames a second. duration: seconds. frame_count: as the header says, else estimated from the two.
    time_base: the clock tick of which frame times are multiples. start: time of the first frame in the file's own clock.
    frames_read, truncated, damaged: of the latest pass: frames decoded, whether the end of the file was missing, and how
    many pieces could not be decoded.
    """

    path: Path
    width: int
    height: int
    rate: Fraction
    duration: Fraction
    frame_count: int
    time_base: Fraction
    start: Fraction = Fraction(0)
    rotation: int = 0
    has_audio: bool = False
    frames_read: int = 0
    truncated: bool = False
    damaged: int = 0

    def __init__(self) -> None:
        self._passes: list[Generator[Frame]] = []

    def frames(self, step: int = 1, max_side: int | None = None) -> Iterator[Frame]:
        """Every `step`-th frame from the first, with its own time, index and duration.

        max_side: shrinks pictures to this longer side at little cost, with colours good enough for finding faces.
        """
        frames = self._read(step, max_side)
        self._passes.append(frames)
        return frames

    def __iter__(self) -> Iterator[Frame]:
        return self.frames()

    @abc.abstractmethod
    def _read(self, step: int, max_side: int | None) -> Generator[Frame]:
        """One pass over the frames, as `frames` says."""

    def problem(self) -> str | None:
        """What was wrong with the file in the latest complete pass, as a sentence for the user; None when nothing was."""
        if self.truncated:
            return f"{self.path} is cut off: {self.frames_read} of about {self.frame_count} frames could be read"
        if self.damaged:
            return f"{self.path} is damaged: {self.frames_read} frames could be read, {self.damaged} pieces could not"
        return None

    def close(self) -> None:
        """Ends the passes that are still open and lets go of the file."""
        for frames in self._passes:
            frames.close()
        self._passes.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
