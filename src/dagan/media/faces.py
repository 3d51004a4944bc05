"""Faces for framing: boxes from hairline to chin, which is what the face mesh spans."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dagan.errors import InputError
from dagan.media.landmarks import FaceLandmarker
from dagan.media.mesh_points import OUTLINE
from dagan.media.turning import lean


@dataclass(frozen=True, eq=False)
class FaceBox:
    """A face in an image. box: x0, y0, x1, y1 in pixels, hairline to chin; landmarks: 478 x 3 float32."""

    box: tuple[float, float, float, float]
    score: float
    landmarks: np.ndarray

    @cached_property
    def lean(self) -> float:
        """The angle by which the face leans clockwise, in radians, from -pi to pi."""
        return lean(self.landmarks)

    @property
    def outline(self) -> np.ndarray:
        """P x 2 positions on the rim of the face mesh and on the nose: their bounds are the face's, however it is turned."""
        return self.landmarks[list(OUTLINE), :2]

    @property
    def height(self) -> float:
        return self.box[3] - self.box[1]

    @property
    def area(self) -> float:
        return (self.box[2] - self.box[0]) * self.height


class FaceFinder:
    """Finds the faces of an image with the landmarker: about 20 ms a picture with one face on one core."""

    def __init__(self, landmarker: FaceLandmarker | None = None) -> None:
        self.landmarker = landmarker or FaceLandmarker()

    def find_faces(self, image: np.ndarray, *, thorough: bool = True) -> list[FaceBox]:
        """All faces of an H x W x 3 uint8 image, largest first; `thorough` spends more time where none is seen at first."""
        return [FaceBox(face.box, face.score, face.landmarks) for face in self.landmarker.detect(image, thorough=thorough)]

    def follow_face(self, image: np.ndarray, previous: FaceBox) -> FaceBox | None:
        """The face of an earlier image of the same size, in this one, at a third of the cost; None where it is gone."""
        face = self.landmarker.look_at(image, previous.landmarks)
        return None if face is None else FaceBox(face.box, face.score, face.landmarks)


def largest_face(faces: list[FaceBox], where: str) -> FaceBox:
    """The first of some faces. Raises InputError, naming `where` they were looked for, when there are none."""
    if not faces:
        raise InputError(f"no face found in {where}: give a picture with one visible face, not too small and not turned away")
    return faces[0]
