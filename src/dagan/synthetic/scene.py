"""Draws the scene of one clip from a seed: who is seen, where the camera is, which light there is, and what the head does.

The head turns and nods, speaks in phrases, blinks and looks about. Each of these is one value per frame.

Legend: V vertices, F triangles, N frames, at `rate` frames a second. Things are modelled in mm and handed out in metres in the camera's
coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter1d

from dagan.data.truth import Label
from dagan.synthetic.anatomy import Identity, Skull, build_skull, draw_identity
from dagan.synthetic.mesh import Array, Ints, MovesWith, Piece, grid_uv, turn
from dagan.synthetic.parts import LINING_ROWS, Expression, FaceMesh, build_face_mesh, build_parts, deform, lining, lining_faces, swing_jaw
from dagan.synthetic.texture import Texture, paint_tiles, paint_wall


@dataclass(frozen=True)
class HeadMotion:
    """What a person does in a clip."""

    turns: Array
    """N x 3 radians of the head on the neck, about x (nod), y (turn) and z (tilt)."""
    sway: Array
    """N x 3 mm by which the whole body is shifted."""
    expressions: list[Expression]
    """N expressions."""


def draw_motion(frames: int, rate: float, rng: np.random.Generator) -> HeadMotion:
    """Draws the random performance of a person who talks to the camera."""
    seconds = np.arange(frames) / rate
    liveliness = rng.uniform(0.6, 1.3)
    reach = np.radians([9, 22, 7]) * liveliness
    middle = np.radians([3, 7, 2.5]) * rng.standard_normal(3).clip(-1.5, 1.5)
    turns = np.stack([middle[i] + reach[i] * _wander(seconds, rng, 0.5, 1.6) for i in range(3)], 1)
    talk = _talking(seconds, rng)
    # Speakers nod with their words.
    turns[:, 0] += np.radians(1.2) * gaussian_filter1d(talk * np.sin(2 * np.pi * 1.7 * seconds + rng.uniform(0, 6)), 2)
    sway = np.stack([r * _wander(seconds, rng, 1.0, 3.0) for r in (9.0, 4.0, 9.0)], 1)
    syllables = _syllables(seconds, talk, rng)
    shapes = {name: np.clip(_wander(seconds, rng, *pace), -1, 1) for name, pace in _PACES.items()}
    blink, gaze = _blinks(seconds, rng), _gaze(seconds, turns, rng)
    happy = rng.uniform(0, 0.6)
    expressions = [
        Expression(
            jaw=float(syllables[i] * (0.65 + 0.25 * shapes["open"][i])),
            upper_lip=float(syllables[i] * np.clip(0.4 + 0.5 * shapes["spread"][i], 0, 1)),
            lower_lip=float(syllables[i] * np.clip(0.5 + 0.4 * shapes["open"][i], 0, 1)),
            smile=float(np.clip(happy + 0.45 * shapes["smile"][i] + 0.25 * talk[i] * shapes["spread"][i], -0.25, 1)),
            pucker=float(talk[i] * np.clip(shapes["round"][i], 0, 1) * 0.9),
            blink=float(blink[i]),
            brow=float(np.clip(0.2 + 0.6 * shapes["brow"][i], -0.5, 1)),
            gaze=(float(gaze[i, 0]), float(gaze[i, 1])),
        )
        for i in range(frames)
    ]
    return HeadMotion(turns, sway, expressions)


# These are the shortest and the longest time, in seconds, between the targets of slow movements.
_PACES = {"open": (0.2, 0.5), "spread": (0.15, 0.4), "round": (0.2, 0.5), "smile": (1.0, 3.0), "brow": (0.6, 2.0)}


def _wander(seconds: Array, rng: np.random.Generator, shortest: float, longest: float) -> Array:
    """Returns a smooth path of N values between random targets with a standard deviation of about 0.6."""
    times, values = [seconds[0] - longest], [0.0]
    while times[-1] < seconds[-1] + longest:
        times.append(times[-1] + rng.uniform(shortest, longest))
        values.append(float(np.clip(0.7 * rng.standard_normal(), -1.3, 1.3)))
    return PchipInterpolator(times, values)(seconds)


def _talking(seconds: Array, rng: np.random.Generator) -> Array:
    """Returns 1 in phrases and 0 in pauses, with soft changes."""
    talk = np.zeros_like(seconds)
    start = -rng.uniform(0, 1.5)
    while start < seconds[-1]:
        end = start + rng.uniform(1.2, 3.5)
        talk[(seconds >= start) & (seconds < end)] = 1
        start = end + rng.uniform(0.2, 0.9)
    return gaussian_filter1d(talk, 2)


def _syllables(seconds: Array, talk: Array, rng: np.random.Generator) -> Array:
    """Returns how far the mouth opens for syllables, some three to eight a second, each of its own height."""
    opening = np.zeros_like(seconds)
    start = seconds[0] - 0.3
    while start < seconds[-1]:
        length = rng.uniform(0.16, 0.34)
        phase = (seconds - start) / length
        pulse = np.where((phase > 0) & (phase < 1), np.sin(np.pi * np.clip(phase, 0, 1)) ** 2, 0)
        opening = np.maximum(opening, rng.uniform(0.25, 1.0) * pulse)
        start += length * rng.uniform(0.75, 1.0)
    return opening * talk


def _blinks(seconds: Array, rng: np.random.Generator) -> Array:
    """Returns how far the eyes are closed. They blink every two to five seconds, and close faster than they open."""
    blink = np.zeros_like(seconds)
    start = rng.uniform(0.1, 3.0)
    while start < seconds[-1]:
        blink = np.maximum(blink, np.interp(seconds - start, [0, 0.07, 0.12, 0.26], [0, 1, 1, 0]))
        start += rng.uniform(2.0, 5.0)
    return blink


def _gaze(seconds: Array, turns: Array, rng: np.random.Generator) -> Array:
    """Returns N x 2 (yaw, pitch). The eyes look mostly at the camera, against the head's turns, and jump aside now and then."""
    aside = np.zeros((len(seconds), 2))
    start = seconds[0]
    while start < seconds[-1]:
        aside[seconds >= start] = rng.normal(0, (0.13, 0.06)) if rng.random() < 0.5 else 0.0
        start += rng.uniform(0.4, 1.8)
    at_camera = np.stack([turns[:, 1], -turns[:, 0]], 1)
    return np.clip(0.8 * at_camera + aside, -0.5, 0.5)


# The head turns about this point in the upper neck.
PIVOT = np.array([0.0, 78.0, 22.0])
# A pixel has so many samples each way. The skin's tile has so many texels for each pixel of the image's side.
SAMPLES = 2


@dataclass(frozen=True)
class Camera:
    """A camera with square pixels and no skew."""

    focal: float
    """The focal length in pixels of the clip."""
    cx: float
    """The principal point's x in pixels; pixel centres are whole numbers."""
    cy: float
    """The principal point's y in pixels."""

    def at(self, factor: int) -> tuple[float, float, float, float]:
        """Returns fx, fy, cx, cy for an image with `factor` times as many pixels each way."""
        shift = (factor - 1) / 2
        return self.focal * factor, self.focal * factor, self.cx * factor + shift, self.cy * factor + shift


@dataclass(frozen=True)
class Light:
    """The light of a scene: L lamps, ambient light, and how the sensor records them."""

    directions: Array
    """L x 3 unit vectors towards the lamps."""
    colours: Array
    """L x 3 linear colours of the lamps."""
    sky: Array
    """The ambient colour from above."""
    ground: Array
    """The ambient colour from below."""
    exposure: float
    """A factor on all light."""
    grain: float
    """The standard deviation of the sensor's noise, in 8-bit steps."""


@dataclass(frozen=True)
class Pose:
    """The place of the head. A head point p is at rotation @ p + translation in camera coordinates, in metres."""

    rotation: Array
    translation: Array


@dataclass(frozen=True)
class Scene:
    """Everything that does not change during a clip, and the motion.

    The mesh is made of all pieces together: the skin comes first, then the mouth's lining, then `pieces`.
    """

    size: int
    """The side of the image in pixels."""
    camera: Camera
    person: Identity
    skull: Skull
    skin: FaceMesh
    pieces: list[Piece]
    """The parts that keep their shape."""
    faces: Ints
    """F x 3 triangles of the mesh."""
    uv: NDArray[np.float32]
    """V x 2 places in the texture tiles."""
    tile: list[str]
    """The names of the texture tiles."""
    tile_of: NDArray[np.uint8]
    """For each of V vertices, which of these tiles it has."""
    label: NDArray[np.uint8]
    """F values of Label."""
    shine: NDArray[np.float32]
    """V strengths of highlights."""
    tiles: dict[str, Texture]
    """The texture tiles by their names."""
    light: Light
    wall: Texture
    """The background, at SAMPLES times the image's size."""
    wall_depth: float
    """The distance of the background, in metres."""
    stance: Array
    """The 3 x 3 rotation of the body."""
    place: Array
    """Where the body is, in mm in camera coordinates."""
    motion: HeadMotion


def draw_scene(seed: int, clip: int, size: int, frames: int, rate: float) -> Scene:
    """Draws the scene of clip number `clip`. It does not depend on how many clips there are. `size` is the image's side in pixels."""
    who, where, paint, act = (np.random.default_rng(s) for s in np.random.SeedSequence((seed, clip)).spawn(4))
    person = draw_identity(who)
    skull = build_skull(person)
    skin = build_face_mesh(skull, person)
    pieces = build_parts(skull, person, who)
    motion = draw_motion(frames, rate, act)
    focal = float(np.exp(where.uniform(np.log(1.1), np.log(3.0))))
    camera = Camera(focal * size, *((size - 1) / 2 + size * where.uniform(-0.04, 0.04, 2)))
    share = where.uniform(0.58, 0.82)  # The 240 mm from crown to chin take this share of the image's height.
    distance = focal * 240 / share + 60
    aim = np.array([where.normal(0, 0.025), where.normal(0.0, 0.025) + 0.02]) * distance / focal
    stance = turn(1, where.normal(0, 0.12)) @ turn(0, where.normal(0, 0.06)) @ turn(2, where.normal(0, 0.03))
    offset = (np.array([camera.cx, camera.cy]) - (size - 1) / 2) / size * distance / focal
    place = np.array([aim[0] - offset[0], aim[1] - offset[1], distance])
    faces, uv, names, tile_of, label, shine = _assemble(skin, pieces)
    return Scene(
        size, camera, person, skull, skin, pieces, faces, uv, names, tile_of, label, shine,
        paint_tiles(skull, person, SAMPLES * size, paint), _draw_light(where), paint_wall(SAMPLES * size, SAMPLES * size, paint),
        float((distance + where.uniform(500, 2500)) / 1000),
        stance, place, motion,
    )  # fmt: skip


def pose_at(scene: Scene, frame: int) -> Pose:
    """Returns the head's pose in a frame."""
    nod, yaw, tilt = scene.motion.turns[frame]
    head = turn(1, yaw) @ turn(0, nod) @ turn(2, tilt)
    rotation = scene.stance @ head
    return Pose(rotation, (scene.stance @ (PIVOT - head @ PIVOT) + scene.place + scene.motion.sway[frame]) / 1000)


def points_at(scene: Scene, frame: int) -> NDArray[np.float32]:
    """Returns all vertices in a frame, V x 3, in camera coordinates, in metres."""
    look = scene.motion.expressions[frame]
    skin = deform(scene.skin, look)
    rest = [skin, lining(skin, scene.skin), *(_carried(piece, look, scene.skin.eyeballs) for piece in scene.pieces)]
    pose = pose_at(scene, frame)
    body_shift = (scene.place + scene.motion.sway[frame]) / 1000
    placed = []
    carriers = [None, MovesWith.HEAD, *(piece.carrier for piece in scene.pieces)]
    for points, carrier in zip(rest, carriers, strict=True):
        with_head = points @ (pose.rotation.T / 1000) + pose.translation
        if carrier in (None, MovesWith.BODY, MovesWith.NECK):
            with_body = points @ (scene.stance.T / 1000) + body_shift
            weight = scene.skin.head if carrier is None else _follow(points, carrier)
            with_head = with_body + weight[:, None] * (with_head - with_body)
        placed.append(with_head)
    return np.concatenate(placed).astype(np.float32)


def skin_count(scene: Scene) -> int:
    """Returns the number of vertices of the skin, which come first in the mesh."""
    return len(scene.skin.rest)


def _follow(points: Array, carrier: MovesWith) -> Array:
    """Returns each point's share of the head's movement: none for the body, and for long hair less and less below the mouth."""
    if carrier == MovesWith.BODY:
        return np.zeros(len(points))
    return 1 - 0.8 * np.clip((points[:, 1] - 60) / 130, 0, 1)


def _carried(piece: Piece, look: Expression, eyeballs: Array) -> Array:
    if piece.carrier == MovesWith.JAW:
        return swing_jaw(piece.points, 1.0, look.jaw)
    if piece.carrier in (MovesWith.RIGHT_EYE, MovesWith.LEFT_EYE):
        ball = eyeballs[0 if piece.carrier == MovesWith.RIGHT_EYE else 1]
        return (piece.points - ball) @ (turn(1, -look.gaze[0]) @ turn(0, look.gaze[1])).T + ball
    return piece.points


def _assemble(
    skin: FaceMesh, pieces: list[Piece]
) -> tuple[Ints, NDArray[np.float32], list[str], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]]:  # fmt: skip
    """Returns the mesh's triangles, its uv, the tiles' names, each vertex's tile, each triangle's label, and each vertex's shine."""
    inside = lining_faces(skin)
    count = LINING_ROWS * len(skin.upper_edge)
    blocks = [
        (skin.faces, skin.uv, "skin", skin.label, 0.22),
        (inside, grid_uv(LINING_ROWS, len(skin.upper_edge)), "lining", np.full(len(inside), Label.HEAD, np.uint8), 0.1),
        *((piece.faces, piece.uv, piece.tile, piece.label, piece.shine) for piece in pieces),
    ]
    assert len(blocks[1][1]) == count
    names = sorted({block[2] for block in blocks})
    start, faces = 0, []
    for triangles, uv, *_ in blocks:
        faces.append(triangles + start)
        start += len(uv)
    return (
        np.concatenate(faces).astype(np.int32), np.concatenate([b[1] for b in blocks]).astype(np.float32), names,
        np.concatenate([np.full(len(b[1]), names.index(b[2]), np.uint8) for b in blocks]), np.concatenate([b[3] for b in blocks]),
        np.concatenate([np.full(len(b[1]), b[4], np.float32) for b in blocks]),
    )  # fmt: skip


def _draw_light(rng: np.random.Generator) -> Light:
    """Draws a key lamp from in front on either side, a weaker fill from the other side, a lamp from behind, and the light of the room."""
    side = rng.choice([-1.0, 1.0])
    azimuth, height = side * rng.uniform(0.1, 1.25), rng.uniform(0.1, 0.95)
    others = [(-side * rng.uniform(0.5, 1.4), rng.uniform(-0.1, 0.6)), (rng.choice([-1, 1]) * rng.uniform(2.0, 2.7), rng.uniform(0.2, 0.9))]
    directions = [[np.sin(a) * np.cos(h), -np.sin(h), -np.cos(a) * np.cos(h)] for a, h in ((azimuth, height), *others)]
    warmth = rng.uniform(-0.12, 0.15)
    tint = np.array([1 + warmth, 1.0, 1 - warmth])
    ambient = rng.uniform(0.18, 0.5)
    strengths = np.array([rng.uniform(0.55, 1.0), rng.uniform(0.05, 0.4), rng.uniform(0, 0.5)])
    tints = np.stack([tint, 2 - tint, np.ones(3)])
    sky = ambient * (1 + rng.uniform(-0.06, 0.06, 3))
    ground = sky * rng.uniform(0.45, 0.8)
    return Light(np.array(directions), strengths[:, None] * tints, sky, ground, rng.uniform(0.85, 1.25), rng.uniform(0.3, 1.8))
