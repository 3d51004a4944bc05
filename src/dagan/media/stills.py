"""Writes frames as image files: each as a file of its own, one of them, or some of them side by side.

The classes here are used as `VideoWriter` is. Nothing is seen under the final names before everything is written.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from dagan.errors import InputError
from dagan.media.images import write_image
from dagan.media.kinds import IMAGE_SUFFIXES
from dagan.media.output import check_destination, make_folder
from dagan.media.provenance import Provenance

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
