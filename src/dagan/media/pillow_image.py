"""Turns an image as Pillow decodes it into H x W x 3 uint8 sRGB. These rules serve photos and frames of animated pictures alike.

The rules apply in this order: orientation, bit depth, palette, colour profile, HDR and wide gamut, transparency.

Some kinds of TIFF are unknown to Pillow or read wrongly (more than 8 bits a channel, floats, grey with alpha and so on). The tifffile
library reads them. They become an 8-bit Pillow image here, so that the rules for all images go on from there.
"""

from __future__ import annotations

import logging
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dagan.errors import InputError
from dagan.media.colour import Cube, on_white

if TYPE_CHECKING:
    from PIL.Image import Image

_SAME_COLOURS = 2  # Of 255. A profile that changes no colour by more is sRGB under another name, and not worth rounding for.
_HEADER = 1 << 16  # Colour tags are looked for in so many bytes at the start of a file.


@contextmanager
def opened(path: Path, formats: list[str] | None = None) -> Iterator[Image]:
    """Opens the file as an image of Pillow's and hides what Pillow would print about it. Errors of Pillow are passed on."""
    from PIL import Image as Pillow

    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # These warn of size and EXIF data, but the image is read all the same.
        with Pillow.open(path, formats=formats) as image:
            yield image


def to_srgb_array(image: Image, cube: Cube | None = None) -> np.ndarray:
    """Turns the image into H x W x 3 uint8 sRGB, rotated as its EXIF orientation says and laid on white where it is transparent.

    `cube` is what `cube_of` found in the image's file. Errors of Pillow are passed on.
    """
    from PIL import ImageOps

    profile = image.info.get("icc_profile")
    turned = ImageOps.exif_transpose(image)
    plain = _plain_mode(to_eight_bits(turned))
    if cube is None:
        plain = _to_srgb(plain, profile)
    transparent = plain.mode in ("LA", "RGBA")
    pixels = np.asarray(plain.convert("RGBA" if transparent else "RGB"))
    if cube is not None:
        pixels = np.concatenate([cube.apply_to_image(pixels[..., :3]), pixels[..., 3:]], axis=2)
    return on_white(pixels) if transparent else np.array(pixels)


def cube_of(path: Path) -> Cube | None:
    """Returns the conversion that a file's numeric colour tags ask for. They are the cICP chunk of PNG and the colr box of AVIF.

    Such tags take precedence over profiles.
    """
    with path.open("rb") as file:
        header = file.read(_HEADER)
    if header.startswith(b"\x89PNG"):
        place = header.find(b"cICP", 0, header.find(b"IDAT"))
        return Cube.of(header[place + 5], header[place + 4]) if place > 0 and len(header) > place + 5 else None
    place = header.find(b"colrnclx") if header[4:8] == b"ftyp" else -1
    if place < 0 or len(header) < place + 12:
        return None
    primaries, transfer = struct.unpack_from(">HH", header, place + 8)
    return Cube.of(transfer, primaries)


def scaled_to_bytes(values: np.ndarray, white: float | None = None) -> np.ndarray:
    """Scales numbers to uint8 such that `white` becomes 255. For None, white is the first of 1, 255 and 65535 that holds them all."""
    values = values.astype(np.float64)
    finite = values[np.isfinite(values)]
    top = float(finite.max(initial=0.0))
    values = np.nan_to_num(values, nan=0.0, posinf=top, neginf=0.0)
    if white is None:
        white = next((w for w in (1.0, 255.0, 65535.0) if top <= w), top)
    return np.clip(values * (255.0 / white) + 0.5, 0, 255).astype(np.uint8)


def to_eight_bits(image: Image) -> Image:
    """Turns images of 16 and 32 bits a pixel, which are all grey in Pillow, into mode L or LA."""
    from PIL import Image as Pillow

    sixteen = image.mode.startswith("I;16")
    if not sixteen and image.mode not in ("I", "F"):
        return image
    values = np.asarray(image)
    grey = Pillow.fromarray(scaled_to_bytes(values, 65535.0 if sixteen else None))
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return grey
    return Pillow.merge("LA", (grey, Pillow.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))))


def _plain_mode(image: Image) -> Image:
    """Converts the image to one of the modes L, LA, RGB, RGBA and CMYK."""
    from PIL import ImageCms

    if "transparency" in image.info or image.mode in ("PA", "La", "RGBa"):
        return image.convert("RGBA")
    if image.mode in ("L", "LA", "RGB", "RGBA", "CMYK"):
        return image
    if image.mode == "LAB":  # Pillow's own conversion does not know this mode.
        converted = ImageCms.profileToProfile(image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB")
        assert converted is not None
        return converted
    return image.convert("L" if image.mode == "1" else "RGB")


def _to_srgb(image: Image, profile: bytes | None) -> Image:
    """Converts from the embedded colour profile (of wide-gamut phone photos and scans), where there is a usable one."""
    if not profile:
        return image
    import io

    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        colours, alpha = (image.convert("L"), image.getchannel("A")) if image.mode == "LA" else (image, None)
        output = "RGBA" if colours.mode == "RGBA" else "RGB"
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), colours.mode, output)
        if colours.mode in ("RGB", "RGBA") and _changes_nothing(transform, colours.mode):
            return image
        converted = ImageCms.applyTransform(colours, transform)
    except (ImageCms.PyCMSError, OSError, ValueError):  # With a damaged or unsuitable profile, the plain numbers are the best guess.
        return image
    if converted is None:
        return image
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def _changes_nothing(transform: object, mode: str) -> bool:
    """Says whether a transform leaves colours from all over the colour cube as they are."""
    from PIL import Image as Pillow
    from PIL import ImageCms

    steps = np.linspace(0, 255, 9).astype(np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(9, -1, 3)
    sample = Pillow.fromarray(colours).convert(mode)
    changed = ImageCms.applyTransform(sample, transform)  # type: ignore[arg-type]
    assert changed is not None
    return int(np.abs(np.asarray(changed.convert("RGB")).astype(int) - colours).max()) <= _SAME_COLOURS


_ORIENTATION, _PROFILE = 274, 34675  # These are numbers of TIFF tags.
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _CMYK = 0, 1, 2, 5  # These are the photometric interpretations of TIFF that are read.
_CHANNELS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _CMYK: 4}
_PREMULTIPLIED, _STRAIGHT = 1, 2  # These are kinds of alpha.
_MODES = {(1, False): "L", (1, True): "LA", (3, False): "RGB", (3, True): "RGBA", (4, False): "CMYK"}
_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def is_tiff(path: Path) -> bool:
    """Says whether the file starts as TIFF files do."""
    with path.open("rb") as file:
        return file.read(4) in _SIGNATURES


def is_deep(image: Image) -> bool:
    """Says whether an image that Pillow opened is a TIFF with more than 8 bits a channel. Pillow reads some of these wrongly."""
    bits = getattr(image, "tag_v2", {}).get(258, 1)
    return max(bits if isinstance(bits, tuple) else (bits,)) > 8


def white_is_zero(image: Image) -> bool:
    """Says whether in a TIFF that Pillow opened zero is white."""
    return getattr(image, "tag_v2", {}).get(262) == _WHITE_IS_ZERO


def read_deep_tiff(path: Path) -> Image:
    """Reads the first page as an image of mode L, LA, RGB, RGBA or CMYK, with its profile and its orientation.

    Raises InputError for kinds of colour that are not known, and Pillow's DecompressionBombError for too many pixels. Raises ValueError
    for a compression that tifffile cannot undo but Pillow perhaps can. Other errors of damaged files are passed on.
    """
    import tifffile
    from PIL import Image as Pillow

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # What is wrong is told by an error, or does not matter.
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
