"""Meshes of triangles with texture coordinates and normals, and the z-buffer that draws them.

The z-buffer tells for each sample of the image which triangle it sees, at which depth, and where in the triangle. It is written with
numpy, which every platform has. The ray tracers and OpenGL wrappers on the package index lack wheels, or need a display, on some.

Legend: V vertices, F triangles, n samples that hit something, H W image. Lengths in mm while modelling.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from dagan.data.truth import Label

Array = NDArray[np.float64]
Ints = NDArray[np.int32]


class MovesWith(IntEnum):
    """Says what a piece moves with."""

    HEAD = 0
    JAW = 1
    RIGHT_EYE = 2
    LEFT_EYE = 3
    BODY = 4
    NECK = 5


@dataclass(frozen=True)
class Piece:
    """A part of the head that keeps its shape."""

    points: Array
    """V x 3, at rest."""
    faces: Ints
    """F x 3 triangles, clockwise as seen from outside."""
    uv: Array
    """V x 2 places in the texture tile, in [0, 1]."""
    tile: str
    """The name of the texture tile."""
    carrier: MovesWith
    """What the piece moves with."""
    label: NDArray[np.uint8]
    """F values of Label."""
    shine: float = 0.0
    """The strength of highlights."""


def grid_faces(rows: int, columns: int) -> Ints:
    """Returns the triangles of a grid of vertices numbered row by row. They are clockwise where columns go right and rows go down."""
    number = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    a, b, c, d = (part.ravel() for part in (number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]))
    return np.stack([np.stack([a, b, c], 1), np.stack([b, d, c], 1)], 1).reshape(-1, 3)


def grid_uv(rows: int, columns: int) -> Array:
    """Returns V x 2 coordinates in [0, 1]: u along the columns and v along the rows."""
    u, v = np.meshgrid(np.linspace(0, 1, columns), np.linspace(0, 1, rows))
    return np.stack([u.ravel(), v.ravel()], 1)


def grid_piece(points: Array, tile: str, carrier: MovesWith, label: Label, shine: float = 0.0) -> Piece:
    """Makes a piece from a grid of points, R x C x 3."""
    rows, columns = points.shape[:2]
    faces = grid_faces(rows, columns)
    return Piece(points.reshape(-1, 3), faces, grid_uv(rows, columns), tile, carrier, np.full(len(faces), label, np.uint8), shine)


def normal_sums(faces: Ints, count: int) -> csr_array:
    """Returns the matrix that adds up the normals of triangles at each of `count` vertices."""
    rows = faces.ravel()
    columns = np.repeat(np.arange(len(faces)), 3)
    return csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=(count, len(faces)))


def vertex_normals(points: NDArray[np.float32], faces: Ints, sums: csr_array) -> NDArray[np.float32]:
    """Returns V x 3 unit normals that point outwards. At a vertex, triangles count by their area."""
    a = points[faces[:, 0]]
    (ux, uy, uz), (vx, vy, vz) = (points[faces[:, 1]] - a).T, (points[faces[:, 2]] - a).T
    # Triangles are clockwise and y goes down, so the cross product of the edges points inwards. This is its opposite.
    total = sums @ np.stack([uz * vy - uy * vz, ux * vz - uz * vx, uy * vx - ux * vy], 1)
    return unit(total)


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns V x 3 vectors scaled to length 1."""
    x, y, z = vectors.T
    return vectors / np.maximum(np.sqrt(x * x + y * y + z * z), 1e-9)[:, None]


def turn(axis: int, angle: float) -> Array:
    """Returns the rotation matrix for `angle` radians about x, y or z (axis 0, 1 or 2)."""
    sine, cosine = np.sin(angle), np.cos(angle)
    matrix = np.eye(3)
    i, j = ((1, 2), (2, 0), (0, 1))[axis]
    matrix[i, i] = matrix[j, j] = cosine
    matrix[i, j], matrix[j, i] = -sine, sine
    return matrix


Floats = NDArray[np.float32]

# A triangle with a corner nearer to the camera plane than this, in metres, is dropped whole. Heads never come that near.
NEAREST = 0.05
# So many candidates (pairs of a triangle and a sample) are tested at once. This bounds memory when a triangle fills the image.
CHUNK = 2_000_000


@dataclass(frozen=True)
class Hits:
    """The samples that see a triangle."""

    sample: Ints
    """n flat indices into H x W."""
    face: Ints
    """n numbers of the triangles that they see."""
    weights: Floats
    """n x 3 weights of the triangle's corners. They are barycentric in space, not in the image."""
    depth: Floats
    """n depths along z, in the unit of the vertices."""


def rasterise(points: Floats, faces: Ints, intrinsics: tuple[float, float, float, float], size: tuple[int, int]) -> Hits:
    """Finds the nearest triangle that faces the camera, for each pixel centre.

    Args:
        points: These are the vertices, V x 3, in camera coordinates.
        faces: These are the triangles, F x 3, clockwise as seen in the image (y down) from the front.
        intrinsics: These are fx, fy, cx, cy in pixels. Pixel centres are whole numbers, as in `geometry`.
        size: This is (height, width).
    """
    height, width = size
    fx, fy, cx, cy = intrinsics
    z = points[:, 2]
    inverse = 1 / np.maximum(z, NEAREST).astype(np.float64)
    x, y = points[:, 0] * inverse * fx + cx, points[:, 1] * inverse * fy + cy
    # Corners are treated one by one, because reductions over an axis of length three are several times slower.
    corners = np.ascontiguousarray(faces.T)
    x0, x1, x2 = (x.take(corner) for corner in corners)
    y0, y1, y2 = (y.take(corner) for corner in corners)
    double_area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    low_x, low_y = (np.maximum(np.ceil(_least(*c)), 0).astype(np.int64) for c in ((x0, x1, x2), (y0, y1, y2)))
    high_x = np.minimum(np.floor(-_least(-x0, -x1, -x2)), width - 1).astype(np.int64)
    high_y = np.minimum(np.floor(-_least(-y0, -y1, -y2)), height - 1).astype(np.int64)
    in_front = _least(*(z[corner] for corner in corners)) > NEAREST
    kept = np.flatnonzero((double_area > 1e-9) & (high_x >= low_x) & (high_y >= low_y) & in_front)
    columns = (high_x - low_x + 1)[kept].astype(np.int32)
    counts = columns * (high_y - low_y + 1)[kept]
    corner_x = [c[kept] - low_x[kept] for c in (x0, x1, x2)]
    corner_y = [c[kept] - low_y[kept] for c in (y0, y1, y2)]
    planes = _planes(corner_x, corner_y, [inverse[corner[kept]] for corner in corners], double_area[kept])
    first_pixel = (low_y[kept] * width + low_x[kept]).astype(np.int32)

    nearest = np.zeros(height * width, np.float32)
    found: list[tuple[Ints, Ints, Floats, Floats]] = []
    for part in _chunks(counts):
        count = counts[part]
        triangle = np.repeat(np.arange(part.start, part.stop, dtype=np.int32), count)
        place = np.arange(len(triangle), dtype=np.int32) - np.repeat((np.cumsum(count) - count).astype(np.int32), count)
        row, column = np.divmod(place, columns[triangle])
        across, down = column.astype(np.float32), row.astype(np.float32)
        # Two edges and the inverse depth are affine functions in the image. The third edge is what is left of 1.
        first = planes[0].take(triangle) * across + planes[1].take(triangle) * down + planes[2].take(triangle)
        second = planes[3].take(triangle) * across + planes[4].take(triangle) * down + planes[5].take(triangle)
        inside = np.flatnonzero((first >= 0) & (second >= 0) & (first + second <= 1))
        triangle = triangle[inside]
        near = planes[6].take(triangle) * across[inside] + planes[7].take(triangle) * down[inside] + planes[8].take(triangle)
        source = kept[triangle].astype(np.int32)
        sample = first_pixel[triangle] + row[inside] * np.int32(width) + column[inside]
        np.maximum.at(nearest, sample, near)
        found.append((sample, source, np.stack([first[inside], second[inside]], 1), near))
    if not found:
        return Hits(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros((0, 3), np.float32), np.zeros(0, np.float32))
    sample, face, edges, near = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    winner = np.flatnonzero(near == nearest[sample])
    # A sample on a shared edge is won by both triangles, of which one is kept.
    sample, first_of = np.unique(sample[winner], return_index=True)
    winner = winner[first_of]
    face, edges, near = face[winner], edges[winner], near[winner]
    weights = np.stack([edges[:, 0], edges[:, 1], 1 - edges[:, 0] - edges[:, 1]], 1)
    weights *= np.stack([inverse[corner[face]] for corner in corners], 1).astype(np.float32)
    weights /= weights @ np.ones((3, 1), np.float32)
    return Hits(sample, face, weights, np.reciprocal(near))


def _least(a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.minimum(np.minimum(a, b), c)


def _planes(
    x: list[NDArray[np.float64]], y: list[NDArray[np.float64]], inverse: list[NDArray[np.float64]], double_area: NDArray[np.float64]
) -> Floats:  # fmt: skip
    """Returns 9 x F numbers: per column, per row and at the origin, for the weights of corners 0 and 1 and for the inverse depth.

    x and y hold three corners. They are counted from each triangle's own first pixel, so that float32 is precise enough.
    """
    edges = []
    for a, b in ((1, 2), (2, 0)):
        per_column, per_row = (y[a] - y[b]) / double_area, (x[b] - x[a]) / double_area
        edges.append((per_column, per_row, -per_column * x[a] - per_row * y[a]))
    first, second = edges
    step, other = inverse[0] - inverse[2], inverse[1] - inverse[2]
    depth = [a * step + b * other for a, b in zip(first, second, strict=True)]
    depth[2] = depth[2] + inverse[2]
    return np.stack([*first, *second, *depth]).astype(np.float32)


def _chunks(counts: NDArray[np.int64]) -> list[slice]:
    """Divides the triangles into runs with at most about CHUNK candidates each."""
    ends = np.cumsum(counts)
    if not len(ends):
        return []
    cuts = np.flatnonzero(np.diff(ends // CHUNK)) + 1
    return [slice(int(a), int(b)) for a, b in zip([0, *cuts], [*cuts, len(ends)], strict=True)]
