"""The skin of head and neck as a mesh that can open its eyes and its mouth, and the expressions that move it.

The grid of `anatomy.Skull` is slit along the eyes and the mouth. The vertices there exist twice, for the upper and for the lower edge.
Legend: V vertices, upper copies in grid order first, lower copies after them. Lengths in mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
from dagan.synthetic.mesh import Array, Ints, grid_faces, grid_uv

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
