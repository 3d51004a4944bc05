"""Reads and writes still images. Whatever a file holds, the rest of the program sees H x W x 3 uint8 sRGB.

Pillow and its plug-ins decode. Pillow is imported on first use, so that the command line starts without it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dagan.checks import require_file
from dagan.errors import InputError
from dagan.media.credentials import stamp
from dagan.media.kinds import IMAGE_SUFFIXES, foreign_kind
from dagan.media.output import atomic_output
from dagan.media.pillow_image import cube_of, is_deep, is_tiff, opened, read_deep_tiff, to_eight_bits, to_srgb_array, white_is_zero
from dagan.media.provenance import Provenance, xmp_packet

if TYPE_CHECKING:
    from PIL.Image import Image

_XMP_TAG = 700  # TIFF keeps XMP under this number.
SMALLEST_SIDE = 16  # Pixels. In a smaller image no face can be seen.
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    ".jpg": {"quality": 95, "subsampling": 0},
    ".jpeg": {"quality": 95, "subsampling": 0},
    ".webp": {"lossless": True},
    ".png": {"compress_level": 4},
}


def read_image(path: Path | str) -> np.ndarray:
    """Reads the image of a file as H x W x 3 uint8 RGB, turned as its EXIF orientation says.

    Greyscale, palette, CMYK and 16-bit images are converted. Transparency is put on white. Colours with an embedded profile become sRGB.
    From an animation the first frame is taken. Raises InputError for a path that is missing or a folder, and for a file that is empty, cut
    off, not an image, or smaller than 16 x 16 pixels.
    """
    path = Path(path)
    require_file(path, "image")
    try:
        array = _decode(path)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise exceptions of many kinds (OSError, SyntaxError, struct.error, ...).
        raise InputError(f"{path} is not an image that can be read ({_first_line(error)}): give a PNG or JPEG file") from error
    if min(array.shape[:2]) < SMALLEST_SIDE:
        raise InputError(
            f"{path} is {array.shape[1]} x {array.shape[0]} pixels: an image must measure at least {SMALLEST_SIDE} x {SMALLEST_SIDE}"
        )
    return array


def write_image(path: Path | str, array: np.ndarray, overwrite: bool = False, provenance: Provenance | None = None) -> None:
    """Writes H x W x 3 uint8 RGB, or x 4 RGBA, to a file whose suffix gives the format. Missing folders are made.

    With `provenance` the file says so by what it was made, in every way that its format has.

    Raises InputError for an unknown suffix, for a file that exists (unless `overwrite` is set), and for a full disk.
    """
    from PIL import Image

    path = Path(path)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (3, 4):
        raise ValueError(f"an image to write is uint8 H x W x 3 or 4, this one is {array.dtype} {array.shape}")
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError(f"{path}: the suffix {path.suffix!r} is none of the image formats {', '.join(IMAGE_SUFFIXES)}")
    with atomic_output(path, overwrite) as temporary:
        options = _SAVE_OPTIONS.get(path.suffix.lower(), {})
        if provenance is not None and path.suffix.lower() in (".tif", ".tiff"):
            options = options | {"tiffinfo": {_XMP_TAG: xmp_packet(provenance)}}
        Image.fromarray(np.ascontiguousarray(array)).save(temporary, **options)
        if provenance is not None:
            stamp(temporary, provenance)


def shrunk(image: np.ndarray, longest_side: int | None) -> np.ndarray:
    """Scales an H x W x 3 uint8 image down to this longer side. An image that is no longer is returned as it is, and so it is for None."""
    from PIL import Image

    if longest_side is None or max(image.shape[:2]) <= longest_side:
        return image
    scale = longest_side / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0))


def image_files(folder: Path) -> list[Path]:
    """Returns the image files of a folder in natural order (frame2 before frame10). Hidden files are left out."""
    files = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".") and p.is_file()]
    return sorted(files, key=lambda p: [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", p.name.lower())])


def _decode(path: Path) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    try:
        with opened(path) as image:
            if is_deep(image):
                return to_srgb_array(_deep(image, path))
            _load(image, path)
            return to_srgb_array(image, cube_of(path))
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} has too many pixels ({_first_line(error)}): make it smaller first") from error
    except UnidentifiedImageError:
        if is_tiff(path):
            return _decode_unidentified(path)
        if foreign := foreign_kind(path):
            raise InputError(f"{path} is {foreign}, which is not read here: convert it to PNG or JPEG first") from None
        raise InputError(f"{path} is not an image that can be read: give a PNG or JPEG file") from None


def _decode_unidentified(path: Path) -> np.ndarray:
    """Reads a TIFF that Pillow does not know."""
    from PIL import Image

    try:
        return to_srgb_array(read_deep_tiff(path))
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} has too many pixels ({_first_line(error)}): make it smaller first") from error
    except ValueError as error:
        raise InputError(f"{path} is a TIFF of a kind that cannot be read ({_first_line(error)}): save it as PNG") from error


def _deep(image: Image, path: Path) -> Image:
    """Reads a TIFF of more than 8 bits a channel. Where tifffile does not know the compression, Pillow reads it."""
    from PIL import ImageChops

    try:
        return read_deep_tiff(path)
    except ValueError:
        _load(image, path)
        if image.mode.startswith("I;16"):  # Pillow forgets to invert those whose white is zero.
            grey = to_eight_bits(image)
            return ImageChops.invert(grey) if white_is_zero(image) else grey
        return image


def _load(image: Image, path: Path) -> None:
    try:
        image.load()
    except OSError as error:
        if "truncated" in str(error) or "broken" in str(error) or "end of file" in str(error).lower():
            raise InputError(f"{path} is cut off: its pixels end too early: give a complete file") from error
        raise


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
