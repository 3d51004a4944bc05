"""Interlaced frames, which show two moments in alternate lines, made whole by FFmpeg's bwdif filter; others pass untouched."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from av.filter import Graph
    from av.video.frame import VideoFrame


_About = TypeVar("_About")


def deinterlaced(frames: Iterable[tuple[VideoFrame, _About]]) -> Iterator[tuple[VideoFrame, _About]]:
    """The same frames in the same order, each with what came with it, at most one later: bwdif looks at the next frame too.

    Only frames that are flagged as interlaced are changed. The filter is opened at the first of them, and anew when size or pixel
    format change. Frames keep their times, durations and tags.
    """
    graph: Graph | None = None
    opened_for: tuple[int, int, str] | None = None
    held: deque[tuple[VideoFrame, _About]] = deque()  # given to the filter, not yet come back
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
        # The filter counts in half ticks, and knows no durations.
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
