"""Image files: they are told from other files, read, and written, one by one or as sequences of frames.

What a file is is told by its contents: a photo, an animated picture, or something else, such as a video. Names prove nothing.

Whatever a still image holds, the rest of the program sees H x W x 3 uint8 sRGB. Pillow and its plug-ins decode. Pillow is imported on
first use, so that the command line starts without it.

Frames of a video are written each as a file of its own, one of them, or some of them side by side. The classes for that are used as
`VideoWriter` is. Nothing is seen under the final names before everything is written.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from dagan.checks import require_file
from dagan.errors import InputError
from dagan.media.output import atomic_output, check_destination, make_folder
from dagan.media.pillow_image import cube_of, is_deep, is_tiff, opened, read_deep_tiff, to_eight_bits, to_srgb_array, white_is_zero
from dagan.media.provenance import Provenance, stamp, xmp_packet

if TYPE_CHECKING:
    from PIL.Image import Image

# Pillow reads more formats, some of them by guessing. These are recognised by their first bytes.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "QOI")
# Several pictures in these formats are an animation. The pages of a TIFF and the pictures of an MPO are no moments of one scene.
_ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_JPEG_XL = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")


def is_picture(path: Path) -> bool:
    """Says whether a file holds a photo or an animated picture, of a kind that is read here or not."""
    return _pictures_in(path) > 0


def is_photo(path: Path) -> bool:
    """Says whether a file holds one still picture, of a kind that is read here or not. A damaged file counts if it is named like one."""
    if _pictures_in(path) != 0:
        return _pictures_in(path) == 1
    return path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES and not is_video(path)


def is_animation(path: Path) -> bool:
    """Says whether a file is an animated GIF, PNG, WebP or AVIF."""
    return _pictures_in(path) > 1


def is_video(path: Path) -> bool:
    """Says whether a file that is no picture has a stream of moving pictures, at least one of which can be decoded."""
    from dagan.errors import InputError
    from dagan.media.container import first_frame, open_container, video_stream

    if is_picture(path):
        return False
    try:
        with open_container(path) as container:
            # FFmpeg opens any file that is named like a picture as a picture.
            if container.format.name.endswith("_pipe") or container.format.name == "image2":
                return False
            first_frame(container, video_stream(container, path), path)
    except InputError:
        return False
    return True


def foreign_kind(path: Path) -> str | None:
    """Returns the name of a format of photos that is recognised here but not read by every Pillow; None for anything else."""
    with path.open("rb") as file:
        start = file.read(12)
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS:
        return "an AVIF image" if start[8:11] == b"avi" else "a HEIC image"
    return "a JPEG XL image" if start.startswith(_JPEG_XL) else None


def _pictures_in(path: Path) -> int:
    """Returns how many pictures a viewer shows for the file. It is 0 for anything that is no picture."""
    from PIL import Image

    from dagan.media.pillow_image import is_tiff, opened

    if not path.is_file():
        return 0
    Image.init()  # This loads all formats that this Pillow has; AVIF is not in every one.
    try:
        with opened(path, [name for name in _FORMATS if name in Image.OPEN]) as image:
            return getattr(image, "n_frames", 1) if image.format in _ANIMATED else 1
    except Image.DecompressionBombError:
        return 1
    except OSError as error:
        if error.errno is not None:  # The file cannot be read at all; an error says so when it is opened.
            return 0
    except Exception:  # Pillow's decoders raise exceptions of any kind, and Pillow passes them on.
        pass
    return int(is_tiff(path) or foreign_kind(path) is not None)


@dataclass(frozen=True)
class Clip:
    """A video, a folder of images, or a still, with the identity of whom it shows."""

    path: Path
    """A video file, a folder of images, or one image."""
    name: str
    """The clip's path below the folder that was searched."""
    identity: str
    """Whom the clip shows."""
    still: bool = False
    """Whether the path is one image."""


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


ALPHA_SUFFIXES = (".png", ".webp", ".tif", ".tiff")  # Image files that can be transparent.
_NUMBER = re.compile(r"%(0\d)?d")
_LONGEST_SIDE = 65_000  # Pixels. Image files and viewers take no wider strip.


def is_pattern(path: Path) -> bool:
    """Says whether a path stands for many image files, such as frames/%04d.png, in which a number takes the place of %04d."""
    return path.suffix.lower() in IMAGE_SUFFIXES and len(_NUMBER.findall(path.name)) == 1


def numbered(path: Path, number: int) -> Path:
    """Returns the file for a number."""
    return path.with_name(_NUMBER.sub(lambda match: match[0] % number, path.name))


def check_stills(path: Path, single: bool, alpha: bool, overwrite: bool) -> None:
    """Raises InputError unless image files can be written to the path: one, or many to a pattern."""
    if single and is_pattern(path):
        raise InputError(f"{path} names many files, and one picture is asked for: name one image file")
    if alpha and path.suffix.lower() not in ALPHA_SUFFIXES:
        raise InputError(f"{path}: {path.suffix} files cannot be transparent: choose one of {', '.join(ALPHA_SUFFIXES)}")
    check_destination(path if single else numbered(path, 0), "a picture", IMAGE_SUFFIXES, overwrite)


class SequenceWriter:
    """Writes each frame, H x W x 3 or 4 uint8, as an image file. `path` is a pattern; frames are counted from 0.

    Files of an earlier, longer run with greater numbers stay. Raises InputError for files that exist, unless `overwrite` is set.
    """

    has_sound = False

    def __init__(self, path: Path, overwrite: bool, provenance: Provenance | None) -> None:
        self._path, self._overwrite, self._provenance = path, overwrite, provenance
        self._count = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for folder in reversed(make_folder(self._path.parent, self._path)):
                stack.callback(_remove_empty, folder)
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".", suffix=".part", dir=self._path.parent)))
            self._stack = stack.pop_all()
        return self

    def write(self, image: np.ndarray, time: Fraction, duration: Fraction | None = None) -> None:
        """Writes the next frame. Image files have no times."""
        name = numbered(self._path, self._count)
        if name.exists() and not self._overwrite:
            raise InputError(f"{name} exists already: choose another name, or replace it with --overwrite")
        write_image(self._folder / name.name, image, provenance=self._provenance)
        self._count += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._stack:
            if error is None:
                for file in sorted(self._folder.iterdir()):
                    shutil.move(file, self._path.parent / file.name)


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


class StripWriter:
    """Writes all frames that it is given, H x W x 3 or 4 uint8, side by side into one image file."""

    has_sound = False

    def __init__(self, path: Path, overwrite: bool, provenance: Provenance | None) -> None:
        self._path, self._overwrite, self._provenance = path, overwrite, provenance
        self._frames: list[np.ndarray] = []

    def __enter__(self) -> Self:
        return self

    def write(self, image: np.ndarray, time: Fraction, duration: Fraction | None = None) -> None:
        """Puts a frame to the right of those before. Raises InputError for a strip that becomes too wide for image files."""
        self._frames.append(image.copy())
        if len(self._frames) * image.shape[1] > _LONGEST_SIDE:
            raise InputError(f"a strip of more than {_LONGEST_SIDE // image.shape[1]} frames is too wide for image files: ask for fewer")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            write_image(self._path, np.concatenate(self._frames, axis=1), self._overwrite, self._provenance)
