"""Writes depth to files: the maps of a whole video in one .npz file, or one map as a coloured point cloud or as a mesh.

The .npz file is written without holding the maps in memory. A point cloud is a binary PLY file, which every 3-D viewer opens. One picture
does not tell its camera. `ASSUMED_FOCAL` is the focal length from which stage 1 of training starts. A wrong one stretches the cloud along
the line of sight and leaves its frontal view as it is. Distances are in the depth network's own unit, not in metres.

Legend: H W map.
"""

from __future__ import annotations

import io
import json
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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


# Where a triangle reaches farther back than this share of its distance, the surface is torn: there is an outline, and nothing behind it was
# seen.
_TEAR = 0.03
_MESH_STEP = 2  # Every second row and column of the map is a point of the mesh; finer ones add size and no shape.


@dataclass(frozen=True, eq=False)
class Mesh:
    """A surface of triangles."""

    points: np.ndarray
    """N x 3 float32 positions: x to the right, y up, z towards the viewer."""
    places: np.ndarray
    """N x 2 float32 places of the points in the picture, from (0, 0) at its top left to (1, 1)."""
    triangles: np.ndarray
    """T x 3 uint32 numbers of points, counter-clockwise as seen from the camera."""


def depth_mesh(disparity: np.ndarray, depth_range: tuple[float, float], focal: float = ASSUMED_FOCAL) -> Mesh:
    """Returns the surface that a disparity map describes, torn where it jumps. The middle of its points is at 0.

    The arguments are those of `point_cloud`. Raises InputError as that does.
    """
    height, width = disparity.shape
    rows, columns = (np.unique(np.append(np.arange(0, length, _MESH_STEP), length - 1)) for length in (height, width))
    points = point_cloud(disparity, depth_range, focal).reshape(height, width, 3)[np.ix_(rows, columns)]
    places = np.stack(np.meshgrid((columns + 0.5) / width, (rows + 0.5) / height), axis=-1)
    number = np.arange(len(rows) * len(columns), dtype=np.uint32).reshape(len(rows), len(columns))
    a, b, c, d = number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]
    triangles = np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])
    depth = -points[..., 2].reshape(-1)[triangles]
    whole = depth.max(axis=1) - depth.min(axis=1) < _TEAR * depth.min(axis=1)
    flat = points.reshape(-1, 3)
    middle = (flat.min(axis=0) + flat.max(axis=0)) / 2
    return Mesh((flat - middle).astype(np.float32), places.reshape(-1, 2).astype(np.float32), triangles[whole])


def write_glb(path: Path | str, mesh: Mesh, picture: np.ndarray, overwrite: bool = False) -> None:
    """Writes a mesh with its picture, H x W x 3 uint8, as binary glTF 2.0, which browsers and 3-D programs show.

    The picture is shown as it is, without light. Raises InputError as `atomic_output` does.
    """
    from PIL import Image

    texture = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(texture, "PNG")
    parts = [mesh.points.tobytes(), mesh.places.tobytes(), mesh.triangles.astype("<u4").tobytes(), texture.getvalue()]
    views, data = [], b""
    for part in parts:
        views.append({"buffer": 0, "byteOffset": len(data), "byteLength": len(part)})
        data += part + b"\0" * (-len(part) % 4)
    count, corners = len(mesh.points), int(mesh.triangles.size)
    extent = {"min": mesh.points.min(axis=0).tolist(), "max": mesh.points.max(axis=0).tolist()}
    note = {
        "asset": {"version": "2.0", "generator": "dagan"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
        "extensionsUsed": ["KHR_materials_unlit"],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "indices": 2, "material": 0}]}],
        "materials": [{
            "pbrMetallicRoughness": {"baseColorTexture": {"index": 0}, "metallicFactor": 0, "roughnessFactor": 1},
            "extensions": {"KHR_materials_unlit": {}}, "doubleSided": True,
        }],
        "textures": [{"source": 0}], "images": [{"bufferView": 3, "mimeType": "image/png"}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": count, "type": "VEC3", **extent},
            {"bufferView": 1, "componentType": 5126, "count": count, "type": "VEC2"},
            {"bufferView": 2, "componentType": 5125, "count": corners, "type": "SCALAR"},
        ],
        "bufferViews": views, "buffers": [{"byteLength": len(data)}],
    }  # fmt: skip
    text = json.dumps(note).encode()
    text += b" " * (-len(text) % 4)
    with atomic_output(path, overwrite) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + len(data)))
        file.write(struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(data), b"BIN\0") + data)
