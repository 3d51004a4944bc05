"""Frames as small files of their own, of which shards consist. Each is decoded without any other.

JPEG is written and read fastest, WebP takes little more than half of its bytes (the figures are in docs/shards.md). FFmpeg decodes both,
because it lets other threads of the program go on, which Pillow does not.
"""

from __future__ import annotations

import io
import threading
from typing import Annotated, Any, Literal

import av
import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from dagan.errors import InputError
from dagan.media.colour import to_rgb
from dagan.media.framing import to_square

Encoding = Literal["jpeg", "webp"]
Quality = Annotated[int, Ge(1), Le(100)]
SUFFIXES: dict[Encoding, str] = {"jpeg": "jpg", "webp": "webp"}
# Chroma is kept at full size, because lips and irises are small and coloured.
_SETTINGS: dict[Encoding, dict[str, Any]] = {
    "jpeg": {"format": "JPEG", "subsampling": 0, "optimize": True},
    "webp": {"format": "WEBP", "method": 4},
}


def encode(picture: NDArray[np.uint8], encoding: Encoding, quality: int) -> bytes:
    """Returns a picture, H x W x 3 uint8, as the bytes of an image file."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(picture).save(out, quality=quality, **_SETTINGS[encoding])
    return out.getvalue()


class FrameDecoder:
    """Decodes such files. Threads may share it, because each has decoders of its own."""

    def __init__(self) -> None:
        self._own = threading.local()

    def decode(self, block: bytes, size: int, where: str) -> NDArray[np.uint8]:
        """Returns the picture as uint8 size x size x 3. Raises InputError, which names `where` the bytes are from, for damaged ones."""
        name = "webp" if block[8:12] == b"WEBP" else "mjpeg"
        decoder = self._decoder(name)
        try:
            # A decoder may hold a picture back until it is told that no more bytes come.
            frames = decoder.decode(av.Packet(block)) or decoder.decode(None)
            picture = to_rgb(frames[0], frames[0].width, frames[0].height)
        except (av.FFmpegError, IndexError) as error:
            self._own.decoders.pop(name)
            raise InputError(f"{where} is damaged ({error}): pack the clips again") from None
        if decoder.is_open and name == "webp":
            decoder.flush_buffers()
        return to_square(picture, size)

    def _decoder(self, name: str) -> Any:
        decoders = self._own.__dict__.setdefault("decoders", {})
        if name not in decoders:
            decoders[name] = av.CodecContext.create(name, "r")
            decoders[name].thread_type, decoders[name].thread_count = "NONE", 1
        return decoders[name]
