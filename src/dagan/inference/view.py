"""Which square of a picture or video the model looks at: the face, as in training, or the middle."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Protocol, cast

import numpy as np

from dagan.inference.progress import Progress
from dagan.inference.stages import ahead
from dagan.media.faces import FaceFinder
from dagan.media.framing import Framing, crop, frame_still, middle
from dagan.media.notices import Warn
from dagan.media.reader import Frame, VideoReader
from dagan.media.shots import FramingReport
from dagan.media.video_framing import frame_video

_FRAMES_AHEAD = 8  # decoded and cut before they are asked for; evens out a decoder that works by groups of pictures


class View(Protocol):
    """Where to look in a video."""

    def at(self, time: Fraction | float) -> Framing:
        """The square for the frame at `time` seconds."""


@dataclass(frozen=True)
class MiddleView:
    """The middle of the pictures of a video of that size; of a frame that does not fill them, its own middle (see `square_of`)."""

    width: int
    height: int

    def at(self, time: Fraction | float) -> Framing:
        """See View."""
        return middle(self.width, self.height)


def square_of(frame: Frame, view: View) -> Framing:
    """Where to look in a frame."""
    if frame.place is None or not isinstance(view, MiddleView):
        return view.at(frame.time)
    left, top, width, height = frame.place
    inner = middle(width, height)
    return Framing(left + inner.center_x, top + inner.center_y, inner.side)


def view_still(image: np.ndarray, finder: FaceFinder | None, where: str, warn: Warn) -> Framing:
    """The face's square with a finder, the middle without. Raises InputError when there is no face."""
    return middle(image.shape[1], image.shape[0]) if finder is None else frame_still(image, finder, where, warn)


def view_video(
    reader: VideoReader, finder: FaceFinder | None, warn: Warn, progress: Progress, stage: str
) -> tuple[View, FramingReport | None]:
    """One pass over the video for the face's square, and what it saw; the middle, without reading, when there is no finder.

    Raises InputError when there is no face.
    """
    if finder is None:
        return MiddleView(reader.width, reader.height), None
    framing = frame_video(cast(VideoReader, _Watched(reader, progress, stage)), finder, warn)
    return framing, framing.report


def read_view(reader: VideoReader, view: View, size: int) -> Iterator[tuple[Frame, np.ndarray]]:
    """One pass over the video: each frame, and its view as uint8 size x size x 3."""
    for frame in reader:
        framing = square_of(frame, view)
        height, width = frame.image.shape[:2]
        untouched = (height, width) == (size, size) and framing == middle(width, height)
        yield frame, frame.image if untouched else crop(frame.image, framing, size)


def read_ahead(reader: VideoReader, view: View, size: int) -> Generator[tuple[Frame, np.ndarray]]:
    """As `read_view`, in a thread of its own, a few frames ahead; each frame's image is its view too, so that whole ones can go."""
    return ahead(((replace(frame, image=picture), picture) for frame, picture in read_view(reader, view, size)), _FRAMES_AHEAD)


class _Watched:
    """A reader that tells how far its passes are."""

    def __init__(self, reader: VideoReader, progress: Progress, stage: str) -> None:
        self._reader, self._progress, self._stage = reader, progress, stage

    def frames(self, step: int = 1, max_side: int | None = None) -> Iterator[Frame]:
        for frame in ahead(self._reader.frames(step, max_side)):
            yield frame
            self._progress(self._stage, frame.index + 1, self._reader.frame_count)
        self._progress(self._stage, self._reader.frames_read, self._reader.frames_read)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)
