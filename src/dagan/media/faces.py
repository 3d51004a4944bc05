"""Finding faces for framing: the landmarker where its bundle can be had, else the cascade that ships with scikit-image.

Both answer with boxes from hairline to chin, which is what the face mesh spans.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from dagan.errors import InputError
from dagan.media.landmarker_file import find_landmarker_file
from dagan.media.landmarks import FaceLandmarker
from dagan.media.notices import Warn, to_stderr


@dataclass(frozen=True, eq=False)
class FaceBox:
    """A face in an image. box: x0, y0, x1, y1 in pixels, hairline to chin; landmarks: 478 x 3 where the finder has them."""

    box: tuple[float, float, float, float]
    score: float
    landmarks: np.ndarray | None = None

    @property
    def height(self) -> float:
        return self.box[3] - self.box[1]

    @property
    def area(self) -> float:
        return (self.box[2] - self.box[0]) * self.height


class FaceFinder(Protocol):
    """Finds the faces of an image."""

    most_samples: int  # pictures of a video worth looking at, given the finder's speed

    def find_faces(self, image: np.ndarray, *, thorough: bool = True) -> list[FaceBox]:
        """All faces of an H x W x 3 uint8 image, largest first; `thorough` spends more time where none is seen at first."""


def open_face_finder(path: Path | str | None = None, *, num_threads: int = 1, download: bool = True, warn: Warn = to_stderr) -> FaceFinder:
    """The best finder there is on this machine; `warn` hears when it is the cascade, and why.

    path: the landmarker bundle; by default it is looked for, and fetched once (`dagan.media.landmarker_file`).
    Raises InputError when a bundle is named but cannot be used.
    """
    file = find_landmarker_file(path, download=download, warn=warn)
    if file is None:
        warn("Faces are found with a simpler method, frontal ones only: the face landmarker's file is not here")
        return CascadeFinder()
    try:
        return LandmarkFinder(FaceLandmarker(file, num_threads))
    except ImportError:
        warn("Faces are found with a simpler method, frontal ones only: for better framing, install ai-edge-litert")
        return CascadeFinder()


class LandmarkFinder:
    """Faces by the landmarker: about 20 ms a picture with one face on one core."""

    most_samples = 600

    def __init__(self, landmarker: FaceLandmarker) -> None:
        self.landmarker = landmarker

    def find_faces(self, image: np.ndarray, *, thorough: bool = True) -> list[FaceBox]:
        """See FaceFinder."""
        return [FaceBox(face.box, face.score, face.landmarks) for face in self.landmarker.detect(image, thorough=thorough)]

    def follow_face(self, image: np.ndarray, previous: FaceBox) -> FaceBox | None:
        """The face of an earlier image of the same size, in this one, at a third of the cost; None where it is gone."""
        if previous.landmarks is None:
            return None
        face = self.landmarker.look_at(image, previous.landmarks)
        return None if face is None else FaceBox(face.box, face.score, face.landmarks)


class CascadeFinder:
    """Frontal faces by scikit-image's LBP cascade: about 40 ms a picture on one core, 0.3 s where it sees none at first.

    It finds the face in 131 of 137 portraits and frames (the landmarker in all) with one false one; its boxes are moved to
    hairline and chin by figures measured there.
    """

    most_samples = 100
    # Pictures are shrunk to these sides; the second is tried when the first shows no face. More pixels find no more faces
    # but many false ones, which needs more neighbouring hits for each face.
    _PASSES = ((128, 4), (320, 8))
    _SMALLEST = 24  # the cascade's own window
    _LEAST_AREA = 0.2  # of the largest face; smaller ones are mostly false
    _LOWER, _NARROWER = 0.075, 0.86  # the mesh's centre below the cascade's, its width, in box heights

    def __init__(self) -> None:
        from skimage.data import lbp_frontal_face_cascade_filename
        from skimage.feature import Cascade

        self._cascade = Cascade(lbp_frontal_face_cascade_filename())

    def find_faces(self, image: np.ndarray, *, thorough: bool = True) -> list[FaceBox]:
        """See FaceFinder."""
        faces: list[FaceBox] = []
        for side, neighbours in self._PASSES if thorough else self._PASSES[:1]:
            faces = faces or self._search(image, side, neighbours)
        return [face for face in faces if face.area >= self._LEAST_AREA * faces[0].area]

    def _search(self, image: np.ndarray, side: int, neighbours: int) -> list[FaceBox]:
        from PIL import Image

        height, width = image.shape[:2]
        scale = min(1.0, side / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = Image.fromarray(image).convert("L").resize(size, Image.Resampling.BOX)
        if min(small.size) < self._SMALLEST:
            return []
        found = self._cascade.detect_multi_scale(
            np.asarray(small),
            scale_factor=1.1,
            step_ratio=1,
            min_size=(self._SMALLEST, self._SMALLEST),
            max_size=(min(small.size), min(small.size)),
            min_neighbor_number=neighbours,
        )
        boxes = np.array([[hit["c"], hit["r"], hit["width"]] for hit in found], dtype=np.float64).reshape(-1, 3) / scale
        faces = []
        for x, y, tall in (square.tolist() for square in _merge(boxes)):
            middle_x, middle_y, half = x + tall / 2, y + (0.5 + self._LOWER) * tall, self._NARROWER * tall / 2
            faces.append(FaceBox((middle_x - half, middle_y - tall / 2, middle_x + half, middle_y + tall / 2), score=1.0))
        return sorted(faces, key=lambda face: face.area, reverse=True)


def _merge(squares: np.ndarray) -> list[np.ndarray]:
    """Squares (n x 3: x, y, side) of which one holds the other's centre are one face at two scales: their means."""
    left = squares[np.argsort(-squares[:, 2])]
    merged = []
    while len(left):
        centres = left[:, :2] + left[:, 2:] / 2
        same = ((centres >= left[0, :2]) & (centres <= left[0, :2] + left[0, 2])).all(axis=1)
        merged.append(left[same].mean(axis=0))
        left = left[~same]
    return merged


def largest_face(faces: list[FaceBox], where: str) -> FaceBox:
    """The first of some faces. Raises InputError, naming `where` they were looked for, when there are none."""
    if not faces:
        raise InputError(f"no face found in {where}: give a picture with one visible face, not too small and not turned away")
    return faces[0]
