"""Animated pictures (GIF, PNG, WebP, AVIF), read as videos and written.

They are read frame by frame by the rules for photos, at their own times. For writing, this file knows what the formats hold, the pace
they allow, and the colours of a GIF.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dagan.checks import require_file
from dagan.errors import InputError
from dagan.media.images import shrunk
from dagan.media.pillow_image import cube_of, opened, to_srgb_array
from dagan.media.reader import Frame, VideoReader

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


if TYPE_CHECKING:
    from PIL.Image import Image

_SHORTEST = Fraction(1, 100)  # seconds; delays up to this play as the usual one, as in browsers: they were never meant
_USUAL = Fraction(1, 10)
_LONGEST_DENOMINATOR = 65_535  # of a delay, in PNG; GIF and WebP count in hundredths and thousandths
_MOST_TICKS = 1_000_000  # a second; where delays have no common tick as long as that, they are rounded
_TICKS = 90_000


class AnimationReader(VideoReader):
    """The frames of an animated picture. Raises InputError when the file is no picture or damaged at once."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        require_file(path, "video")
        self.path = path
        self._cube = cube_of(path)
        delays: list[Fraction] = []
        for image in self._images():
            if not delays:
                self.height, self.width = to_srgb_array(image, self._cube).shape[:2]
            delays.append(_delay(image))
        if not delays:
            raise InputError(f"{path}: none of its pictures can be decoded: the file is damaged or cut off")
        ticks = lcm(*(delay.denominator for delay in delays))
        if ticks > _MOST_TICKS:
            ticks = _TICKS
            delays = [Fraction(max(1, round(delay * ticks)), ticks) for delay in delays]
        self._delays = delays
        self.time_base = Fraction(1, ticks)
        self.duration = sum(delays, Fraction(0))
        self.rate = (len(delays) / self.duration).limit_denominator(1001)

    def _read(self, step: int, max_side: int | None) -> Generator[Frame]:
        self.frames_read = 0
        time = Fraction(0)
        for index, (image, delay) in enumerate(zip(self._images(), self._delays, strict=False)):
            self.frames_read = index + 1
            if index % step == 0:
                yield Frame(shrunk(to_srgb_array(image, self._cube), max_side), time, index, delay)
            time += delay

    def _images(self) -> Generator[Image]:
        """The decoded frames, each valid until the next is asked for. Ends, and notes so, where the file is cut off or damaged."""
        from PIL import Image as Pillow

        self.truncated = False
        with opened(self.path) as image:
            count = getattr(image, "n_frames", 1)
            # A PNG may have a picture for programs that do not animate; it is none of the animation's.
            first = 1 if count > 1 and getattr(image, "default_image", False) else 0
            self.frame_count = count - first
            for index in range(first, count):
                try:
                    image.seek(index)
                    image.load()
                except (MemoryError, Pillow.DecompressionBombError):
                    raise
                except Exception:  # Pillow lets out whatever its decoders raise
                    self.truncated = True
                    return
                yield image


def _delay(image: Image) -> Fraction:
    """Seconds for which the decoded frame is shown."""
    delay = Fraction(image.info.get("duration") or 0) / 1000
    return _USUAL if delay <= _SHORTEST else delay.limit_denominator(_LONGEST_DENOMINATOR)
