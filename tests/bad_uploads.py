"""Twelve uploads that cannot be used, a word of the sentence that says why, and the limits of the page in tests."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dagan.app.uploads import UploadLimits
from running_samples import moving_pictures, write_clip

PHOTO, VIDEO = "photo", "video"
LIMITS = UploadLimits(
    photo_bytes=2 * 2**20, photo_pixels=4_000_000, video_bytes=4 * 2**20, video_side=1000, video_seconds=20, video_frames=400
)


@dataclass(frozen=True)
class Bad:
    """One upload."""

    name: str
    field: str
    why: str
    write: Callable[[Path], object]


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def huge_picture(path: Path, side: int = 2500) -> None:
    """A PNG of millions of pixels in some kilobytes."""
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(side * (side // 8 + 1)), 9)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b""))


def many_frames(path: Path) -> None:
    """A small GIF of more frames than are allowed."""
    frames = [Image.new("L", (16, 16), i % 251) for i in range(1500)]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:], duration=20, optimize=False)


def _cut(path: Path) -> None:
    write_clip(path, moving_pictures(6))
    path.write_bytes(path.read_bytes()[:300])


def _sound(path: Path) -> None:
    import wave

    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))


def _film(path: Path) -> None:
    write_clip(path.with_suffix(".mp4"), moving_pictures(4))
    path.with_suffix(".mp4").rename(path)


def _picture(side: int) -> Callable[[Path], object]:
    return lambda path: Image.fromarray(np.full((side, side, 3), 90, np.uint8)).save(path)


def _half_jpeg(path: Path) -> None:
    Image.fromarray(moving_pictures(1, 256, 256)[0]).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:2000])


BAD = (
    Bad("empty.png", PHOTO, "empty", lambda path: path.write_bytes(b"")),
    Bad("text.jpg", PHOTO, "not an image", lambda path: path.write_text("I am no picture. " * 50)),
    Bad("half.jpg", PHOTO, "cut off", _half_jpeg),
    Bad("huge.png", PHOTO, "million", huge_picture),
    Bad("dot.png", PHOTO, "at least 16", _picture(8)),
    Bad("film.png", PHOTO, "no photo", _film),
    Bad("heavy.png", PHOTO, "MB", lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(3 * 2**20))),
    Bad("text.mp4", VIDEO, "cannot be read as a video", lambda path: path.write_text("I am no video. " * 50)),
    Bad("cut.mp4", VIDEO, "cannot be read as a video", _cut),
    Bad("sound.mp4", VIDEO, "no moving pictures", _sound),
    Bad("bomb.webm", VIDEO, "frames", many_frames),
    Bad("still.webm", VIDEO, "a photo", lambda path: Image.new("RGB", (64, 64)).save(path, "PNG")),
)  # fmt: skip
