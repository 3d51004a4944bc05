"""Finds faces in measured pictures and compares them: identity, head pose, expression and gaze.

Faces are found in every picture on its own, because a face that is lost in one must be counted there. Landmarks are those of the
478-point mesh, x and y in pixels and z in the same scale. What networks of the user's tell besides, such as identity (AED and CSIM, see
docs/method.md#evaluation), is in `dagan.media.face_networks`.

Whether a result speaks, blinks, looks and smiles as far as the driving face does is measured over all frames of a run. It compares how the
result's expression and the driving frame's differ from the source's, by three figures:
- The slope says by how much the result differs where the driving frame differs by one. It is fitted by least squares through zero; 1 means
  that the result goes as far as the driving face.
- The correlation is that of the two differences.
- The strongest is the slope over the tenth of the frames in which the driving face differs most.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dagan.evaluate.records import Metric, PairScores
from dagan.media.face_networks import ActionUnitNetwork, IdentityNetwork, LandmarkNetwork
from dagan.media.landmarks import (
    BLENDSHAPE_NAMES,
    LEFT_EYE_INNER,
    LEFT_EYE_OUTER,
    MOVEMENTS,
    RIGHT_EYE_INNER,
    RIGHT_EYE_OUTER,
    Face,
    FaceLandmarker,
    HeadPose,
    followed,
    head_pose,
    rotation_between,
)

Image = NDArray[np.uint8]


class Landmarker(Protocol):
    """Finds the mesh landmarks of the largest face, 478 x 3 pixels, or None."""

    def __call__(self, image: Image) -> NDArray[np.floating] | None: ...


class FaceDetector(Protocol):
    """Finds the largest face, or None."""

    def face(self, image: Image) -> Face | None:
        """Looks in a uint8 H x W x 3 picture."""


class Landmarks:
    """Finds the largest face in uint8 H x W x 3. A call gives its mesh landmarks, 478 x 3 pixels. Both may be None."""

    def __init__(self) -> None:
        self.landmarker = FaceLandmarker()

    def face(self, image: Image) -> Face | None:
        """Finds the largest face, or None."""
        faces = self.landmarker.detect(image, thorough=False)
        return faces[0] if faces else None

    def __call__(self, image: Image) -> NDArray[np.floating] | None:
        face = self.face(image)
        return face.landmarks if face is not None else None


@dataclass(frozen=True, eq=False)
class Seen:
    """A face as metrics see it."""

    landmarks: NDArray[np.floating]
    """478 x 3 pixels of the measured picture."""
    pose: HeadPose
    """The rigid points of the head and 51 strengths of expressions."""
    identity: NDArray[np.float32] | None
    """The unit vector of the identity; None without an identity network."""
    points68: NDArray[np.float64] | None
    """68 x 2 pixels, the usual points of face alignment; None without a network that finds them."""
    units: NDArray[np.bool_]
    """Which action units are present: those of ACTION_UNITS, or those of a network of the user's."""


class Watcher:
    """Looks at pictures. The latest answer is kept, because the copy baseline shows one picture over and over."""

    def __init__(
        self, detector: FaceDetector, identity: IdentityNetwork | None = None, landmarks68: LandmarkNetwork | None = None,
        action_units: ActionUnitNetwork | None = None,
    ) -> None:  # fmt: skip
        self.detector, self.identity, self.landmarks68, self.action_units = detector, identity, landmarks68, action_units
        self._latest: tuple[Image, Seen | None] | None = None

    def see(self, image: Image) -> Seen | None:
        """Finds the largest face of a uint8 H x W x 3 picture, or None. The picture must not be changed later."""
        if self._latest is None or self._latest[0] is not image:
            self._latest = (image, self._look(image))
        return self._latest[1]

    def _look(self, image: Image) -> Seen | None:
        face = self.detector.face(image)
        if face is None:
            return None
        identity = self.identity.embed(image, face.landmarks) if self.identity is not None else None
        points68 = self.landmarks68.points(image, face.landmarks) if self.landmarks68 is not None else None
        pose = head_pose(face)
        units = self.action_units.present(image, face.landmarks) if self.action_units is not None else action_units(pose.expression)
        return Seen(face.landmarks, pose, identity, points68, units)


Points = NDArray[np.floating]

ACTIVE = 0.25  # A movement of at least this strength counts as present.
# These action units of the facial action coding system have blendshapes of the same meaning. Of the 18 units that published figures are
# usually of, four are left out: 6 and 9, whose blendshapes (cheekSquint, noseSneer) these networks never give, and 23 and 25, which have
# none.
ACTION_UNITS = {
    1: ("browInnerUp",),
    2: ("browOuterUpLeft", "browOuterUpRight"),
    4: ("browDownLeft", "browDownRight"),
    5: ("eyeWideLeft", "eyeWideRight"),
    7: ("eyeSquintLeft", "eyeSquintRight"),
    10: ("mouthUpperUpLeft", "mouthUpperUpRight"),
    12: ("mouthSmileLeft", "mouthSmileRight"),
    14: ("mouthDimpleLeft", "mouthDimpleRight"),
    15: ("mouthFrownLeft", "mouthFrownRight"),
    17: ("mouthShrugLower",),
    20: ("mouthStretchLeft", "mouthStretchRight"),
    26: ("jawOpen",),
    28: ("mouthRollLower", "mouthRollUpper"),
    45: ("eyeBlinkLeft", "eyeBlinkRight"),
}
MOVES = 0.02  # Where a strength's standard deviation is smaller, the driving face does not make that movement.
FEWEST_FRAMES = 5  # A correlation over fewer frames says nothing.
CLOSED = 0.5  # Above this blink strength an iris cannot be seen well enough.
_EYEBALL = 0.4  # The radius of the eyeball in widths of the eye's opening: about 12 mm of about 30 mm in adults.
# For each eye these are the corner on the viewer's left, the one on the right, and the iris.
_EYES = ((RIGHT_EYE_OUTER, RIGHT_EYE_INNER, 468), (LEFT_EYE_INNER, LEFT_EYE_OUTER, 473))


def head_pose_error(a: Points, b: Points) -> float:
    """Returns the root mean square, in degrees, of yaw, pitch and roll between two heads. It lies in 0 to 150.

    Each head is given by P x 3 points that no expression moves. The rotation is the least-squares one (Procrustes), which ignores place
    and size.
    """
    angles = Rotation.from_matrix(rotation_between(a, b).T).as_euler("YXZ", degrees=True)
    return float(np.sqrt(np.square(angles).mean()))


def action_units(expression: Points) -> NDArray[np.bool_]:
    """Says which of ACTION_UNITS are present, given the 51 strengths of `HeadPose.expression`. The stronger side of the face counts."""
    strengths = dict(zip((name for name in BLENDSHAPE_NAMES if not name.startswith("_")), expression.tolist(), strict=True))
    return np.array([max(strengths[name] for name in names) >= ACTIVE for names in ACTION_UNITS.values()])


def expression_agreement(a: Points, b: Points) -> float:
    """Returns the share, 0 to 1, of movements (strengths E) that are present (at least `ACTIVE`) in both faces or in neither."""
    return float(np.mean((a >= ACTIVE) == (b >= ACTIVE)))


def expression_correlation(result: Points, driving: Points) -> float | None:
    """Returns the mean over movements of the correlation, in [-1, 1], of their strengths over time (T x E each).

    Movements that the driving face does not make (standard deviation below `MOVES`) are left out. One that it makes and the result does
    not counts 0. Returns None for fewer than `FEWEST_FRAMES` frames, or when the driving face makes no movement.
    """
    if len(driving) < FEWEST_FRAMES:
        return None
    moving = driving.std(0) >= MOVES
    if not moving.any():
        return None
    x, y = (v[:, moving] - v[:, moving].mean(0) for v in (result.astype(np.float64), driving.astype(np.float64)))
    norms = np.linalg.norm(x, axis=0) * np.linalg.norm(y, axis=0)
    products = (x * y).sum(0)
    still = x.std(0) < 1e-6
    return float(np.mean(np.where(still, 0.0, products / np.where(still, 1.0, norms))))


def gaze(landmarks: Points) -> NDArray[np.float64]:
    """Returns the direction (right, down, forward) of the gaze relative to the eyes' openings, as a unit vector, the mean of both eyes.

    It is computed from where the iris lies between the corners of each eye, on an eyeball with a radius of 0.4 widths of its opening.
    The head's own turn does not count, as far as the corners turn with it.
    """
    directions = []
    for first, second, iris in _EYES:
        corner, other = landmarks[first, :2].astype(np.float64), landmarks[second, :2].astype(np.float64)
        width = max(float(np.linalg.norm(other - corner)), 1e-6)
        across = (other - corner) / width
        offset = (landmarks[iris, :2] - (corner + other) / 2) / (_EYEBALL * width)
        side, down = float(offset @ across), float(offset @ np.array([-across[1], across[0]]))
        length = np.hypot(side, down)
        if length > 1:  # The iris is outside the eyeball. It is put on the rim, which is as far as an eye can turn.
            side, down = side / length, down / length
        directions.append([side, down, np.sqrt(max(0.0, 1 - side**2 - down**2))])
    mean = np.mean(directions, axis=0)
    return mean / max(float(np.linalg.norm(mean)), 1e-9)


def gaze_error(a: Points, b: Points) -> float:
    """Returns the angle in degrees, 0 to 180, between the gazes of two faces (landmarks 478 x >= 2)."""
    return float(np.degrees(np.arccos(np.clip(gaze(a) @ gaze(b), -1, 1))))


_TITLES = {"mouth": "Mouth opening", "eyes": "Eye opening", "gaze": "Gaze", "smile": "Smile"}
# So many of EXPRESSIONS are kept of every frame.
KEPT = 5


def expression_metrics(tool: str) -> list[Metric]:
    """Returns the metrics that `expression_totals` computes, in the order to show. `tool` says in words what finds the landmarks."""
    found = []
    for key, numbers in MOVEMENTS.items():
        title = _TITLES[key]
        how = f"{' and '.join(numbers)} of {tool}, result against driving frame, both less the source's, all frames of the run together"
        found += [
            Metric(key=f"{key}_slope", title=f"{title}, slope", better="higher", signed=True,
                   range="any; 1 is as far as driven", per="set", tool=f"least squares through zero: {how}"),
            Metric(key=f"{key}_correlation", title=f"{title}, correlation", better="higher", signed=True, range="-1 to 1", per="set",
                   tool=f"Pearson's: {how}"),
            Metric(key=f"{key}_strongest", title=f"{title}, slope of the strongest tenth", better="higher", signed=True,
                   range="any; 1 is as far as driven", per="set", tool=f"the slope where the driving face differs most: {how}"),
        ]  # fmt: skip
    return found


def expression_totals(scores: Iterable[PairScores]) -> dict[str, float]:
    """Returns the figures of one method by the metrics' keys. Those that cannot be told (few frames, nothing moves) are left out."""
    rows = [row for pair in scores for row in pair.expressions]
    if not rows:
        return {}
    table = np.array(rows, dtype=np.float64)
    return followed(table[:, :KEPT], table[:, KEPT:])
