"""Networks of the user's that look at faces, in ONNX: identity, the 68 usual landmarks, action units. None is bundled.

Faces are found by the face landmarker first; each network sees a square cut out round the face, as its kind was trained to.

Legend: landmarks are those of the face mesh, 478 x >= 2 in pixels of the picture. Pictures are uint8 H x W x 3.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from skimage.transform import SimilarityTransform, warp

from dagan.errors import InputError
from dagan.media.framing import Framing, bounds_of, crop

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# In the 112 x 112 crops that ArcFace networks are trained on, eyes, nose and corners of the mouth lie here.
TEMPLATE = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])
SIZE = 112
# These are the same five points in the mesh: each eye as the mean of its corners, nose tip, corners of the mouth (viewer's left first).
_MESH = ((33, 133), (362, 263), (1,), (61,), (291,))
_LANDMARK_SIDE = 256  # Networks of 68 heatmaps take pictures of this side.
_POINTS = 68
# Such networks are trained on squares round the face's box that are larger by this factor, and moved up by this share of its height.
_ROOM, _RAISED = 200 / 195, 0.12
_DEFAULT_SIDE = 224  # The side of the picture for a network of action units that takes any.
PRESENT = 0.5  # An action unit of at least this probability counts as present.

Image = NDArray[np.uint8]
Points = NDArray[np.floating]


class IdentityNetwork:
    """Turns aligned faces into vectors of length 1. The network's input is 112 x 112 RGB, (x - 127.5) / 128, NCHW."""

    def __init__(self, file: str | Path) -> None:
        """Raises InputError when the file is missing or not an ONNX network that turns one such picture into one vector."""
        kind = "a face recognition network"
        self.session = open_network(file, f"{kind[2:]} (112 x 112 input)")
        shapes = [found.shape for found in _run(self.session, file, SIZE, kind)]
        if len(shapes) != 1 or len(shapes[0]) != 2:
            raise InputError(f"{file} does not turn a picture into one vector, but into {shapes}: give {kind}")

    def embed(self, image: Image, landmarks: Points) -> NDArray[np.float32]:
        """Returns the unit vector of the face in `image` with these landmarks."""
        face = (align(image, landmarks).astype(np.float32) - 127.5) / 128
        (vector,) = self.session.run(None, {self.session.get_inputs()[0].name: face.transpose(2, 0, 1)[None]})
        return vector[0] / np.linalg.norm(vector[0])


class LandmarkNetwork:
    """Finds the 68 usual points of face alignment by heatmaps, as networks of the FAN kind do.

    The network's input is N x 3 x 256 x 256 RGB in [0, 1]. Its output (the last one, where stacked hourglasses give several) is
    N x 68 x S x S, square heatmaps of any size.
    """

    def __init__(self, file: str | Path) -> None:
        """Raises InputError when the file is missing or no such network."""
        kind = "a network of 68 landmarks (3 x 256 x 256 in, 68 heatmaps out)"
        self.session = open_network(file, kind[2:])
        shape = _run(self.session, file, _LANDMARK_SIDE, kind)[-1].shape
        if len(shape) != 4 or shape[:2] != (1, _POINTS) or shape[2] != shape[3] or shape[2] < 2:
            raise InputError(f"{file} does not turn a picture into 68 square heatmaps, but into {' x '.join(map(str, shape))}: give {kind}")

    def points(self, image: Image, landmarks: Points) -> NDArray[np.float64]:
        """Returns 68 x 2 places in pixels of `image` (the first pixel spans 0 to 1) of the face with these landmarks."""
        square = _square(landmarks)
        left, top, _, _ = square.bounds
        face = crop(image, square, _LANDMARK_SIDE).astype(np.float32).transpose(2, 0, 1)[None] / 255
        heatmaps = self.session.run(None, {self.session.get_inputs()[0].name: face})[-1][0]
        return peaks(heatmaps) * (square.side / heatmaps.shape[-1]) + (left, top)


class ActionUnitNetwork:
    """Finds action units. The network's input is N x 3 x S x S RGB in [0, 1], its output N x U probabilities, one for each unit.

    A network that takes pictures of any side gets 224.
    """

    def __init__(self, file: str | Path) -> None:
        """Raises InputError when the file is missing or no such network."""
        kind = "a network of action units (square RGB faces in, a probability for each unit out)"
        self.session = open_network(file, kind[2:])
        side = self.session.get_inputs()[0].shape[-1]
        self.side = side if isinstance(side, int) and side > 0 else _DEFAULT_SIDE
        outputs = _run(self.session, file, self.side, kind)
        shapes = [found.shape for found in outputs]
        if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][0] != 1:
            raise InputError(f"{file} does not turn a picture into one row of probabilities, but into {shapes}: give {kind}")
        if not (np.isfinite(outputs[0]).all() and outputs[0].min() >= 0 and outputs[0].max() <= 1):
            raise InputError(f"{file} gives numbers from {outputs[0].min():.3g} to {outputs[0].max():.3g}, not probabilities: give {kind}")

    def present(self, image: Image, landmarks: Points) -> NDArray[np.bool_]:
        """Says which of the network's U units are present in the face with these landmarks."""
        face = crop(image, _square(landmarks), self.side).astype(np.float32).transpose(2, 0, 1)[None] / 255
        (found,) = self.session.run(None, {self.session.get_inputs()[0].name: face})
        return found[0] >= PRESENT


def peaks(heatmaps: NDArray[np.floating]) -> NDArray[np.float64]:
    """Returns the places of the highest values of P heatmaps h x w, P x 2 as x, y in their pixels (the first one spans 0 to 1).

    Each is moved from the middle of its pixel by a quarter towards the higher of its neighbours, as such networks' points are usually read.
    """
    height, width = heatmaps.shape[1:]
    y, x = np.unravel_index(heatmaps.reshape(len(heatmaps), -1).argmax(1), (height, width))
    padded = np.pad(heatmaps, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    each = np.arange(len(heatmaps))
    across = np.sign(padded[each, y + 1, x + 2] - padded[each, y + 1, x])
    down = np.sign(padded[each, y + 2, x + 1] - padded[each, y, x + 1])
    inside = (x > 0) & (x < width - 1), (y > 0) & (y < height - 1)  # At the border there is only one neighbour.
    return np.stack([x + 0.5 + 0.25 * across * inside[0], y + 0.5 + 0.25 * down * inside[1]], axis=1)


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


def five_points(landmarks: Points) -> NDArray[np.float64]:
    """Returns eyes, nose tip and corners of the mouth, 5 x 2 pixels, from mesh landmarks."""
    return np.stack([landmarks[list(ids), :2].mean(0) for ids in _MESH]).astype(np.float64)


def align(image: Image, landmarks: Points) -> Image:
    """Turns and scales the face to the 112 x 112 template, by a similarity fitted by least squares."""
    transform = SimilarityTransform.from_estimate(TEMPLATE, five_points(landmarks))
    return np.rint(warp(image, transform, output_shape=(SIZE, SIZE), order=1, mode="edge", preserve_range=True)).astype(np.uint8)


def _square(landmarks: Points) -> Framing:
    """Returns the upright square round a face that networks of landmarks are trained on."""
    left, top, right, bottom = bounds_of(landmarks[:, :2])
    side = _ROOM * (right - left + bottom - top)
    return Framing((left + right) / 2, (top + bottom) / 2 - _RAISED * (bottom - top), side)


def _run(session: InferenceSession, file: str | Path, side: int, kind: str) -> list[NDArray[np.float32]]:
    """Returns what the network makes of one black picture. Raises InputError when it does not take one."""
    try:
        return session.run(None, {session.get_inputs()[0].name: np.zeros((1, 3, side, side), np.float32)})
    except Exception as error:  # The runtime's own errors have no common class.
        reason = str(error).splitlines()[0][:120]
        raise InputError(f"{file} does not take 1 x 3 x {side} x {side} pictures ({reason}): give {kind}") from None
