"""TIFF kinds that Pillow does not know or reads wrongly: more than 8 bits a channel, floats, grey with alpha and so on.

The tifffile library reads their numbers; here they become an 8-bit Pillow image, so that the rules for all images go on from there.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dagan.errors import InputError
from dagan.media.pillow_image import scaled_to_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

_ORIENTATION, _PROFILE = 274, 34675  # tags
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _CMYK = 0, 1, 2, 5  # photometric interpretations
_CHANNELS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _CMYK: 4}
_PREMULTIPLIED, _STRAIGHT = 1, 2  # kinds of alpha
_MODES = {(1, False): "L", (1, True): "LA", (3, False): "RGB", (3, True): "RGBA", (4, False): "CMYK"}
_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def is_tiff(path: Path) -> bool:
    """Whether the file starts as TIFF files do."""
    with path.open("rb") as file:
        return file.read(4) in _SIGNATURES


def is_deep(image: Image) -> bool:
    """Whether an image that Pillow opened is a TIFF with more than 8 bits a channel, of which Pillow reads some kinds wrongly."""
    bits = getattr(image, "tag_v2", {}).get(258, 1)
    return max(bits if isinstance(bits, tuple) else (bits,)) > 8


def white_is_zero(image: Image) -> bool:
    """Whether a TIFF that Pillow opened counts from white to black."""
    return getattr(image, "tag_v2", {}).get(262) == _WHITE_IS_ZERO


def read_deep_tiff(path: Path) -> Image:
    """The first page as an image of mode L, LA, RGB, RGBA or CMYK, with its profile and orientation.

    Raises InputError for kinds of colour that are not known and for too many pixels; ValueError for a compression that tifffile
    cannot undo, which Pillow can, perhaps; lets other errors of damaged files through.
    """
    import tifffile
    from PIL import Image as Pillow

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong is said by an error, or does not matter
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        if page.imagewidth * page.imagelength > 2 * (Pillow.MAX_IMAGE_PIXELS or np.inf):
            raise Pillow.DecompressionBombError(f"Image size ({page.imagewidth * page.imagelength} pixels) exceeds limit")
        photometric, extra = int(page.photometric), tuple(int(kind) for kind in page.extrasamples)
        if photometric not in _CHANNELS:
            name = getattr(page.photometric, "name", photometric)
            raise InputError(f"{path} holds colours of the kind {name} with {page.bitspersample} bits: save it as RGB with 8 or 16 bits")
        values = page.asarray()
        tags = {code: page.tags[code].value for code in (_ORIENTATION, _PROFILE) if code in page.tags}
        axes, bits = page.axes, page.bitspersample
    if "S" in axes:
        values = np.moveaxis(values, axes.index("S"), -1)
    values = values.reshape(*values.shape[-3 if "S" in axes else -2 :][:2], -1)
    channels = _CHANNELS[photometric]
    pixels = scaled_to_bytes(values, 2.0**bits - 1 if values.dtype.kind == "u" else None)
    colours = 255 - pixels[..., :channels] if photometric == _WHITE_IS_ZERO else pixels[..., :channels]
    transparent = len(extra) > 0 and extra[0] in (_PREMULTIPLIED, _STRAIGHT) and pixels.shape[2] > channels and channels != 4
    if transparent:
        alpha = pixels[..., channels : channels + 1]
        if extra[0] == _PREMULTIPLIED:
            straight = colours.astype(np.float64) * 255 / np.maximum(alpha, 1)
            colours = np.clip(straight + 0.5, 0, 255).astype(np.uint8)
        colours = np.concatenate([colours, alpha], axis=2)
    mode = _MODES[channels, transparent]
    image = Pillow.frombytes(mode, colours.shape[1::-1], np.ascontiguousarray(colours).tobytes())
    if _PROFILE in tags:
        image.info["icc_profile"] = bytes(tags[_PROFILE])
    if _ORIENTATION in tags:
        image.getexif()[_ORIENTATION] = int(tags[_ORIENTATION])
    return image
