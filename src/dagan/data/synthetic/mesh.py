"""Meshes: pieces with texture coordinates, grids turned into triangles, normals. Lengths in mm while modelling."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Array = NDArray[np.float64]
Ints = NDArray[np.int32]


class Label(IntEnum):
    """What a pixel shows. FACE is the skin from hairline to chin and from ear to ear, with eyes and lips; the mouth's inside, ears and
    hair are HEAD, neck and shoulders BODY."""

    BACKGROUND = 0
    BODY = 1
    HEAD = 2
    FACE = 3


class Carrier(IntEnum):
    """What a piece moves with."""

    HEAD = 0
    JAW = 1
    RIGHT_EYE = 2
    LEFT_EYE = 3
    BODY = 4
    NECK = 5


@dataclass(frozen=True)
class Piece:
    """points: V x 3 in rest. faces: F x 3, clockwise as seen from outside. uv: V x 2 in [0, 1] within the texture tile `tile`.
    label: F values of Label. shine: strength of highlights."""

    points: Array
    faces: Ints
    uv: Array
    tile: str
    carrier: Carrier
    label: NDArray[np.uint8]
    shine: float = 0.0


def grid_faces(rows: int, columns: int) -> Ints:
    """Triangles of a grid of vertices, numbered row by row: clockwise where columns run to the right and rows down."""
    number = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    a, b, c, d = (part.ravel() for part in (number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]))
    return np.stack([np.stack([a, b, c], 1), np.stack([b, d, c], 1)], 1).reshape(-1, 3)


def grid_uv(rows: int, columns: int) -> Array:
    """V x 2 (u along the columns, v along the rows) in [0, 1]."""
    u, v = np.meshgrid(np.linspace(0, 1, columns), np.linspace(0, 1, rows))
    return np.stack([u.ravel(), v.ravel()], 1)


def grid_piece(points: Array, tile: str, carrier: Carrier, label: Label, shine: float = 0.0) -> Piece:
    """A piece from a grid of points, R x C x 3."""
    rows, columns = points.shape[:2]
    faces = grid_faces(rows, columns)
    return Piece(points.reshape(-1, 3), faces, grid_uv(rows, columns), tile, carrier, np.full(len(faces), label, np.uint8), shine)


def normal_sums(faces: Ints, count: int) -> csr_array:
    """The matrix that adds up face normals at the `count` vertices."""
    rows = faces.ravel()
    columns = np.repeat(np.arange(len(faces)), 3)
    return csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=(count, len(faces)))


def vertex_normals(points: NDArray[np.float32], faces: Ints, sums: csr_array) -> NDArray[np.float32]:
    """V x 3 unit normals that point outwards, weighted by area."""
    a = points[faces[:, 0]]
    (ux, uy, uz), (vx, vy, vz) = (points[faces[:, 1]] - a).T, (points[faces[:, 2]] - a).T
    # Clockwise with y down: the cross product of the edges points inwards, this is its opposite.
    total = sums @ np.stack([uz * vy - uy * vz, ux * vz - uz * vx, uy * vx - ux * vy], 1)
    return unit(total)


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """V x 3 vectors at length 1."""
    x, y, z = vectors.T
    return vectors / np.maximum(np.sqrt(x * x + y * y + z * z), 1e-9)[:, None]


def turn(axis: int, angle: float) -> Array:
    """Rotation by `angle` radians about x, y or z (axis 0, 1, 2)."""
    sine, cosine = np.sin(angle), np.cos(angle)
    matrix = np.eye(3)
    i, j = ((1, 2), (2, 0), (0, 1))[axis]
    matrix[i, i] = matrix[j, j] = cosine
    matrix[i, j], matrix[j, i] = -sine, sine
    return matrix
