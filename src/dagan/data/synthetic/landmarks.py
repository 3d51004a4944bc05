"""Named points of a face, found once on the skin's mesh and followed through a clip. "right" and "left" are the person's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dagan.data.synthetic.mesh import Ints
from dagan.data.synthetic.render import View
from dagan.data.synthetic.scene import Scene, skin_count
from dagan.data.synthetic.skull import COLUMNS, EYE_ROW, MOUTH_ROW, THROAT_ROW

# A landmark counts as seen when the surface drawn at its place is no more than this nearer to the camera, metres. Points on edges
# (lips, lids) lie a few pixels beside where they are looked up.
TOLERANCE = 0.006


@dataclass(frozen=True)
class Landmarks:
    """names: L. vertices: L vertex numbers of the scene's mesh."""

    names: tuple[str, ...]
    vertices: Ints


@dataclass(frozen=True)
class Seen:
    """pixels: L x 2 (x, y), pixel centres are whole numbers. depth: L, metres along z. visible: L."""

    pixels: NDArray[np.float32]
    depth: NDArray[np.float32]
    visible: NDArray[np.bool_]


def find_landmarks(scene: Scene) -> Landmarks:
    """Vertices nearest to each named place on the face in rest."""
    person, skull, skin = scene.person, scene.skull, scene.skin
    eye, mouth, nose = skull.eye, skull.mouth, skull.nose
    middle = COLUMNS // 2
    places: dict[str, tuple[float, float]] = {
        "forehead": (0, eye - 50), "glabella": (0, eye - 18), "nose_root": (0, eye - 1), "nose_bridge": (0, eye + 20),
        "nose_base": (0, nose + 8), "upper_lip_top": (0, mouth - 7.6 * person.upper_lip),
        "lower_lip_bottom": (0, mouth + 9.2 * person.lower_lip), "chin_crease": (0, mouth + 15.5), "chin": (0, mouth + 31),
    }  # fmt: skip
    for side, sign in (("right", -1), ("left", 1)):
        d = person.eye_distance
        pairs = {
            "brow_inner": (14, eye - 18), "brow_middle": (29, eye - 20.5), "brow_outer": (45, eye - 17), "eye_socket_below": (d, eye + 15),
            "eye_outer": (d + person.eye_width, eye), "eye_inner": (d - person.eye_width, eye),
            "nose_wing": (15 * person.nose_width, nose - 3), "cheekbone": (48, eye + 22),
            "cheek": (42, mouth - 8), "mouth_corner": (person.mouth_width, mouth), "jaw": (46, mouth + 14),
        }  # fmt: skip
        places |= {f"{side}_{name}": (sign * x, y) for name, (x, y) in pairs.items()}
    grid = skull.position.reshape(-1, 3)
    ahead = np.flatnonzero((np.abs(np.tile(skull.angle, len(grid) // COLUMNS)) < 1.5) & (np.arange(len(grid)) < THROAT_ROW * COLUMNS))
    found = {name: int(ahead[np.square(grid[ahead, :2] - at).sum(1).argmin()]) for name, at in places.items()}
    bridge = skull.position[EYE_ROW:MOUTH_ROW, middle, 2]
    found["nose_tip"] = (EYE_ROW + int(bridge.argmin())) * COLUMNS + middle
    found["upper_lip_edge"], found["lower_lip_edge"] = (int(edge[len(edge) // 2]) for edge in (skin.upper_edge, skin.lower_edge))
    for side, ball in zip(("right", "left"), skull.eyeballs, strict=True):
        column = int(np.abs(skull.position[EYE_ROW, :, 0] - ball[0])[COLUMNS // 4 : -COLUMNS // 4].argmin()) + COLUMNS // 4
        above, below = EYE_ROW * COLUMNS + column, (EYE_ROW + 1) * COLUMNS + column
        found[f"{side}_upper_lid"] = above
        found[f"{side}_lower_lid"] = _lower_copy(scene, above, below)
    names = tuple(sorted(found))
    return Landmarks(names, np.array([found[name] for name in names], np.int32))


def locate(landmarks: Landmarks, scene: Scene, view: View) -> Seen:
    """Where the landmarks are in a frame, and which of them show."""
    points = view.points[landmarks.vertices]
    camera = scene.camera
    pixels = camera.focal * points[:, :2] / points[:, 2:] + [camera.cx, camera.cy]
    column, row = np.rint(pixels).astype(int).T
    inside = (column >= 0) & (column < scene.size) & (row >= 0) & (row < scene.size)
    drawn = view.depth[row.clip(0, scene.size - 1), column.clip(0, scene.size - 1)]
    visible = inside & (points[:, 2] < drawn + TOLERANCE)
    return Seen(pixels.astype(np.float32), points[:, 2].astype(np.float32), visible)


def _lower_copy(scene: Scene, above: int, below: int) -> int:
    """The slit's lower copy of vertex `above`: it shares a triangle with the vertex below it and lies past the grid."""
    faces = scene.skin.faces
    beside = faces[(faces == below).any(1)].ravel()
    grid = scene.skull.position.shape[0] * COLUMNS
    copies = beside[(beside >= grid) & (beside < skin_count(scene))]
    distances = np.square(scene.skin.rest[copies] - scene.skin.rest[above]).sum(1)
    return int(copies[distances.argmin()])
