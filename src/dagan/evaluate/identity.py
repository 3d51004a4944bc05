"""Identity embeddings, for AED and CSIM (docs/method.md#evaluation), by an ONNX network that is given by path (none is bundled)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from skimage.transform import SimilarityTransform, warp

from dagan.errors import InputError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# Where eyes, nose and mouth corners lie in the 112 x 112 crops that ArcFace networks are trained on.
TEMPLATE = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])
SIZE = 112
# The same five points in the 478-point mesh: each eye as the mean of its corners, nose tip, mouth corners (viewer's left first).
_MESH = ((33, 133), (362, 263), (1,), (61,), (291,))


class IdentityNetwork:
    """Aligned faces -> unit embeddings. Input of the network: 112 x 112 RGB, (x - 127.5) / 128, NCHW."""

    def __init__(self, file: str | Path) -> None:
        """Raises InputError when the file is missing or not an ONNX network that turns one such picture into one vector."""
        self.session = open_network(file, "face recognition network (112 x 112 input)")
        self.input = self.session.get_inputs()[0].name
        try:
            shapes = [found.shape for found in self.session.run(None, {self.input: np.zeros((1, 3, SIZE, SIZE), np.float32)})]
        except Exception as error:  # the runtime's own errors have no common class
            reason = str(error).splitlines()[0][:120]
            raise InputError(f"{file} does not take 1 x 3 x 112 x 112 pictures ({reason}): give a face recognition network") from None
        if len(shapes) != 1 or len(shapes[0]) != 2:
            raise InputError(f"{file} does not turn a picture into one vector, but into {shapes}: give a face recognition network")

    def embed(self, image: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> NDArray[np.float32]:
        """Unit vector of the face in `image` (H x W x 3) with mesh `landmarks` (478 x >= 2, pixels)."""
        face = (align(image, landmarks).astype(np.float32) - 127.5) / 128
        (vector,) = self.session.run(None, {self.input: face.transpose(2, 0, 1)[None]})
        return vector[0] / np.linalg.norm(vector[0])


def open_network(file: str | Path, kind: str) -> InferenceSession:
    """An ONNX network on the CPU, one thread: figures do not depend on the machine's cores. Raises InputError when the file is
    missing or no network; `kind` says what was looked for."""
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
    """Eyes, nose tip, mouth corners, 5 x 2 pixels, from mesh landmarks 478 x >= 2."""
    return np.stack([landmarks[list(ids), :2].mean(0) for ids in _MESH]).astype(np.float64)


def align(image: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> NDArray[np.uint8]:
    """The face turned and scaled to the 112 x 112 template by a least-squares similarity."""
    transform = SimilarityTransform.from_estimate(TEMPLATE, five_points(landmarks))
    return np.rint(warp(image, transform, output_shape=(SIZE, SIZE), order=1, mode="edge", preserve_range=True)).astype(np.uint8)
