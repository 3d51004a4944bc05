"""What may be uploaded, and the checks that an upload goes through: by its size first, then by decoding it as the jobs do.

Names and types that a browser sends prove nothing, so nothing is decided by them. A small file may hold pictures without number or
without bounds; it is measured by what is in it before it is decoded whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dagan.errors import InputError
from dagan.media.container import has_pictures, open_container, packet_span, video_stream
from dagan.media.images import is_animation, is_photo, is_picture, is_video, read_image
from dagan.media.pillow_image import opened
from dagan.media.video import open_video
from dagan.motion.file import holds_motion

_MEBI = 2**20


@dataclass(frozen=True)
class UploadLimits:
    """How large an upload may be."""

    photo_bytes: int = 30 * _MEBI
    """The largest photo, in bytes."""
    photo_pixels: int = 50_000_000
    """The most pixels of a photo."""
    video_bytes: int = 200 * _MEBI
    """The largest video, in bytes."""
    video_side: int = 4096
    """The longest side of a video's pictures, in pixels."""
    video_seconds: float = 180
    """The longest video, in seconds."""
    video_frames: int = 7200
    """The most frames of a video."""


LIMITS = UploadLimits()


def check_photo(path: Path, limits: UploadLimits = LIMITS) -> np.ndarray:
    """Returns the photo in an upload, H x W x 3 uint8. Raises InputError with one sentence that names the upload by its own name."""
    with _named(path):
        _check_size(path, limits.photo_bytes, "photo")
        if is_picture(path):
            width, height, _ = _header(path)
            if width * height > limits.photo_pixels:
                most = limits.photo_pixels // 1_000_000
                raise InputError(f"{path} has {width} x {height} pixels: a photo may have {most} million: make it smaller first")
        elif holds_motion(path) or is_video(path):
            raise InputError(f"{path} is no photo: give a picture of a face, such as a PNG or JPEG file")
        return read_image(path)


def check_driving(path: Path, limits: UploadLimits = LIMITS) -> None:
    """Raises InputError with one sentence that names the upload by its own name where it cannot drive a photo."""
    with _named(path):
        _check_size(path, limits.video_bytes, "video")
        if holds_motion(path):
            raise InputError(f"{path} is a motion file: the page takes videos; dagan animate takes motion files")
        if is_photo(path):
            raise InputError(f"{path} is a photo, and nothing moves in it: give a video of a face")
        _check_animation(path, limits) if is_animation(path) else _check_container(path, limits)
        with open_video(path) as reader:
            if max(reader.width, reader.height) > limits.video_side:
                raise _too_wide(path, reader.width, reader.height, limits)
            if reader.frame_count > limits.video_frames or reader.duration > limits.video_seconds:
                raise _too_long(path, reader.frame_count, float(reader.duration), limits)
            next(iter(reader))


def _header(path: Path) -> tuple[int, int, int]:
    """Returns width, height and number of the pictures in a file of pictures, none of which is decoded."""
    from PIL import Image

    try:
        with opened(path) as image:
            return *image.size, getattr(image, "n_frames", 1)
    except Image.DecompressionBombError:
        raise InputError(f"{path} has far too many pixels: make it smaller first") from None
    except Exception:  # What is wrong with it is said by the reader.
        return 0, 0, 0


def _check_animation(path: Path, limits: UploadLimits) -> None:
    """Measures an animated picture by its header, before its pictures are decoded for their times."""
    width, height, frames = _header(path)
    if max(width, height) > limits.video_side:
        raise _too_wide(path, width, height, limits)
    if frames > limits.video_frames:
        raise InputError(f"{path} has {frames} frames: a video may have {limits.video_frames}: cut out the part that is to drive")


def _check_container(path: Path, limits: UploadLimits) -> None:
    """Measures a video by its packets, of which none is decoded."""
    with open_container(path) as container:
        if not has_pictures(container):
            raise InputError(f"{path} has no moving pictures: give a video of a face")
        size = video_stream(container, path).codec_context
        if max(size.width, size.height) > limits.video_side:
            raise _too_wide(path, size.width, size.height, limits)
    frames, seconds, _ = packet_span(path)
    if frames > limits.video_frames or seconds > limits.video_seconds:
        raise _too_long(path, frames, float(seconds), limits)


def _too_wide(path: Path, width: int, height: int, limits: UploadLimits) -> InputError:
    return InputError(f"{path} has pictures of {width} x {height} pixels: a video's may have {limits.video_side} at most")


def _too_long(path: Path, frames: int, seconds: float, limits: UploadLimits) -> InputError:
    return InputError(
        f"{path} has {frames} frames in {seconds:.0f} seconds: a video may have {limits.video_frames} in {limits.video_seconds:.0f}: "
        "cut out the part that is to drive"
    )


def _check_size(path: Path, most: int, kind: str) -> None:
    size = path.stat().st_size
    if size > most:
        raise InputError(f"{path} has {size / _MEBI:.0f} MB: a {kind} may have {most // _MEBI}: make it smaller first")


class _named:
    """Names the upload in messages as its owner does, because the path in the private folder says nothing to them."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        if not self._path.is_file():
            raise InputError(f"{self._path.name} is not here any more: upload it again")

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, InputError):
            raise InputError(own_names(str(error), self._path)) from None


def own_names(sentence: str, *paths: Path) -> str:
    """Returns the sentence with the names alone where it has whole paths."""
    for path in paths:
        sentence = sentence.replace(str(path), path.name)
    return sentence
