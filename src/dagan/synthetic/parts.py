"""Builds all parts of a head: the skin of head and neck, eyeballs, teeth, tongue, the mouth's lining, ears, hair, and the shoulders below.

The skin is a mesh that can open its eyes and its mouth, and expressions move it. The grid of `anatomy.Skull` is slit along the eyes and
the mouth. The vertices there exist twice, for the upper and for the lower edge. The other parts are built at rest. As seen from outside,
the columns of their grids go to the image's right, and rows go down.

Legend: V vertices of the skin, upper copies in grid order first, lower copies after them. Lengths in mm.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from dagan.data.truth import Label
from dagan.synthetic.anatomy import (
    BELOW_CHIN_ROW,
    CHIN_ROW,
    COLUMNS,
    EYE_ROW,
    EYEBALL,
    LID,
    MOUTH_ROW,
    ROWS,
    THROAT_ROW,
    Identity,
    Skull,
    bump,
    mouth_shape,
    smoothstep,
)
from dagan.synthetic.mesh import Array, Ints, MovesWith, Piece, grid_faces, grid_piece, grid_uv, turn

HINGE = np.array([0.0, 10.0, -5.0])  # The jaw turns about this point.
JAW_ANGLE = 0.24  # Radians by which a fully open jaw is turned.
# The edge of the upper lid is so many mm above the eye line when the eye is open, and when it is closed. The lower lid's edge is so many mm
# below it.
_UPPER, _LOWER = (4.9, -2.2), (3.8, 2.2)


@dataclass(frozen=True)
class Expression:
    """Strengths of the movements of a face. They lie in about 0 to 1 unless said otherwise."""

    jaw: float = 0.0
    """How far the jaw is open."""
    upper_lip: float = 0.0
    """How far the upper lip is raised."""
    lower_lip: float = 0.0
    """How far the lower lip is lowered, apart from what the jaw does."""
    smile: float = 0.0
    pucker: float = 0.0
    """How far the lips are rounded and pushed forward."""
    blink: float = 0.0
    """How far the eyes are closed; 1 is closed."""
    brow: float = 0.0
    """How far the brows are raised, from -1 to 1."""
    gaze: tuple[float, float] = (0.0, 0.0)
    """Yaw and pitch of the eyes in radians. Positive looks to the image's right, and down."""


@dataclass(frozen=True)
class FaceMesh:
    """The skin as a mesh, with what each vertex does in a movement."""

    rest: Array
    """V x 3, the vertices with eyes and mouth closed."""
    faces: Ints
    """F x 3, the triangles."""
    uv: Array
    """V x 2, places in the texture, in [0, 1]."""
    label: NDArray[np.uint8]
    """F values of Label."""
    jaw: Array
    """V shares of the jaw's movement."""
    head: Array
    """V shares of the head's movement; the neck follows it less and less towards the body."""
    lips: Array
    """V x 2 strengths of movements of the upper and of the lower lip."""
    smile: Array
    """V x 3 displacements at a full smile."""
    pucker: Array
    """V x 3 displacements at a full pucker."""
    brow: Array
    """V x 3 displacements at fully raised brows."""
    lids: tuple[tuple[Ints, Array, Array], ...]
    """For each eye the vertices round it, and how far each moves with the edge of the upper and of the lower lid."""
    eyeballs: Array
    """2 x 3 centres of the eyeballs."""
    upper_edge: Ints
    """The numbers of the vertices along the upper edge of the mouth's slit, from corner to corner."""
    lower_edge: Ints
    """The numbers of the vertices along its lower edge."""


def build_face_mesh(skull: Skull, person: Identity) -> FaceMesh:
    """Slits the skull's surface and works out what each vertex does in a movement."""
    rest = skull.position.reshape(-1, 3)
    row = np.repeat(np.arange(ROWS, dtype=float), COLUMNS)
    faces, uv = grid_faces(ROWS, COLUMNS), grid_uv(ROWS, COLUMNS)
    x_eye, x_mouth = skull.position[EYE_ROW, :, 0], skull.position[MOUTH_ROW, :, 0]
    ahead = np.abs(skull.angle) < 1.2
    slits = [
        (EYE_ROW, np.flatnonzero(ahead & (np.abs(x_eye - ball[0]) < person.eye_width))) for ball in skull.eyeballs
    ] + [(MOUTH_ROW, np.flatnonzero(ahead & (np.abs(x_mouth) < person.mouth_width)))]  # fmt: skip
    lower_of = np.arange(len(rest), dtype=np.int32)
    extra: list[int] = []
    for line, columns in slits:
        upper = line * COLUMNS + columns
        lower_of[upper] = len(rest) + len(extra) + np.arange(len(upper))
        extra += upper.tolist()
    # Triangles below a slit use the lower copies of its vertices.
    hanging = np.isin(np.arange(len(faces)) // 2 // (COLUMNS - 1), (EYE_ROW, MOUTH_ROW))
    on_line = np.isin(faces // COLUMNS, (EYE_ROW, MOUTH_ROW)) & hanging[:, None]
    top = on_line & (faces // COLUMNS == faces.min(1, keepdims=True) // COLUMNS)
    faces = np.where(top, lower_of[faces], faces)
    source = np.concatenate([np.arange(len(rest)), np.array(extra, int)])
    copy = np.arange(len(source)) >= len(rest)
    rest, row, uv = rest[source], row[source], uv[source]
    angle = skull.angle[source % COLUMNS]
    below = (row > MOUTH_ROW) | (copy & (row == MOUTH_ROW))
    x, y = rest[:, 0], rest[:, 1]
    ax = np.abs(x)
    line = skull.position[MOUTH_ROW, source % COLUMNS, 1]
    jaw = _jaw_weight(rest, y - line, below, row, person)
    front = smoothstep(1.5, 1.0, np.abs(angle))
    mouth_fields = _mouth_fields(rest, below, skull, person, front)
    brow = np.zeros_like(rest)
    brow[:, 1] = -6.5 * front * bump(ax, y, 30, skull.eye - 21, 22, 9) * smoothstep(skull.eye - 4, skull.eye - 14, y)
    columns = slits[2][1]
    upper_edge = MOUTH_ROW * COLUMNS + np.concatenate([[columns[0] - 1], columns, [columns[-1] + 1]])
    seen = (np.abs(angle) < 1.35) & (y > skull.eye - person.hairline) & (row <= CHIN_ROW + 4)
    label = np.full(len(faces), Label.HEAD, np.uint8)
    label[row[faces[:, 2]] > BELOW_CHIN_ROW] = Label.BODY
    label[seen[faces].all(1)] = Label.FACE
    return FaceMesh(
        rest, faces, uv, label, jaw, 1 - smoothstep(THROAT_ROW - 2, ROWS - 2, row), *mouth_fields, brow,
        tuple(_lid_field(rest, below=(row > EYE_ROW) | (copy & (row == EYE_ROW)), ball=ball, person=person) for ball in skull.eyeballs),
        skull.eyeballs, upper_edge.astype(np.int32), lower_of[upper_edge],
    )  # fmt: skip


def deform(mesh: FaceMesh, look: Expression) -> Array:
    """Returns the skin with an expression, V x 3, in head coordinates."""
    points = mesh.rest + look.smile * mesh.smile + look.pucker * mesh.pucker + look.brow * mesh.brow
    points[:, 1] += mesh.lips @ np.array([-4.0 * look.upper_lip, 4.5 * look.lower_lip])
    points = swing_jaw(points, mesh.jaw, look.jaw)
    closed = float(np.clip(look.blink + 0.12 * look.smile, 0, 1))
    lowered = 0.35 * look.gaze[1] * EYEBALL  # The upper lid follows the gaze.
    for (vertices, upper, lower), ball in zip(mesh.lids, mesh.eyeballs, strict=True):
        up, down = np.interp(closed, [0, 1], _UPPER) - lowered * (1 - closed), np.interp(closed, [0, 1], _LOWER)
        points[vertices, 1] += lower * down - upper * up
        points[vertices, 2] = _over_eyeball(points[vertices], ball)
    return points


def swing_jaw(points: Array, weight: Array | float, strength: float) -> Array:
    """Turns points, V x 3, about the jaw's hinge, each by its share `weight` of the jaw's angle."""
    angle = JAW_ANGLE * strength * np.asarray(weight, float)
    y, z = points[:, 1] - HINGE[1], points[:, 2] - HINGE[2]
    sine, cosine = np.sin(angle), np.cos(angle)
    return np.stack([points[:, 0], HINGE[1] + y * cosine - z * sine, HINGE[2] + y * sine + z * cosine], 1)


def _jaw_weight(rest: Array, under: Array, below: NDArray[np.bool_], row: Array, person: Identity) -> Array:
    """Returns 1 on the chin and the lower lip, 0 on the upper lip, and values between beside the mouth.

    `under` says how many mm each vertex is below the mouth's line.
    """
    ax = np.abs(rest[:, 0])
    band = 5 + 20 * smoothstep(person.mouth_width - 6, person.mouth_width + 14, ax)
    mixed = smoothstep(-band, band, under)
    inside = np.clip(1 - (ax / person.mouth_width) ** 2, 0, 1) ** 0.6
    weight: Array = inside * below + (1 - inside) * mixed
    weight = weight * (1 - smoothstep(-30, 12, rest[:, 2]))
    return weight * (1 - smoothstep(BELOW_CHIN_ROW - 3, THROAT_ROW + 2, row))


def _mouth_fields(
    rest: Array, below: NDArray[np.bool_], skull: Skull, person: Identity, front: Array
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Returns the fields `lips` (V x 2), `smile` and `pucker` (V x 3 each) of FaceMesh."""
    x, y = rest[:, 0], rest[:, 1]
    ax, side = np.abs(x), np.sign(x)
    shape = mouth_shape(x, person)
    sides = ((~below, 7.0), (below, 8.0))
    lips = np.stack([shape * front * on * np.exp(-0.5 * ((y - skull.mouth) / reach) ** 2) for on, reach in sides], 1)
    corner = front * bump(ax, y, person.mouth_width, skull.mouth, 13, 13)
    cheek = front * bump(ax, y, 42, skull.eye + 28, 13, 13)
    smile = np.stack([7 * side * corner + 1.5 * side * cheek, -6 * corner - 3.5 * cheek, 4.0 * corner - 3 * cheek], 1)
    near = front * bump(x, y, 0, skull.mouth, 22, 14)
    pucker = np.stack([-0.34 * x * near, np.zeros_like(x), -6.5 * near], 1)
    return lips, smile, pucker


def _lid_field(rest: Array, below: NDArray[np.bool_], ball: Array, person: Identity) -> tuple[Ints, Array, Array]:
    """Returns the vertices round an eye, and how far each goes up with the upper lid's edge and down with the lower one's."""
    across = (rest[:, 0] - ball[0]) / person.eye_width
    near = np.flatnonzero((np.abs(across) < 1.7) & (np.abs(rest[:, 1] - ball[1]) < 22) & (rest[:, 2] < -40)).astype(np.int32)
    across, height = across[near], ball[1] - rest[near, 1]
    towards_nose = across * np.sign(-ball[0])
    arch = np.clip(1 - across**2, 0, 1)
    # The upper lid is highest near the nose, and the lower lid is lowest near the temple.
    upper = arch ** (0.65 - 0.12 * towards_nose) * person.eye_height * (1 - smoothstep(0, 15, height)) * ~below[near]
    lower = arch ** (0.75 + 0.12 * towards_nose) * person.eye_height * (1 - smoothstep(0, 12, -height)) * below[near]
    return near, upper, lower


def _over_eyeball(points: Array, ball: Array) -> Array:
    """Returns the z of skin that lies on the eyeball wherever the ball would stand out of it."""
    radius = EYEBALL + LID
    distance = np.square(points[:, :2] - ball[:2]).sum(1)
    surface = np.where(distance < radius**2, ball[2] - np.sqrt(np.clip(radius**2 - distance, 0, None)), points[:, 2] + 10)
    share = np.clip(0.5 + 0.5 * (surface - points[:, 2]) / 1.2, 0, 1)
    return surface + (points[:, 2] - surface) * share - 1.2 * share * (1 - share)


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
