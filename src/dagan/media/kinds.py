"""Tells what a file is by its contents: a photo, an animated picture, or something else, such as a video. Names prove nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
