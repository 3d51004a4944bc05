"""Gives all pictures of a video one size, although its frames may differ in size, shape of pixels and turn, and deinterlaces frames.

The first frame sets the size. A frame of other proportions is scaled to fit and laid on black in the middle, as players do, so that
nothing is stretched and nothing is lost. Interlaced frames show two moments in alternate lines. They go through FFmpeg's bwdif filter;
other frames pass untouched.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from dagan.media.colour import to_rgb
from dagan.media.container import QuarterTurn, frame_turn

if TYPE_CHECKING:
    from av.filter import Graph
    from av.video.frame import VideoFrame


_About = TypeVar("_About")


def deinterlaced(frames: Iterable[tuple[VideoFrame, _About]]) -> Iterator[tuple[VideoFrame, _About]]:
    """Yields the same frames in the same order, each with what came with it, at most one frame late: bwdif looks at the next frame too.

    Only frames that are flagged as interlaced are changed. The filter is opened at the first of them, and again when size or pixel
    format change. Frames keep their times, durations and tags.
    """
    graph: Graph | None = None
    opened_for: tuple[int, int, str] | None = None
    held: deque[tuple[VideoFrame, _About]] = deque()  # These were given to the filter and have not come back yet.
    for frame, about in frames:
        shape = (frame.width, frame.height, frame.format.name)
        if graph is not None and shape != opened_for:
            yield from _flushed(graph, held)
            graph = None
        if graph is None and frame.interlaced_frame:
            graph, opened_for = _open(frame), shape
        if graph is None:
            yield frame, about
        else:
            held.append((frame, about))
            graph.vpush(frame)
            yield from _ready(graph, held)
    if graph is not None:
        yield from _flushed(graph, held)


def _flushed(graph: Graph, held: deque[tuple[VideoFrame, _About]]) -> Iterator[tuple[VideoFrame, _About]]:
    graph.vpush(None)
    yield from _ready(graph, held)


def _ready(graph: Graph, held: deque[tuple[VideoFrame, _About]]) -> Iterator[tuple[VideoFrame, _About]]:
    import av

    while held:
        try:
            frame = graph.vpull()
        except (av.BlockingIOError, av.EOFError):
            return
        given, about = held.popleft()
        # The filter counts in half ticks and knows no durations, so both are restored.
        frame.pts, frame.time_base, frame.duration = given.pts, given.time_base, given.duration
        yield frame, about


def _open(frame: VideoFrame) -> Graph:
    import av.filter

    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base),
        graph.add("bwdif", "mode=send_frame:deint=interlaced"),
        graph.add("buffersink"),
    ).configure()
    return graph


if TYPE_CHECKING:
    from av.container import InputContainer
    from av.filter import Graph
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

Place = tuple[int, int, int, int]  # These are left, top, width and height.
_NARROWEST, _WIDEST = Fraction(1, 4), Fraction(4)  # Shapes of pixels beyond these are faults of the header.
# In these formats, which are made for broadcasting, what the container says of the shape of pixels may be guessed from later frames.
_SAYS_NOTHING = {"mpegts", "mpeg", "mpegvideo", "h264", "hevc"}


class Screen:
    """Turns decoded frames into pictures of one size, height x width x 3 uint8 RGB.

    `width` and `height` are those of the pictures as seen, with square pixels, after the turn. `degrees` is the turn of the first frame.
    """

    def __init__(self, first: VideoFrame, stream: VideoStream, container: InputContainer) -> None:
        declared = _plausible(Fraction(stream.sample_aspect_ratio or 1))
        coded = _measured(first)
        says_nothing = bool(_SAYS_NOTHING & set(container.format.name.split(",")))
        # What the container says is believed rather than what frames say, for as long as frames do not change.
        self._declared = coded if says_nothing else declared
        self._coded = coded
        self._graph: Graph | None = None
        self._graph_shape: tuple[int, int, str] | None = None
        self._aspect_varies = False
        self._turns: dict[int, QuarterTurn] = {}
        self.degrees = self._turn(first).degrees
        self.width, self.height = self._seen_size(first, self._declared)

    def picture(self, frame: VideoFrame, stream: VideoStream, max_side: int | None = None) -> tuple[np.ndarray, Place | None]:
        """Returns the frame on the screen in colours as its own tags say, and its place there, which is None where it fills the screen.

        `stream` is the one that was just decoded from. Where `max_side` is given, the picture is shrunk to this longer side, fast.
        """
        scale = min(1.0, max_side / max(self.width, self.height)) if max_side else 1.0
        width, height = (max(1, round(side * scale)) for side in (self.width, self.height))
        wide, high = self._seen_size(frame, self._aspect(frame, stream))
        if (wide, high) != (self.width, self.height):
            fit = min(width / wide, height / high)
            wide, high = (max(1, round(side * fit)) for side in (wide, high))
        else:
            wide, high = width, height
        turn = self._turn(frame)
        stored = (high, wide) if turn.transpose else (wide, high)
        image = turn.apply(to_rgb(frame, *stored, fast=max_side is not None))
        if (wide, high) == (width, height):
            return image, None
        screen = np.zeros((height, width, 3), np.uint8)
        top, left = (height - high) // 2, (width - wide) // 2
        screen[top : top + high, left : left + wide] = image
        return screen, (left, top, wide, high)

    def _seen_size(self, frame: VideoFrame, aspect: Fraction) -> tuple[int, int]:
        """Returns width and height after the turn, with pixels made square by widening. Old camcorders store narrow pixels."""
        stored = max(1, round(frame.width * aspect)), frame.height
        return stored[::-1] if self._turn(frame).transpose else stored

    def _turn(self, frame: VideoFrame) -> QuarterTurn:
        """Returns the frame's turn, read once for each angle, because PyAV's side data keep frames until they are garbage-collected."""
        if frame.rotation not in self._turns:
            self._turns[frame.rotation] = frame_turn(frame)
        return self._turns[frame.rotation]

    def _aspect(self, frame: VideoFrame, stream: VideoStream) -> Fraction:
        # The decoder is ahead of the frames that it gives: as long as it has seen no other shape, no such frame has come.
        now = _plausible(stream.codec_context.sample_aspect_ratio or Fraction(1))
        self._aspect_varies = self._aspect_varies or now != self._coded
        if not self._aspect_varies:
            return self._declared
        own = self._measured_again(frame)
        return self._declared if own == self._coded else own

    def _measured_again(self, frame: VideoFrame) -> Fraction:
        shape = (frame.width, frame.height, frame.format.name)
        if self._graph is None or shape != self._graph_shape:
            self._graph, self._graph_shape = _measuring_graph(frame), shape
        return _measured(frame, self._graph)


def _plausible(aspect: Fraction) -> Fraction:
    return aspect if _NARROWEST < aspect < _WIDEST else Fraction(1)


_SCALE = 10_000  # A picture is made this many times as wide as its frame's pixels are.


def _measured(frame: VideoFrame, graph: Graph | None = None) -> Fraction:
    """Returns the width of the frame's pixels over their height; 1 where the frame does not say.

    PyAV does not tell it, but FFmpeg's filters know it: a small piece of the frame is scaled by it, and the width of that is read.
    """
    graph = graph or _measuring_graph(frame)
    graph.vpush(frame)
    return _plausible(Fraction(graph.vpull().width, _SCALE).limit_denominator(100))


def _measuring_graph(frame: VideoFrame) -> Graph:
    import av.filter

    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 25)),
        graph.add("crop", "w=min(8\\,iw):h=min(8\\,ih)"),
        graph.add("scale", f"w=clip(round({_SCALE}*sar)\\,1\\,{4 * _SCALE}):h=1:eval=frame:flags=neighbor"),
        graph.add("buffersink"),
    ).configure()
    return graph
