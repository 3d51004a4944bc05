"""Builds all parts of a head but its skin: eyeballs, teeth, tongue, the mouth's lining, ears, hair, and the shoulders below.

Lengths are in mm, at rest. As seen from outside, the columns of grids go to the image's right, and rows go down.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter

from dagan.data.truth import Label
from dagan.synthetic.anatomy import COLUMNS, EYEBALL, MOUTH_ROW, ROWS, Identity, Skull, smoothstep
from dagan.synthetic.face_mesh import FaceMesh
from dagan.synthetic.mesh import Array, Ints, MovesWith, Piece, grid_faces, grid_piece, turn

LINING_ROWS = 9


def build_parts(skull: Skull, person: Identity, rng: np.random.Generator) -> list[Piece]:
    """Builds all pieces that keep their shape, at rest."""
    mouth = skull.position[MOUTH_ROW, COLUMNS // 2]
    pieces = [*_eyes(skull), *_teeth(mouth, person), _tongue(mouth), *(_ear(side, skull, person) for side in (-1.0, 1.0))]
    if person.hair != "bald":
        pieces.append(_hair_cap(skull, person, rng))
    if person.hair == "long":
        pieces.append(_long_hair(skull, person, rng))
    return [*pieces, _shoulders(skull, person)]


def lining(points: Array, mesh: FaceMesh) -> Array:
    """Returns the inside of the mouth for skin points V x 3.

    It has LINING_ROWS rows of vertices, from the upper lip's edge round the back to the lower lip's edge.
    """
    upper, lower = points[mesh.upper_edge], points[mesh.lower_edge]
    # The pouch closes at the mouth's corners.
    deep = (1 - np.linspace(-1, 1, len(upper)) ** 6)[:, None]
    middle = (upper + lower) / 2
    steps = [upper, upper + deep * [0, -3.5, 4.5], upper + deep * [0, -6, 9], middle + deep * [0, -9, 24], middle + deep * [0, -2, 34],
             middle + deep * [0, 9, 26], lower + deep * [0, 6, 9], lower + deep * [0, 3.5, 4.5], lower]  # fmt: skip
    return np.stack(steps).reshape(-1, 3)


def lining_faces(mesh: FaceMesh) -> Ints:
    """Returns the triangles of `lining`, as seen from in front."""
    return grid_faces(LINING_ROWS, len(mesh.upper_edge))


def _sphere(radii: tuple[float, float, float], rows: int, columns: int) -> Array:
    """Returns the front half, and a little more, of an ellipsoid round the origin, rows x columns x 3."""
    across, down = np.meshgrid(np.linspace(-1.9, 1.9, columns), np.linspace(-1.45, 1.45, rows))
    return np.stack([np.sin(across) * np.cos(down), np.sin(down), -np.cos(across) * np.cos(down)], -1) * radii


def _eyes(skull: Skull) -> list[Piece]:
    """Builds the eyeballs, with the pupil in the middle of their texture, and a dark body behind them for gaps at the eyes' corners."""
    behind = grid_piece(_sphere((60, 34, 48), 9, 13) + np.array([0, skull.eye, -18]), "lining", MovesWith.HEAD, Label.HEAD)
    carriers = zip(skull.eyeballs, (MovesWith.RIGHT_EYE, MovesWith.LEFT_EYE), strict=True)
    return [behind, *(grid_piece(_sphere((EYEBALL,) * 3, 25, 33) + ball, "eye", carrier, Label.FACE, 1.0) for ball, carrier in carriers)]


def _teeth(mouth: Array, person: Identity) -> list[Piece]:
    """Builds the teeth as two arcs behind the lips."""
    x = np.linspace(-22, 22, 25)
    pieces = []
    for carrier, tile, top, bottom, back in ((MovesWith.HEAD, "teeth", -9.0, 1.0, 8.5), (MovesWith.JAW, "teeth", 2.6, 11.0, 10.5)):
        y = np.linspace(top, bottom, 4)
        points = np.stack(np.broadcast_arrays(x[None], mouth[1] + y[:, None], mouth[2] + back + (x**2)[None] / 24), -1)
        pieces.append(grid_piece(points * [person.mouth_width / 24.5, 1, 1], tile, carrier, Label.HEAD, 0.6))
    return pieces


def _tongue(mouth: Array) -> Piece:
    return grid_piece(_sphere((16, 8, 18), 9, 15) + mouth + [0, 9.5, 31], "tongue", MovesWith.JAW, Label.HEAD, 0.3)


def _ear(side: float, skull: Skull, person: Identity) -> Piece:
    """Builds an ear as a shell with rim, hollow and lobe. Side -1 is the image's left."""
    rings, around = 11, 37
    radius, angle = np.meshgrid(np.linspace(0.02, 1.12, rings), np.linspace(0, 2 * np.pi, around), indexing="ij")
    # In the plane of the ear, b goes backwards and d down. The upper half is wider, and the lobe is narrow.
    wide = 17.5 - 4.5 * np.sin(angle)
    reach = np.minimum(radius, 1.0)
    b, d = wide * reach * np.cos(angle), 31 * reach * np.sin(angle)
    rim = smoothstep(-0.9, 0.5, -np.sin(angle - 0.5))  # The rim fades out towards the lobe.
    out = 3.5 * np.exp(-(((radius - 0.88) / 0.09) ** 2)) * rim - 6.5 * np.exp(-((radius / 0.42) ** 2)) * smoothstep(1.0, 0.2, np.sin(angle))
    out += 2.0 * np.exp(-(((radius - 0.58) / 0.09) ** 2)) * rim
    out -= 26 * np.clip(radius - 1.0, 0, None) / 0.12  # The outermost ring runs into the head.
    local = np.stack([out + 4.0, d, b], -1) * person.ear_size
    flare = np.radians(person.ear_angle)
    cosine, sine = np.cos(flare), np.sin(flare)
    points = np.stack([local[..., 0] * cosine + local[..., 2] * sine, local[..., 1], -local[..., 0] * sine + local[..., 2] * cosine], -1)
    points = points @ turn(0, -0.12).T
    column = int(np.argmin(np.abs(skull.angle - 1.62)))
    row = int(np.argmin(np.abs(skull.position[:, column, 1] - (skull.eye + 12))))
    at = skull.position[row, column]
    points = (points + np.array([0.5, 0, 12.0])) * [side, 1, 1] + np.array([side * abs(at[0]), skull.eye + 13, at[2]])
    # Rings run outwards, and angles run clockwise only on the right side, so the other side is reversed.
    return grid_piece(points[:, ::-1] if side > 0 else points, "ear", MovesWith.HEAD, Label.HEAD, 0.25)


def hairline(angle: Array, person: Identity) -> Array:
    """Returns the y (which grows downwards) above which hair grows, for each direction round the head (radians, 0 is the front)."""
    turn_by = np.abs(angle)
    top = -person.hairline
    heights = [top, top + 3, top + 22, -28, 12, 16, 30, 68, 74]
    return np.interp(turn_by, [0, 0.45, 0.85, 1.1, 1.42, 1.6, 1.95, 2.4, np.pi], heights)


def _hair_cap(skull: Skull, person: Identity, rng: np.random.Generator) -> Piece:
    """Builds the hair as a shell over the skull that dips below the skin at the hairline."""
    base = skull.base[: ROWS - 12 : 2]
    rows = len(base)
    thick = {"buzz": 2.2, "short": 9.0, "full": 19.0, "long": 13.0}[person.hair] * person.hair_volume
    angle = np.broadcast_to(skull.angle[None], base.shape[:2])
    lumps = gaussian_filter(rng.standard_normal(base.shape[:2]), (2.5, 3), mode=("nearest", "wrap"))
    lumps += 0.5 * gaussian_filter(rng.standard_normal(base.shape[:2]), (1.2, 1.2), mode=("nearest", "wrap"))
    lumps *= smoothstep(0, 7, np.arange(rows, dtype=float))[:, None] / lumps.std()  # Lumps fade where all columns meet, at the crown.
    edge = hairline(angle, person) + (0.25 * thick) * lumps
    inside = smoothstep(-1.5, 10 + 0.5 * thick, edge - base[..., 1])
    side = person.hair_volume > 1 and rng.random() < 0.5
    top = 1 + (0.5 if person.hair == "full" else 0.15) * smoothstep(-40, -110, base[..., 1])
    sway = 1 + (0.25 * np.sign(base[..., 0]) * smoothstep(0, 40, np.abs(base[..., 0])) if side else 0)
    out = inside * thick * (top * sway * (1 + 0.16 * lumps)) - 4.5 * (1 - smoothstep(-1.0, 3.5, edge - base[..., 1]))
    points = base + out[..., None] * _outward(base)
    piece = grid_piece(points, "hair", MovesWith.HEAD, Label.HEAD, 0.35)
    # Below the hairline the shell is cut off, because eye sockets and an open jaw would lay it bare.
    kept = ((edge - base[..., 1]).ravel()[piece.faces] > -7).any(1)
    return replace(piece, faces=piece.faces[kept], label=piece.label[kept])


def _outward(base: Array) -> Array:
    """Returns unit directions away from the middle of the head."""
    direction = base - np.array([0.0, -15.0, 5.0])
    direction[..., 1] *= 0.85
    return direction / np.linalg.norm(direction, axis=-1, keepdims=True)


def _long_hair(skull: Skull, person: Identity, rng: np.random.Generator) -> Piece:
    """Builds long hair as a curtain from the crown over the ears down to the shoulders, open in front."""
    rows, columns = 40, 90
    fall = np.linspace(0, 1, rows)[:, None]
    opening = rng.uniform(1.15, 1.45)
    u = np.linspace(-1, 1, columns)[None]
    y = -85 + (85 + person.hair_length) * fall
    # As seen from behind, columns run over the back from the image's right to its left.
    angle = np.pi + u * (np.pi - opening - 0.12 * fall)
    swell = np.sin(np.clip(fall * 3.2, 0, 1) * np.pi / 2)
    width = (80 + 8 * person.hair_volume) * person.width * (0.80 + 0.25 * swell) * (1 - 0.16 * smoothstep(0.5, 1.0, fall))
    depth = 98 * person.length * (0.86 + 0.2 * swell) * (1 - 0.3 * smoothstep(0.4, 1.0, fall))
    waves = gaussian_filter(rng.standard_normal((rows, columns)), (7, 1.6))
    waves *= 3.5 / waves.std()
    x, z = (width + waves) * np.sin(angle), 8 - (depth + waves) * np.cos(angle)
    outer = np.stack(np.broadcast_arrays(x, y, z), -1)
    inner = outer * [0.88, 1, 0.9] + [0, 2, 2]
    # The columns go on round the edge and back along the inside, which can be seen beside the neck.
    points = np.concatenate([outer, inner[:, ::-1], outer[:, :1]], axis=1)
    return grid_piece(points, "hair", MovesWith.NECK, Label.HEAD, 0.35)


def _shoulders(skull: Skull, person: Identity) -> Piece:
    """Builds chest, shoulders and collar as a loft below the neck."""
    # Each row is half the width, half the depth, the middle z, and the y at the side and in front.
    keys = np.array([[57, 50, 18, 108, 134], [66, 57, 18, 116, 142], [96, 66, 20, 130, 154], [150, 80, 20, 148, 180],
                     [196, 92, 16, 172, 220], [214, 104, 10, 220, 270], [216, 112, 4, 320, 350],
                     [205, 118, 0, 440, 440]], float)  # fmt: skip
    rows = gaussian_filter(np.repeat(keys, 4, axis=0), (2.0, 0), mode="nearest")
    angle = np.linspace(-np.pi, np.pi, 73)[None]
    x = rows[:, :1] * np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** 0.85 * person.neck_width
    z = rows[:, 2:3] - rows[:, 1:2] * np.cos(angle)
    front = (1 + np.cos(angle)) / 2
    y = rows[:, 3:4] + (rows[:, 4:5] - rows[:, 3:4]) * front
    return grid_piece(np.stack(np.broadcast_arrays(x, y, z), -1), "cloth", MovesWith.BODY, Label.BODY)
