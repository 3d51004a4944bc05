"""Finds faces with 478 landmarks, by the networks of MediaPipe's Face Landmarker bundle (Apache-2.0), run as its makers run them.

A detector finds rough boxes. A mesh network looks at each box in a turned crop and says how sure it is that a face is there. The
detector sees faces that lean up to about 45 degrees, so where it finds none upright, regions are turned by quarters. From frame to frame
the crop comes from the last landmarks, and the detector is not needed. Landmarks are x, y in image pixels (the first pixel spans 0 to 1)
and z in the same scale, negative towards the camera, with 0 near the middle of the head.

Numbers that belong to the mesh (points by their meaning, names of blendshapes) are here too, and those that landmarks give for a face's
expression and its turn, which do not change when the face moves or comes nearer. Two faces are compared by pose and expression. "Right"
and "left" are the person's. The mesh has 468 points of the face, then five for each iris.

Legend: N faces, P points.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dagan.media.face_detector import Network, Roi, cut, detect_in, roi_around, tiles, whole

MESH_POINTS = 478
FOREHEAD_TOP = 10
CHIN = 152
RIGHT_EYE_OUTER = 33
RIGHT_EYE_INNER = 133
LEFT_EYE_INNER = 362
LEFT_EYE_OUTER = 263
NOSE_TIP = 1

# These are the mesh points nearest to the 68 points of the usual data sets of face alignment, in their order: jaw line from the person's
# right ear to the left (17), right and left brow (5 + 5), nose bridge (4) and base (5), right and left eye (6 + 6), outer and inner lips
# (12 + 8).
SIXTY_EIGHT = (
    127, 234, 93, 132, 58, 136, 150, 176, 152, 400, 379, 365, 288, 361, 323, 454, 356,
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,
    168, 197, 5, 4, 98, 97, 2, 326, 327,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,
    78, 82, 13, 312, 308, 317, 14, 87,
)  # fmt: skip

# The blendshape network takes these 146 points, in this order.
BLENDSHAPE_POINTS = (
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67, 70, 78, 80,
    81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146, 148, 149, 150, 152, 153, 154,
    155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181, 185, 191, 195, 197, 234, 246, 249, 251, 263,
    267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293, 295, 296, 297, 300, 308, 310, 311, 312, 314, 317, 318, 321,
    323, 324, 332, 334, 336, 338, 356, 361, 362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382, 384, 385, 386, 387,
    388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454, 466, 468, 469, 470, 471, 472, 473, 474, 475, 476, 477,
)  # fmt: skip

BLENDSHAPE_NAMES = (
    "_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight",
    "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel", "mouthLeft",
    "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker", "mouthRight",
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight",
    "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight",
)  # fmt: skip

# This is the rim of the mesh, from the top of the forehead clockwise as seen, then the tip and the bridge of the nose.
OUTLINE = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150, 136, 172, 58, 132,
    93, 234, 127, 162, 21, 54, 103, 67, 109, 1, 4,
)  # fmt: skip


BUNDLE = Path(__file__).parent / "bundled" / "face_landmarker.task"
MIN_PRESENCE = 0.5  # The mesh network must be at least so sure that a face is there.
# Where mesh or detector are less sure than this, the face may lie on its side, and all directions are tried. On a face that stands on its
# head the mesh is sometimes sure of a wrong face (0.9999); the detector is then at 0.7 or less, and it is at 0.9 on an upright face.
_SURE, _SURE_DETECTION = 0.99, 0.75
# Faces seen in a turned region need this presence, because three more directions are three more chances to err.
_SURE_TURNED = 0.9
_MOST_TURNED_TILES = 12  # With more tiles than this, only upright regions are searched.
_QUARTERS = (math.pi / 2, math.pi, -math.pi / 2)
_MESH_SIDE = 256  # The side of the mesh network's input, in pixels.
_NEAR = 2.5  # A lost face is looked for in a square this many times as large as the last crop.
_LANDMARKS, _PRESENCE, _BLENDSHAPES = "Identity", "Identity_1", "StatefulPartitionedCall:0"
_PARTS = ("face_detector.tflite", "face_landmarks_detector.tflite", "face_blendshapes.tflite")


@dataclass(frozen=True, eq=False)
class Face:
    """One face."""

    box: tuple[float, float, float, float]
    """Left, top, right and bottom of the landmarks."""
    landmarks: np.ndarray
    """478 x 3 float32."""
    score: float
    """How sure the mesh network is that a face is there, from 0 to 1."""
    _expression: Callable[[np.ndarray], np.ndarray] = field(repr=False)

    def places(self, points: Sequence[int], side: int) -> np.ndarray:
        """Returns where P mesh points lie in an image of `side` x `side` pixels, in the model's coordinates (-1 to 1 inside).

        The result is P x 2 float32.
        """
        # Landmarks count from the outer edge of the first pixel, and coordinates count from its centre.
        return 2 * (self.landmarks[list(points), :2] - 0.5) / (side - 1) - 1

    def blendshapes(self) -> dict[str, float]:
        """Computes the strengths, in [0, 1], of 52 facial movements, by their names."""
        return dict(zip(BLENDSHAPE_NAMES, self._expression(self.landmarks).tolist(), strict=True))


class FaceLandmarker:
    """Finds and follows faces with the networks of the bundle that ships with the package.

    `num_threads` is the number of threads of each network. Threads must not share one landmarker.
    """

    def __init__(self, num_threads: int = 1) -> None:
        with zipfile.ZipFile(BUNDLE) as bundle:
            self._detector, self._mesh, self._blendshapes = (Network(bundle.read(part), num_threads) for part in _PARTS)

    def detect(self, image: np.ndarray, *, thorough: bool = True) -> list[Face]:
        """Finds all faces in an H x W x 3 uint8 image, largest first.

        Faces may lean by any angle. Where the whole image shows none, `thorough` looks again in ever smaller tiles, which takes up to
        about a second when there is no face.
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
        """Finds the face of the last frame in this one. Returns None when it is gone.

        When the mesh network is not sure any more, the detector looks near the last place, then in the whole image.
        """
        face = self.look_at(image, previous.landmarks)
        if face is not None:
            return face
        roi = _roi_of(previous.landmarks)
        near = self._faces_in(image, [Roi(roi.x, roi.y, roi.side * _NEAR, roi.angle)])
        faces = near or self.detect(image, thorough=False)
        return faces[0] if faces else None

    def look_at(self, image: np.ndarray, landmarks: np.ndarray) -> Face | None:
        """Returns the face where these landmarks (478 x 3) of an earlier image are, or None where the mesh network is not sure of it."""
        return self._look(image, _roi_of(landmarks))

    def _faces_around(self, image: np.ndarray, regions: list[Roi]) -> list[Face]:
        """Finds faces in upright regions. Where it is sure of none, it also finds those in the same regions turned by quarters."""
        found = self._candidates(image, regions)
        if not any(score >= _SURE_DETECTION and face.score >= _SURE for score, face in found):
            turned = [replace(region, angle=angle) for region in regions for angle in _QUARTERS]
            found += [(score, face) for score, face in self._candidates(image, turned) if face.score >= _SURE_TURNED]
        return _distinct(found)

    def _faces_in(self, image: np.ndarray, regions: list[Roi]) -> list[Face]:
        return _distinct(self._candidates(image, regions))

    def _candidates(self, image: np.ndarray, regions: list[Roi]) -> list[tuple[float, Face]]:
        """Returns what the detector sees and the mesh network confirms, with the detector's score. A face may be there several times."""
        found = []
        for region in regions:
            for seen in detect_in(self._detector, image, region):
                face = self._look(image, roi_around(seen.box, seen.points[0], seen.points[1]))
                # The second look has the crop that the mesh itself asks for, as in tracking, so that both agree.
                face = face and self._look(image, _roi_of(face.landmarks))
                if face is not None:
                    found.append((seen.score, face))
        return found

    def _look(self, image: np.ndarray, roi: Roi) -> Face | None:
        """Returns the face that fills a region, or None where the mesh network sees no face."""
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
    """Keeps of faces at one place the one of which the detector is surest, because it stands upright in its region. Largest comes first."""
    kept: list[Face] = []
    for _, face in sorted(found, key=lambda pair: pair[0], reverse=True):
        if not any(_same(face, other) for other in kept):
            kept.append(face)
    return sorted(kept, key=_area, reverse=True)


def _area(face: Face) -> float:
    return (face.box[2] - face.box[0]) * (face.box[3] - face.box[1])


def _same(face: Face, other: Face) -> bool:
    """Says whether more than half of the smaller box lies in the other one."""
    a, b = np.array(face.box), np.array(other.box)
    shared = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return bool(shared > 0.5 * min(_area(face), _area(other)))


# `expressions` gives these numbers, in this order.
EXPRESSIONS = ("mouth", "smile", "eyes", "gaze across", "gaze up", "turn", "nod")
# These are the movements of a face that are compared, each with the numbers of EXPRESSIONS that it consists of.
MOVEMENTS = {"mouth": ("mouth",), "eyes": ("eyes",), "gaze": ("gaze across", "gaze up"), "smile": ("smile",)}
_FEWEST = 10  # Slopes over fewer frames say nothing.
_STRONGEST = 0.9  # A movement above this quantile is among the strongest tenth.
# Mesh points of each iris and of the corners of its eye, from the viewer's left to right.
_GAZING = ((468, 33, 133), (473, 362, 263))

Points = NDArray[np.floating]


def expressions(at: Callable[[int], Points]) -> NDArray[np.float32]:
    """Returns N x 7 numbers, named by EXPRESSIONS. They are NaN where places are.

    `at` gives the places of one mesh point in N faces, N x 2, x to the right and y down, in any unit.
    - mouth is the gap between the inner lips, and smile is the width of the mouth.
    - turn says how much nearer the nose is to one cheek than to the other, and nod how much nearer to the forehead than to the chin.
    - These four are relative to the height from forehead to chin.
    - eyes is the mean gap between the lids, relative to the eye's width.
    - gaze is the mean offset of the irises from the middle between the corners of the eye, relative to the eye's width.
    """

    def length(a: int, b: int) -> Points:
        return np.linalg.norm(at(a) - at(b), axis=-1)

    height = length(10, 152)
    across, up = zip(*(_gaze(at(iris), at(left), at(right)) for iris, left, right in _GAZING), strict=True)
    lids = length(159, 145) / length(33, 133) + length(386, 374) / length(362, 263)
    numbers = [
        length(13, 14) / height,
        length(61, 291) / height,
        lids / 2,
        (across[0] + across[1]) / 2,
        (up[0] + up[1]) / 2,
        (length(1, 234) - length(1, 454)) / height,
        (length(1, 10) - length(1, 152)) / height,
    ]
    return np.stack(numbers, axis=-1).astype(np.float32)


def followed(driven: Points, drawn: Points) -> dict[str, float]:
    """Measures how one face follows another. The result has "mouth_slope", "mouth_correlation", "mouth_strongest" and so on.

    `driven` and `drawn` are N x E, the first E numbers (five or more) of `expressions` for driving frames and for results. From both the
    source's numbers are subtracted. For each of MOVEMENTS there are three figures:
    - The slope is fitted by least squares through zero; 1 means that the result moves as far as the driving frame.
    - The correlation is Pearson's.
    - The strongest is the slope over the tenth of the numbers that are driven farthest.
    A figure that cannot be told, for too few frames or because nothing moves, is left out.
    """
    found: dict[str, float] = {}
    if len(driven) < _FEWEST:
        return found
    for key, numbers in MOVEMENTS.items():
        places = [EXPRESSIONS.index(number) for number in numbers]
        x, y = driven[:, places].astype(np.float64).ravel(), drawn[:, places].astype(np.float64).ravel()
        if not x.any():
            continue
        strong = np.abs(x) >= np.quantile(np.abs(x), _STRONGEST)
        found[f"{key}_slope"] = float(x @ y / (x @ x))
        found[f"{key}_strongest"] = float(x[strong] @ y[strong] / (x[strong] @ x[strong]))
        if x.std() > 0 and y.std() > 0:
            found[f"{key}_correlation"] = float(np.corrcoef(x, y)[0, 1])
    return found


def _gaze(iris: Points, left: Points, right: Points) -> tuple[Points, Points]:
    """Returns the offset of the iris from the middle of its eye, along the line of the corners and at right angles to it, both N."""
    eye = right - left
    offset = iris - (left + right) / 2
    square = np.square(eye).sum(-1)
    return (offset * eye).sum(-1) / square, (offset[..., 0] * eye[..., 1] - offset[..., 1] * eye[..., 0]) / square


# No expression moves these mesh points: forehead, corners of the eyes, bridge and wings of the nose, temples, cheekbones.
RIGID = (10, 33, 133, 168, 197, 5, 362, 263, 127, 356, 234, 454, 98, 327)
_UPPER_LIP, _LOWER_LIP = 13, 14  # These are the inner borders of the lips.
_BLINKS = ("eyeBlinkLeft", "eyeBlinkRight")
# Differences of these sizes count alike. They were tuned by eye on 14 pairs of portrait and clip. An open mouth weighs most, because motion
# that counts from one never closes the source's mouth.
_DEGREES, _GAP, _BLINK, _EXPRESSION = 10.0, 0.03, 0.3, 1.0


@dataclass(frozen=True)
class HeadPose:
    """The head pose and the expression of one face, as the face landmarker found them in one picture."""

    rigid: np.ndarray
    """P x 3 points in pixels that no expression moves."""
    gap: float
    """The gap between the lips, in heights of the face."""
    blink: float
    """How far the eyes are closed, from 0 to 1."""
    expression: np.ndarray
    """The strengths of 51 facial movements."""


def head_pose(face: Face) -> HeadPose:
    """Returns what is compared of a face that the landmarker found."""
    points = face.landmarks.astype(np.float64)
    shapes = face.blendshapes()
    gap = np.linalg.norm(points[_UPPER_LIP] - points[_LOWER_LIP]) / np.linalg.norm(points[FOREHEAD_TOP] - points[CHIN])
    blink = sum(shapes[name] for name in _BLINKS) / len(_BLINKS)
    expression = np.array([strength for name, strength in shapes.items() if not name.startswith("_")])
    return HeadPose(points[list(RIGID)], float(gap), blink, expression)


def pose_distance(a: HeadPose, b: HeadPose) -> float:
    """Returns 0 for the same pose and expression, and 1 for a turn of 10 degrees, or for lips 3 % of the face's height farther apart."""
    parts = (
        turn_between(a.rigid, b.rigid) / _DEGREES,
        (a.gap - b.gap) / _GAP,
        (a.blink - b.blink) / _BLINK,
        float(np.linalg.norm(a.expression - b.expression)) / _EXPRESSION,
    )
    return float(np.linalg.norm(parts))


def turn_between(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the degrees of the rotation that brings P x 3 points best onto others, whatever their place and size."""
    return float(np.degrees(np.arccos(np.clip((np.trace(rotation_between(a, b)) - 1) / 2, -1, 1))))


def rotation_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the 3 x 3 rotation R with (a - mean) R near a multiple of (b - mean) for P x 3 points, by least squares (Procrustes)."""
    u, _, vt = np.linalg.svd((a - a.mean(0)).T @ (b - b.mean(0)))
    mirrored = np.sign(np.linalg.det(u @ vt))
    return u @ np.diag([1.0, 1.0, mirrored]) @ vt
