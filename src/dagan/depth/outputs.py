"""Writes depth to files: the maps of a whole video in one .npz file, or one map as a coloured point cloud.

The .npz file is written without holding the maps in memory. A point cloud is a binary PLY file, which every 3-D viewer opens. One picture
does not tell its camera. `ASSUMED_FOCAL` is the focal length from which stage 1 of training starts. A wrong one stretches the cloud along
the line of sight and leaves its frontal view as it is. Distances are in the depth network's own unit, not in metres.

Legend: H W map.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.lib import format as npy

from dagan.errors import InputError
from dagan.geometry.camera import back_project, intrinsics, invert_intrinsics
from dagan.media.output import atomic_output
from dagan.models.depth import disparity_to_depth
from dagan.models.egomotion import EgomotionConfig


class MapArchive:
    """Collects float32 maps of one shape, and small arrays to store beside them. `map_archive` makes it."""

    def __init__(self, spool: IO[bytes]) -> None:
        self._spool = spool
        self._shape: tuple[int, ...] | None = None
        self._count = 0
        self.notes: dict[str, np.ndarray] = {}

    def add(self, maps: np.ndarray) -> None:
        """Adds n maps, n x H x W."""
        if self._shape is None:
            self._shape = maps.shape[1:]
        if maps.shape[1:] != self._shape:
            raise ValueError(f"maps of {maps.shape[1:]} among maps of {self._shape}")
        self._spool.write(np.ascontiguousarray(maps, dtype="<f4").tobytes())
        self._count += len(maps)

    def write(self, file: Path) -> None:
        """Writes everything that was collected to `file`, as `np.load` reads it."""
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
    """Yields an archive to fill. At the end of the block it is written to `path`: N x H x W float32 "disparity", and its notes.

    When the block raises anything, nothing is left behind. Raises InputError as `atomic_output` does, and for an empty archive.
    """
    # The header of an array says how many maps follow, which is known only at the end. Until then they wait in a nameless file.
    with atomic_output(path, overwrite) as temporary, tempfile.TemporaryFile(dir=temporary.parent) as spool:
        archive = MapArchive(spool)
        yield archive
        archive.write(temporary)


ASSUMED_FOCAL = EgomotionConfig().focal  # In image widths.
_VERTEX = np.dtype([(axis, "<f4") for axis in "xyz"] + [(colour, "u1") for colour in ("red", "green", "blue")])


def point_cloud(disparity: np.ndarray, depth_range: tuple[float, float], focal: float = ASSUMED_FOCAL) -> np.ndarray:
    """Returns (H W) x 3 float32 points, row by row: x to the right, y up, z towards the viewer. The camera is at 0 and looks along -z.

    `disparity` is H x W in (0, 1). `depth_range` is the model's smallest and largest depth (docs/method.md#depth-network). `focal` is the
    focal length in picture widths. Raises InputError when it is not above 0.
    """
    if not focal > 0:
        raise InputError(f"focal length is {focal}: must be above 0, in picture widths")
    height, width = disparity.shape
    depth = disparity_to_depth(torch.from_numpy(np.ascontiguousarray(disparity, dtype=np.float32)), *depth_range)[None, None]
    # Pixels are square, so both directions have the same focal length in pixels.
    lengths = torch.tensor([[focal, focal * width / height]])
    camera = invert_intrinsics(intrinsics(lengths, torch.full((1, 2), 0.5), (height, width)))
    points = back_project(depth, camera)[0].flatten(1).T
    return (points * torch.tensor([1.0, -1.0, -1.0])).numpy()


def write_ply(path: Path | str, points: np.ndarray, colours: np.ndarray, overwrite: bool = False) -> None:
    """Writes N x 3 float points with N x 3 uint8 colours in binary little-endian. Raises InputError as `atomic_output` does."""
    vertices = np.empty(len(points), _VERTEX)
    for i, axis in enumerate("xyz"):
        vertices[axis] = points[:, i]
    for i, colour in enumerate(("red", "green", "blue")):
        vertices[colour] = colours[:, i]
    properties = [f"property {'float' if name in 'xyz' else 'uchar'} {name}" for name in _VERTEX.names or ()]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}", *properties, "end_header", ""]
    with atomic_output(path, overwrite) as temporary, temporary.open("wb") as file:
        file.write("\n".join(header).encode("ascii"))
        file.write(vertices.tobytes())
