"""Animated pictures (GIF, PNG, WebP, AVIF) are read as videos, and written.

They are read frame by frame, by the rules for photos, at their own times. For writing, this file knows what the formats can hold, how
fast and how slowly they can show frames, and how a GIF gets its colours.
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
from dagan.media.container import Frame, VideoReader
from dagan.media.images import shrunk
from dagan.media.pillow_image import cube_of, opened, to_srgb_array

if TYPE_CHECKING:
    from av.filter import Graph
    from av.video.frame import VideoFrame


@dataclass(frozen=True)
class AnimationFormat:
    """One format of animated pictures."""

    name: str
    """FFmpeg's name of the format."""
    pixel_format: str
    """The format of the frames that the encoder is given."""
    tick: Fraction | None
    """The unit of the format's times, in seconds. None means that times are fractions, whose denominator FINEST_CLOCK bounds."""
    shortest: Fraction
    """A frame must be shown for so many seconds. Browsers take a shorter time for a mistake and show the frame for a tenth of a second."""
    longest: int
    """One frame can be shown for at most so many ticks."""
    options: dict[str, str] = field(default_factory=dict)
    """Options of the file that make it repeat for ever."""


_PNG = AnimationFormat("apng", "rgb24", None, Fraction(11, 1000), 2**31 - 1, {"plays": "0"})
ANIMATIONS = {
    ".gif": AnimationFormat("gif", "rgb24", Fraction(1, 100), Fraction(2, 100), 2**16 - 1),
    ".webp": AnimationFormat("webp", "bgra", Fraction(1, 1000), Fraction(11, 1000), 2**24 - 1, {"loop": "0"}),
    ".png": _PNG,
    ".apng": _PNG,
}
# PNG gives times as fractions of two 16-bit numbers. Where a format's times are fractions, at most so many ticks a second are used.
FINEST_CLOCK = 60_000


class Pace:
    """Leaves out frames so that none is shown for too short a time, and repeats one that is shown too long for the format.

    `shortest` and `longest` are the ticks for which a frame may be shown. Frames that stay keep their times, and the end stays where it
    is. One frame is held back, because only the time of the next one tells how long it is shown.
    """

    def __init__(self, shortest: int, longest: int) -> None:
        self.shortest, self._longest = shortest, longest
        self._held: np.ndarray | None = None
        self._time = 0
        self._begun = False

    def add(self, image: np.ndarray, time: int) -> Iterator[tuple[np.ndarray, int]]:
        """Yields the frames, with their times, that are settled once `image` is to be shown at `time`."""
        if self._held is not None:
            if time - self._time < self.shortest:
                return
            yield from self._settle(time)
        self._held, self._time = image.copy(), time  # It is copied because the caller may draw its next picture into the same array.

    def finish(self, end: int) -> Iterator[tuple[np.ndarray, int]]:
        """Yields the last frames. The very last one is shown until `end`."""
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
    """Writes into an animated PNG for how many seconds its last frame is shown, where FFmpeg repeats the time of the frame before."""
    delay = delay.limit_denominator(2**16 - 1)
    with path.open("r+b") as file:
        file.seek(8)  # After the signature come chunks, each with a length, a kind, a content and a checksum.
        last = None
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"fcTL":
                last = file.tell() - 4
            file.seek(length + 4, 1)
        if last is None or delay.numerator >= 2**16:  # A PNG of a single frame has no times.
            return
        file.seek(last)
        chunk = bytearray(file.read(30))  # This is the kind of chunk, then 26 bytes of frame control; the delay is a fraction in them.
        struct.pack_into(">HH", chunk, 24, delay.numerator, delay.denominator)
        file.seek(last)
        file.write(chunk + struct.pack(">I", zlib.crc32(chunk)))


class GifPalette:
    """Turns rgb24 frames into frames with a palette, through FFmpeg's filters.

    The 256 colours of each frame are chosen from that frame alone, which gives good colours without reading ahead. Of rgba frames one
    colour is none: what is less than half opaque becomes transparent.
    """

    def __init__(self) -> None:
        self._graph: Graph | None = None

    def reduce(self, frame: VideoFrame | None) -> Iterator[VideoFrame]:
        """Yields the palette frames that are ready after `frame`. Given None, it yields those that are left."""
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
    palette = graph.add("palettegen", f"stats_mode=single:reserve_transparent={int(frame.format.name == 'rgba')}")
    use = graph.add("paletteuse", "new=1:dither=sierra2_4a:alpha_threshold=128")
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

_SHORTEST = Fraction(1, 100)  # Seconds. Delays up to this were never meant, so they are played as the usual delay, as browsers do.
_USUAL = Fraction(1, 10)  # The usual delay, in seconds.
_LONGEST_DENOMINATOR = 65_535  # The largest denominator of a delay in PNG. GIF counts in hundredths and WebP in thousandths.
_MOST_TICKS = 1_000_000  # Ticks a second. Where the delays have no common tick as long as this, they are rounded.
_TICKS = 90_000  # Ticks a second to which delays are rounded then.


class AnimationReader(VideoReader):
    """Reads the frames of an animated picture. Raises InputError when the file is no picture, or is damaged before its first frame."""

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
        """Yields the decoded frames, each valid until the next is asked for. Ends where the file is damaged, and notes `truncated`."""
        from PIL import Image as Pillow

        self.truncated = False
        with opened(self.path) as image:
            count = getattr(image, "n_frames", 1)
            # A PNG may begin with a picture for programs that do not animate. It does not belong to the animation.
            first = 1 if count > 1 and getattr(image, "default_image", False) else 0
            self.frame_count = count - first
            for index in range(first, count):
                try:
                    image.seek(index)
                    image.load()
                except (MemoryError, Pillow.DecompressionBombError):
                    raise
                except Exception:  # Pillow's decoders raise exceptions of any kind, and Pillow passes them on.
                    self.truncated = True
                    return
                yield image


def _delay(image: Image) -> Fraction:
    """Returns for how many seconds the decoded frame is shown."""
    delay = Fraction(image.info.get("duration") or 0) / 1000
    return _USUAL if delay <= _SHORTEST else delay.limit_denominator(_LONGEST_DENOMINATOR)
