"""An animated GIF, PNG, WebP or AVIF as a video: its frames by the rules for photos, at their own times."""

from __future__ import annotations

from collections.abc import Generator
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import TYPE_CHECKING

from dagan.errors import InputError
from dagan.media.images import require_file, shrunk
from dagan.media.pillow_image import cube_of, opened, to_srgb_array
from dagan.media.reader import Frame, VideoReader

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
