"""256 colours for each frame of a GIF, chosen from that frame alone: good colours without reading ahead."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.filter import Graph
    from av.video.frame import VideoFrame


class GifPalette:
    """Turns rgb24 frames into palette frames through FFmpeg's filters."""

    def __init__(self) -> None:
        self._graph: Graph | None = None

    def reduce(self, frame: VideoFrame | None) -> Iterator[VideoFrame]:
        """The palette frames that are ready after `frame`; None: those that are left."""
        import av

        if self._graph is None:
            if frame is None:
                return
            self._graph = _build(frame)
        self._graph.vpush(frame)
        while True:
            try:
                yield self._graph.vpull()
            except (av.BlockingIOError, av.EOFError):
                return


def _build(frame: VideoFrame) -> Graph:
    from av.filter import Graph

    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(frame.time_base or Fraction(1, 100))
    )
    split = graph.add("split")
    palette = graph.add("palettegen", "stats_mode=single:reserve_transparent=0")
    use = graph.add("paletteuse", "new=1:dither=sierra2_4a")
    sink = graph.add("buffersink")
    source.link_to(split)
    split.link_to(palette, 0, 0)
    split.link_to(use, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    return graph
