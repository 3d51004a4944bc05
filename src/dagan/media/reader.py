"""What every source of moving pictures offers: facts about it, and its frames one by one, each with its exact time.

Readers stream: however long a video is, only a few frames are in memory. Iterating again starts again at the first frame.
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
    """One picture of a video, and when it is shown."""

    image: np.ndarray
    """H x W x 3 uint8 RGB."""
    time: Fraction
    """Seconds after the first frame, exactly."""
    index: int
    """The number of the frame, from 0."""
    duration: Fraction
    """Seconds until the next frame or the end."""
    place: tuple[int, int, int, int] | None = None
    """Left, top, width and height of the part of the picture that the frame fills; the rest is black. None where it fills all of it.

    A frame whose proportions differ from the first frame's fills a part.
    """

    @property
    def filled(self) -> np.ndarray:
        """The picture without the black beside it."""
        if self.place is None:
            return self.image
        left, top, width, height = self.place
        return self.image[top : top + height, left : left + width]


class VideoReader(abc.ABC):
    """Says what a video is and, by iteration, yields its frames. It is a context manager."""

    path: Path
    """The file or folder that is read."""
    width: int
    """The width of the pictures as seen, after rotation."""
    height: int
    """The height of the pictures as seen, after rotation."""
    rate: Fraction
    """The average number of frames a second."""
    duration: Fraction
    """The length in seconds."""
    frame_count: int
    """The number of frames that the header says; else an estimate from rate and duration."""
    time_base: Fraction
    """The tick of the clock. Times of frames are multiples of it."""
    start: Fraction = Fraction(0)
    """The time of the first frame in the file's own clock."""
    rotation: int = 0
    """Degrees counter-clockwise by which pictures were rotated."""
    has_audio: bool = False
    """Whether the file has sound."""
    frames_read: int = 0
    """The number of frames that the latest pass decoded."""
    truncated: bool = False
    """Whether the latest pass found that the end of the file is missing."""
    damaged: int = 0
    """The number of pieces that the latest pass could not decode."""

    def __init__(self) -> None:
        self._passes: list[Generator[Frame]] = []

    def frames(self, step: int = 1, max_side: int | None = None) -> Iterator[Frame]:
        """Yields every `step`-th frame from the first, with its own time, index and duration.

        `max_side` shrinks pictures to this longer side at little cost, with colours that are good enough for finding faces.
        """
        frames = self._read(step, max_side)
        self._passes.append(frames)
        return frames

    def __iter__(self) -> Iterator[Frame]:
        return self.frames()

    @abc.abstractmethod
    def _read(self, step: int, max_side: int | None) -> Generator[Frame]:
        """Makes one pass over the frames, as `frames` says."""

    def problem(self) -> str | None:
        """Says, as a sentence for the user, what was wrong with the file in the latest complete pass; None when nothing was."""
        if self.truncated:
            return f"{self.path} is cut off: {self.frames_read} of about {self.frame_count} frames could be read"
        if self.damaged:
            return f"{self.path} is damaged: {self.frames_read} frames could be read, {self.damaged} pieces could not"
        return None

    def close(self) -> None:
        """Ends the passes that are still open and closes the file."""
        for frames in self._passes:
            frames.close()
        self._passes.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
