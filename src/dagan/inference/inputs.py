"""Telling photos from moving pictures."""

from __future__ import annotations

from pathlib import Path

from dagan.media.images import IMAGE_SUFFIXES

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")


def is_photo(path: Path) -> bool:
    """Whether a file is a still picture: by its suffix, or by its contents where the name says something else."""
    return path.is_file() and (path.suffix.lower() in IMAGE_SUFFIXES or _holds_one_picture(path))


def _holds_one_picture(path: Path) -> bool:
    from PIL import Image

    try:
        with Image.open(path, formats=_FORMATS) as image:
            return getattr(image, "n_frames", 1) == 1
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False
