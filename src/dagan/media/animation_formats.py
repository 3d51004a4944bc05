"""Animated pictures (GIF, WebP, PNG) as outputs: what their formats hold, the pace they allow, and the colours of a GIF."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from av.filter import Graph
    from av.video.frame import VideoFrame


@dataclass(frozen=True)
class AnimationFormat:
    """One format of animated pictures.

    name: FFmpeg's. pixel_format: of the frames that its encoder is given. tick: what its times are counted in, in seconds; None: they
    are fractions, and finest_clock bounds their denominator. shortest: seconds that a frame must be shown; of a shorter one, browsers
    take it for a mistake and show it for a tenth of a second. longest: most ticks that one frame can be shown. options: of the file, so
    that it repeats for ever.
    """

    name: str
    pixel_format: str
    tick: Fraction | None
    shortest: Fraction
    longest: int
    options: dict[str, str] = field(default_factory=dict)


_PNG = AnimationFormat("apng", "rgb24", None, Fraction(11, 1000), 2**31 - 1, {"plays": "0"})
ANIMATIONS = {
    ".gif": AnimationFormat("gif", "rgb24", Fraction(1, 100), Fraction(2, 100), 2**16 - 1),
    ".webp": AnimationFormat("webp", "bgra", Fraction(1, 1000), Fraction(11, 1000), 2**24 - 1, {"loop": "0"}),
    ".png": _PNG,
    ".apng": _PNG,
}
FINEST_CLOCK = 60_000  # ticks a second where a format's times are fractions of two 16-bit numbers, as those of PNG


class Pace:
    """Leaves out frames so that none is shown for too short a time, and repeats one that is shown too long for the format.

    shortest, longest: that a frame may be shown, in ticks. The times of the frames that stay do not change, nor does the end. One
    frame is held back, because it takes the next one's time to tell how long a frame is shown.
    """

    def __init__(self, shortest: int, longest: int) -> None:
        self.shortest, self._longest = shortest, longest
        self._held: np.ndarray | None = None
        self._time = 0
        self._begun = False

    def add(self, image: np.ndarray, time: int) -> Iterator[tuple[np.ndarray, int]]:
        """The frames, with their times, that are settled once `image` is to be shown at `time`."""
        if self._held is not None:
            if time - self._time < self.shortest:
                return
            yield from self._settle(time)
        self._held, self._time = image.copy(), time  # the caller may draw its next picture into the same array

    def finish(self, end: int) -> Iterator[tuple[np.ndarray, int]]:
        """The last frames, where the last is shown until `end`."""
        if self._held is not None and (end - self._time >= self.shortest or not self._begun):
            yield from self._settle(end)

    def _settle(self, until: int) -> Iterator[tuple[np.ndarray, int]]:
        assert self._held is not None
        self._begun = True
        while until - self._time > self._longest:
            yield self._held, self._time
            self._time += self._longest - self.shortest
        yield self._held, self._time


def set_last_delay(path: Path, delay: Fraction) -> None:
    """Writes into an animated PNG how many seconds its last frame is shown: FFmpeg gives it the time of the frame before."""
    delay = delay.limit_denominator(2**16 - 1)
    with path.open("r+b") as file:
        file.seek(8)  # the signature; chunks follow: length, kind, content, sum
        last = None
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"fcTL":
                last = file.tell() - 4
            file.seek(length + 4, 1)
        if last is None or delay.numerator >= 2**16:  # a single frame has no times
            return
        file.seek(last)
        chunk = bytearray(file.read(30))  # of frame control: its kind, then 26 bytes with the delay as a fraction at the end
        struct.pack_into(">HH", chunk, 24, delay.numerator, delay.denominator)
        file.seek(last)
        file.write(chunk + struct.pack(">I", zlib.crc32(chunk)))


class GifPalette:
    """Turns rgb24 frames into palette frames through FFmpeg's filters.

    Each frame's 256 colours are chosen from that frame alone: good colours without reading ahead.
    """

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
