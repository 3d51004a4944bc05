"""Disparity maps of a whole video in one .npz file, written without holding them in memory."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from dagan.errors import InputError
from dagan.media.output import atomic_output


class MapArchive:
    """Collects float32 maps of one shape, and small arrays to lie beside them. Made by `map_archive`."""

    def __init__(self, spool: IO[bytes]) -> None:
        self._spool = spool
        self._shape: tuple[int, ...] | None = None
        self._count = 0
        self.notes: dict[str, np.ndarray] = {}

    def add(self, maps: np.ndarray) -> None:
        """Adds n x H x W maps."""
        if self._shape is None:
            self._shape = maps.shape[1:]
        if maps.shape[1:] != self._shape:
            raise ValueError(f"maps of {maps.shape[1:]} among maps of {self._shape}")
        self._spool.write(np.ascontiguousarray(maps, dtype="<f4").tobytes())
        self._count += len(maps)

    def write(self, file: Path) -> None:
        """Writes everything collected to `file`, as `np.load` reads it."""
        if self._shape is None:
            raise InputError("no depth is written: there was no frame to measure")
        self._spool.seek(0)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            with archive.open("disparity.npy", "w", force_zip64=True) as member:
                npy.write_array_header_2_0(member, {"descr": "<f4", "fortran_order": False, "shape": (self._count, *self._shape)})
                shutil.copyfileobj(self._spool, member, 2**20)
            for name, array in self.notes.items():
                with archive.open(f"{name}.npy", "w") as member:
                    npy.write_array(member, np.asarray(array), allow_pickle=False)


@contextmanager
def map_archive(path: Path, overwrite: bool = False) -> Iterator[MapArchive]:
    """Yields an archive to fill; at the end of the block it is written to `path`: N x H x W float32 "disparity", and its notes.

    When the block raises anything, nothing is left behind. Raises InputError as `atomic_output` does, and for an empty archive.
    """
    # The header of an array states how many maps follow, which is only known at the end: until then they wait in a nameless file.
    with atomic_output(path, overwrite) as temporary, tempfile.TemporaryFile(dir=temporary.parent) as spool:
        archive = MapArchive(spool)
        yield archive
        archive.write(temporary)
