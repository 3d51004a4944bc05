"""Finds faces in measured pictures and compares them: identity, head pose, expression and gaze.

Faces are found in every picture on its own, because a face that is lost in one must be counted there. Landmarks are those of the
478-point mesh, x and y in pixels and z in the same scale. Identity (AED and CSIM, see docs/method.md#evaluation) is compared by the
vectors of a face recognition network in ONNX. It is given by its path; none is bundled.

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
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from skimage.transform import SimilarityTransform, warp

from dagan.errors import InputError
from dagan.evaluate.records import Metric, PairScores
from dagan.media.expression import MOVEMENTS, followed
from dagan.media.landmarks import LEFT_EYE_INNER, LEFT_EYE_OUTER, RIGHT_EYE_INNER, RIGHT_EYE_OUTER, Face, FaceLandmarker
from dagan.motion.reference import HeadPose, head_pose, rotation_between

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# In the 112 x 112 crops that ArcFace networks are trained on, eyes, nose and corners of the mouth lie here.
TEMPLATE = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])
SIZE = 112
# These are the same five points in the mesh: each eye as the mean of its corners, nose tip, corners of the mouth (viewer's left first).
_MESH = ((33, 133), (362, 263), (1,), (61,), (291,))


class IdentityNetwork:
    """Turns aligned faces into vectors of length 1. The network's input is 112 x 112 RGB, (x - 127.5) / 128, NCHW."""

    def __init__(self, file: str | Path) -> None:
        """Raises InputError when the file is missing or not an ONNX network that turns one such picture into one vector."""
        self.session = open_network(file, "face recognition network (112 x 112 input)")
        self.input = self.session.get_inputs()[0].name
        try:
            shapes = [found.shape for found in self.session.run(None, {self.input: np.zeros((1, 3, SIZE, SIZE), np.float32)})]
        except Exception as error:  # The runtime's own errors have no common class.
            reason = str(error).splitlines()[0][:120]
            raise InputError(f"{file} does not take 1 x 3 x 112 x 112 pictures ({reason}): give a face recognition network") from None
        if len(shapes) != 1 or len(shapes[0]) != 2:
            raise InputError(f"{file} does not turn a picture into one vector, but into {shapes}: give a face recognition network")

    def embed(self, image: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> NDArray[np.float32]:
        """Returns the unit vector of the face in `image` (H x W x 3) with mesh `landmarks` (478 x >= 2, in pixels)."""
        face = (align(image, landmarks).astype(np.float32) - 127.5) / 128
        (vector,) = self.session.run(None, {self.input: face.transpose(2, 0, 1)[None]})
        return vector[0] / np.linalg.norm(vector[0])


def open_network(file: str | Path, kind: str) -> InferenceSession:
    """Opens an ONNX network on the CPU with one thread, so that figures do not depend on the number of the machine's cores.

    Raises InputError when the file is missing or no network; `kind` says what was looked for.
    """
    import onnxruntime

    if not Path(file).is_file():
        raise InputError(f"{file} does not exist: give an ONNX {kind}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InputError(f"{file} is not a readable ONNX network: {str(error).splitlines()[0][:120]}") from None


def five_points(landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
    """Returns eyes, nose tip and corners of the mouth, 5 x 2 pixels, from mesh landmarks, 478 x >= 2."""
    return np.stack([landmarks[list(ids), :2].mean(0) for ids in _MESH]).astype(np.float64)


def align(image: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Turns and scales the face to the 112 x 112 template, by a similarity fitted by least squares."""
    transform = SimilarityTransform.from_estimate(TEMPLATE, five_points(landmarks))
    return np.rint(warp(image, transform, output_shape=(SIZE, SIZE), order=1, mode="edge", preserve_range=True)).astype(np.uint8)


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


class Watcher:
    """Looks at pictures. The latest answer is kept, because the copy baseline shows one picture over and over."""

    def __init__(self, detector: FaceDetector, identity: IdentityNetwork | None) -> None:
        self.detector, self.identity = detector, identity
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
        return Seen(face.landmarks, head_pose(face), identity)


Points = NDArray[np.floating]

ACTIVE = 0.25  # A movement of at least this strength counts as present.
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
