"""Faces for framing: their boxes reach from hairline to chin, as the face mesh does, and pictures are turned to make them upright.

Angles are in radians, clockwise as seen; the angle of a face is by how much it leans. Positions are x, y in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dagan.errors import InputError
from dagan.media.landmarks import CHIN, FOREHEAD_TOP, LEFT_EYE_OUTER, OUTLINE, RIGHT_EYE_OUTER, FaceLandmarker

# People lean their heads by up to this angle, and models are trained on that. A face that leans more was filmed or stored turned.
_NATURAL = math.radians(22.5)
# A lean this close to a quarter turn comes from a camera held sideways. An exact quarter turn moves pixels without filtering them.
_NEAR_QUARTER = math.radians(10)


def lean(landmarks: np.ndarray) -> float:
    """Returns the angle, from -pi to pi, of a face with these mesh landmarks (478 x 2, or with more columns).

    The line through the eyes and the line from forehead to chin count by their lengths, because seen from the side the eyes' line is short.
    """
    across = landmarks[LEFT_EYE_OUTER, :2] - landmarks[RIGHT_EYE_OUTER, :2]
    down = landmarks[CHIN, :2] - landmarks[FOREHEAD_TOP, :2]
    return math.atan2(float(across[1] - down[0]), float(across[0] + down[1]))


def upright_angle(angle: float) -> float:
    """Returns the angle by which to turn for a face that leans by `angle`: 0 for a natural lean, and exact quarter turns near those."""
    angle = math.remainder(angle, math.tau)
    if abs(angle) <= _NATURAL:
        return 0.0
    quarter = round(angle / (math.pi / 2)) * (math.pi / 2)
    return quarter if abs(angle - quarter) <= _NEAR_QUARTER else angle


def quarters(angle: float) -> int | None:
    """Returns the number of quarter turns, 0 to 3, that the angle is, or None where it is not a whole number of them."""
    count = angle / (math.pi / 2)
    return round(count) % 4 if abs(count - round(count)) < 1e-9 else None


@dataclass(frozen=True)
class Turn:
    """Turns a width x height picture back by `angle`, onto the smallest upright canvas that holds it."""

    angle: float
    width: int
    height: int

    @cached_property
    def size(self) -> tuple[float, float]:
        """Width and height of the canvas."""
        cos, sin = abs(math.cos(self.angle)), abs(math.sin(self.angle))
        return self.width * cos + self.height * sin, self.width * sin + self.height * cos

    def forward(self, points: np.ndarray) -> np.ndarray:
        """Maps positions (... x 2) in the picture to positions on the canvas."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        moved = points - np.array([self.width / 2, self.height / 2])
        return moved @ np.array([[cos, -sin], [sin, cos]]) + np.array(self.size) / 2

    def back(self, points: np.ndarray) -> np.ndarray:
        """Maps positions (... x 2) on the canvas to positions in the picture."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        moved = points - np.array(self.size) / 2
        return moved @ np.array([[cos, sin], [-sin, cos]]) + np.array([self.width / 2, self.height / 2])


@dataclass(frozen=True, eq=False)
class FaceBox:
    """A face in an image."""

    box: tuple[float, float, float, float]
    """Left, top, right and bottom in pixels; it reaches from hairline to chin."""
    score: float
    """How sure the landmarker is that this is a face, from 0 to 1."""
    landmarks: np.ndarray
    """478 x 3 float32, as the landmarker gives them."""

    @cached_property
    def lean(self) -> float:
        """The angle by which the face leans clockwise, in radians, from -pi to pi."""
        return lean(self.landmarks)

    @property
    def outline(self) -> np.ndarray:
        """P x 2 positions on the rim of the face mesh and on the nose. Their bounds are those of the face, however it is turned."""
        return self.landmarks[list(OUTLINE), :2]

    @property
    def height(self) -> float:
        return self.box[3] - self.box[1]

    @property
    def area(self) -> float:
        return (self.box[2] - self.box[0]) * self.height


class FaceFinder:
    """Finds the faces of an image with the landmarker. A picture with one face takes about 20 ms on one core."""

    def __init__(self, landmarker: FaceLandmarker | None = None) -> None:
        self.landmarker = landmarker or FaceLandmarker()

    def find_faces(self, image: np.ndarray, *, thorough: bool = True) -> list[FaceBox]:
        """Finds all faces of an H x W x 3 uint8 image, largest first. `thorough` spends more time where none is seen at first."""
        return [FaceBox(face.box, face.score, face.landmarks) for face in self.landmarker.detect(image, thorough=thorough)]

    def follow_face(self, image: np.ndarray, previous: FaceBox) -> FaceBox | None:
        """Finds the face of an earlier image of the same size in this one, at a third of the cost. Returns None where it is gone."""
        face = self.landmarker.look_at(image, previous.landmarks)
        return None if face is None else FaceBox(face.box, face.score, face.landmarks)


def largest_face(faces: list[FaceBox], where: str) -> FaceBox:
    """Returns the first, which is the largest, of some faces. Raises InputError, naming `where` was searched, when there are none."""
    if not faces:
        raise InputError(f"no face found in {where}: give a picture with one visible face, not too small and not turned away")
    return faces[0]
