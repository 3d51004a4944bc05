"""Still images in and out: whatever the file holds, the rest of the program sees H x W x 3 uint8 sRGB.

Pillow and its plug-ins do the decoding; it is imported on first use because the command line's start-up should not pay for it.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dagan.errors import InputError
from dagan.media.output import atomic_output

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
SMALLEST_SIDE = 16  # below this no face can be seen and no crop makes sense
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    ".jpg": {"quality": 95, "subsampling": 0},
    ".jpeg": {"quality": 95, "subsampling": 0},
    ".webp": {"lossless": True},
    ".png": {"compress_level": 4},
}


def read_image(path: Path | str) -> np.ndarray:
    """The image of a file as H x W x 3 uint8 RGB, turned as its EXIF orientation says.

    Greyscale, palette, CMYK and 16-bit images are converted, transparency is put on white, an embedded colour profile is
    converted to sRGB, of an animation the first frame is taken. Raises InputError for a path that is missing or a folder, and
    for a file that is empty, cut off, not an image, or smaller than 16 x 16 pixels.
    """
    path = Path(path)
    require_file(path, "image")
    try:
        array = _decode(path)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # Pillow lets out whatever its decoders raise: OSError, SyntaxError, struct.error, ...
        raise InputError(f"{path} is not an image that can be read ({_first_line(error)}): give a PNG or JPEG file") from error
    if min(array.shape[:2]) < SMALLEST_SIDE:
        raise InputError(
            f"{path} is {array.shape[1]} x {array.shape[0]} pixels: an image must measure at least {SMALLEST_SIDE} x {SMALLEST_SIDE}"
        )
    return array


def write_image(path: Path | str, array: np.ndarray, overwrite: bool = False) -> None:
    """Writes H x W x 3 uint8 RGB to a file whose suffix gives the format; missing folders are made.

    Raises InputError for an unknown suffix, for an existing file without `overwrite` and for a full disk.
    """
    from PIL import Image

    path = Path(path)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"an image to write is uint8 H x W x 3, this one is {array.dtype} {array.shape}")
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError(f"{path}: the suffix {path.suffix!r} is none of the image formats {', '.join(IMAGE_SUFFIXES)}")
    with atomic_output(path, overwrite) as temporary:
        Image.fromarray(np.ascontiguousarray(array)).save(temporary, **_SAVE_OPTIONS.get(path.suffix.lower(), {}))


def image_files(folder: Path) -> list[Path]:
    """The image files of a folder in natural order (frame2 before frame10); hidden files are left out."""
    files = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".") and p.is_file()]
    return sorted(files, key=lambda p: [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", p.name.lower())])


def require_file(path: Path, kind: str) -> None:
    """Raises InputError unless `path` is a readable file with something in it; `kind` says what was looked for."""
    if not path.exists():
        raise InputError(f"{path} does not exist: give the path of the {kind}")
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the path of one {kind} file")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error
    if empty:
        raise InputError(f"{path} is empty (0 bytes): give a complete {kind} file")


def _decode(path: Path) -> np.ndarray:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # size and EXIF warnings: the image is read all the same
            with Image.open(path) as image:
                if image.format == "TIFF" and _is_deep_colour(image):
                    return _decode_tiff(path)
                _load(image, path)
                png = image.format == "PNG"
                turned = ImageOps.exif_transpose(image)
                return np.array(_to_rgb(_to_srgb(turned, image.info.get("icc_profile")), png))
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} has too many pixels ({_first_line(error)}): make it smaller first") from error
    except UnidentifiedImageError:
        if path.suffix.lower() in (".tif", ".tiff"):
            return _decode_tiff(path)
        known = path.suffix.lower() in (".heic", ".heif", ".avif", ".jxl")
        hint = "convert it to PNG or JPEG first" if known else "give a PNG or JPEG file"
        raise InputError(f"{path} is not an image that can be read: {hint}") from None


def _load(image: Image, path: Path) -> None:
    try:
        image.load()
    except OSError as error:
        if "truncated" in str(error) or "broken" in str(error) or "end of file" in str(error).lower():
            raise InputError(f"{path} is cut off: its pixels end too early: give a complete file") from error
        raise


def _to_srgb(image: Image, profile: bytes | None) -> Image:
    """Converts from the embedded colour profile (wide-gamut phone photos, CMYK scans) where there is a usable one."""
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK"):
        return image
    import io

    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return image
        mode = "RGB" if image.mode == "CMYK" else image.mode
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, OSError):  # a damaged or unsuitable profile: the plain numbers are the best guess
        return image
    return converted or image


def _to_rgb(image: Image, png: bool) -> Image:
    from PIL import Image as Pillow

    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        # Mode I has 32 bits, but a PNG in it (older Pillow) holds 16.
        sixteen = image.mode.startswith("I;16") or (png and image.mode == "I")
        return Pillow.fromarray(_to_eight_bits(np.asarray(image), sixteen)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        pixels = image.convert("RGBA")
        white = Pillow.new("RGBA", pixels.size, (255, 255, 255, 255))
        return Pillow.alpha_composite(white, pixels).convert("RGB")
    return image.convert("RGB")


def _to_eight_bits(values: np.ndarray, sixteen: bool) -> np.ndarray:
    """Scales 16-bit integers, or floats in [0, 1], [0, 255] or [0, 65535], to uint8."""
    values = np.nan_to_num(values.astype(np.float64))
    top = values.max(initial=0.0)
    white = 65535.0 if sixteen else next((w for w in (1.0, 255.0, 65535.0) if top <= w), top)
    return np.clip(values * (255.0 / white) + 0.5, 0, 255).astype(np.uint8)


def _is_deep_colour(image: Image) -> bool:
    """More than 8 bits per colour: Pillow reads such files partly wrongly."""
    bits = image.getexif().get(258, 8)
    return isinstance(bits, tuple) and len(bits) > 1 and max(bits) > 8


def _decode_tiff(path: Path) -> np.ndarray:
    """TIFF kinds Pillow does not know (16 bits per colour, float colours)."""
    import tifffile

    values = np.asarray(tifffile.imread(path, key=0))
    if values.ndim == 3 and values.shape[0] in (3, 4) and values.shape[2] not in (3, 4):
        values = np.moveaxis(values, 0, -1)  # stored plane by plane
    if values.dtype != np.uint8:
        values = _to_eight_bits(values, sixteen=values.dtype == np.uint16)
    if values.ndim == 2:
        values = np.repeat(values[..., None], 3, axis=2)
    if values.shape[2] == 4:
        alpha = values[..., 3:].astype(np.float32) / 255
        values = np.rint(values[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return np.ascontiguousarray(values[..., :3])


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
