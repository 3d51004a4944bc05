"""Faces with 478 landmarks: the networks of MediaPipe's Face Landmarker bundle, run as its makers run them.

A detector finds rough boxes; a mesh network looks at each in a turned crop, and says how sure it is that a face is there.
The detector sees faces that lean up to about 45 degrees, so regions are turned by quarters where it finds none upright.
From frame to frame the crop comes from the last landmarks, and the detector rests. Landmarks are x, y in image pixels (the
first pixel spans 0 to 1) and z in the same scale, negative towards the camera, with 0 near the middle of the head.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from dagan.media.face_detector import detect_in, tiles, whole
from dagan.media.mesh_points import BLENDSHAPE_NAMES, BLENDSHAPE_POINTS, LEFT_EYE_OUTER, MESH_POINTS, RIGHT_EYE_OUTER
from dagan.media.roi import Roi, cut, roi_around
from dagan.media.tflite import Network

BUNDLE = Path(__file__).parent / "bundled" / "face_landmarker.task"
MIN_PRESENCE = 0.5
# Where mesh or detector are less sure than this, the face may lie on its side, and all directions are tried. On a face that
# stands on its head the mesh is sometimes sure of a wrong one (0.9999); the detector is then at 0.7 or less, and at 0.9 upright.
_SURE, _SURE_DETECTION = 0.99, 0.75
_SURE_TURNED = 0.9  # presence that is asked of faces seen in a turned region: three more directions are three more chances to err
_MOST_TURNED_TILES = 12
_QUARTERS = (math.pi / 2, math.pi, -math.pi / 2)
_MESH_SIDE = 256
_NEAR = 2.5  # a lost face is looked for in a square this many times the last crop
_LANDMARKS, _PRESENCE, _BLENDSHAPES = "Identity", "Identity_1", "StatefulPartitionedCall:0"
_PARTS = ("face_detector.tflite", "face_landmarks_detector.tflite", "face_blendshapes.tflite")


@dataclass(frozen=True, eq=False)
class Face:
    """One face. box: x0, y0, x1, y1 round the landmarks; landmarks: 478 x 3 float32; score: presence, 0 to 1."""

    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    score: float
    _expression: Callable[[np.ndarray], np.ndarray] = field(repr=False)

    def places(self, points: Sequence[int], side: int) -> np.ndarray:
        """P x 2 float32: where P mesh points lie in an image of `side` x `side` pixels, in the model's coordinates (-1 to 1 inside)."""
        # Landmarks count from the outer edge of the first pixel, coordinates from its centre.
        return 2 * (self.landmarks[list(points), :2] - 0.5) / (side - 1) - 1

    def blendshapes(self) -> dict[str, float]:
        """Strengths in [0, 1] of 52 facial movements by name, computed when asked for."""
        return dict(zip(BLENDSHAPE_NAMES, self._expression(self.landmarks).tolist(), strict=True))


class FaceLandmarker:
    """Finds and follows faces with the networks of the bundle that ships with the package.

    num_threads: the number of threads of each network. One landmarker must not be shared by threads.
    """

    def __init__(self, num_threads: int = 1) -> None:
        with zipfile.ZipFile(BUNDLE) as bundle:
            self._detector, self._mesh, self._blendshapes = (Network(bundle.read(part), num_threads) for part in _PARTS)

    def detect(self, image: np.ndarray, *, thorough: bool = True) -> list[Face]:
        """All faces in an H x W x 3 uint8 image, largest first.

        Faces may lean by any angle. When the whole image shows none, `thorough` looks again in ever smaller tiles: up to
        about a second for no face.
        """
        faces = self._faces_around(image, [whole(image)])
        if not faces and thorough:
            for regions in tiles(image):
                few = len(regions) <= _MOST_TURNED_TILES
                faces = self._faces_around(image, regions) if few else self._faces_in(image, regions)
                if faces:
                    break
        return faces

    def track(self, image: np.ndarray, previous: Face) -> Face | None:
        """The face of the last frame in this one; None when it is gone.

        When the mesh is not sure any more, the detector looks near the last place, then in the whole image.
        """
        face = self.look_at(image, previous.landmarks)
        if face is not None:
            return face
        roi = _roi_of(previous.landmarks)
        near = self._faces_in(image, [Roi(roi.x, roi.y, roi.side * _NEAR, roi.angle)])
        faces = near or self.detect(image, thorough=False)
        return faces[0] if faces else None

    def look_at(self, image: np.ndarray, landmarks: np.ndarray) -> Face | None:
        """The face where these landmarks (478 x 3) of an earlier image are; None when the mesh is not sure of it."""
        return self._look(image, _roi_of(landmarks))

    def _faces_around(self, image: np.ndarray, regions: list[Roi]) -> list[Face]:
        """Faces in upright regions; where none is seen for sure, those in the same regions turned by quarters too."""
        found = self._candidates(image, regions)
        if not any(score >= _SURE_DETECTION and face.score >= _SURE for score, face in found):
            turned = [replace(region, angle=angle) for region in regions for angle in _QUARTERS]
            found += [(score, face) for score, face in self._candidates(image, turned) if face.score >= _SURE_TURNED]
        return _distinct(found)

    def _faces_in(self, image: np.ndarray, regions: list[Roi]) -> list[Face]:
        return _distinct(self._candidates(image, regions))

    def _candidates(self, image: np.ndarray, regions: list[Roi]) -> list[tuple[float, Face]]:
        """What the detector sees and the mesh agrees with, each with the detector's score; one face may be there several times."""
        found = []
        for region in regions:
            for seen in detect_in(self._detector, image, region):
                face = self._look(image, roi_around(seen.box, seen.points[0], seen.points[1]))
                # The second look has the crop that the mesh itself asks for, as in tracking: both then agree.
                face = face and self._look(image, _roi_of(face.landmarks))
                if face is not None:
                    found.append((seen.score, face))
        return found

    def _look(self, image: np.ndarray, roi: Roi) -> Face | None:
        """The face that fills a region; None when the mesh does not believe in it."""
        height, width = image.shape[:2]
        if roi.side < 2 or not (-roi.side < roi.x < width + roi.side and -roi.side < roi.y < height + roi.side):
            return None
        outputs = self._mesh.run(cut(image, roi, _MESH_SIDE)[None].astype(np.float32) / 255)
        presence = float(1 / (1 + np.exp(-outputs[_PRESENCE].item())))
        if presence < MIN_PRESENCE:
            return None
        landmarks = roi.to_image(outputs[_LANDMARKS].reshape(MESH_POINTS, 3) / _MESH_SIDE).astype(np.float32)
        return Face(_box(landmarks), landmarks, presence, self._express)

    def _express(self, landmarks: np.ndarray) -> np.ndarray:
        points = landmarks[list(BLENDSHAPE_POINTS), :2]
        return self._blendshapes.run(points[None])[_BLENDSHAPES].reshape(-1)


def _roi_of(landmarks: np.ndarray) -> Roi:
    return roi_around(_box(landmarks), landmarks[RIGHT_EYE_OUTER], landmarks[LEFT_EYE_OUTER])


def _box(landmarks: np.ndarray) -> tuple[float, float, float, float]:
    x0, y0 = landmarks[:, :2].min(axis=0).tolist()
    x1, y1 = landmarks[:, :2].max(axis=0).tolist()
    return x0, y0, x1, y1


def _distinct(found: list[tuple[float, Face]]) -> list[Face]:
    """Of faces at one place that of which the detector is surest, largest first: a face that stands upright in its region."""
    kept: list[Face] = []
    for _, face in sorted(found, key=lambda pair: pair[0], reverse=True):
        if not any(_same(face, other) for other in kept):
            kept.append(face)
    return sorted(kept, key=_area, reverse=True)


def _area(face: Face) -> float:
    return (face.box[2] - face.box[0]) * (face.box[3] - face.box[1])


def _same(face: Face, other: Face) -> bool:
    """Whether the smaller box lies in the other one by more than half."""
    a, b = np.array(face.box), np.array(other.box)
    shared = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return bool(shared > 0.5 * min(_area(face), _area(other)))
