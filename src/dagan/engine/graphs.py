"""An engine that runs exported graphs in ONNX Runtime or OpenVINO.

Legend: N pictures, S side of the model's images, K keypoints. Pictures are uint8 S x S x 3 RGB.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from dagan.engine.base import Drawing, EncodedSource, Engine, check_batch_size, to_bytes, to_images
from dagan.engine.sessions import (
    DEPTH,
    ENCODER,
    GENERATOR,
    KEYPOINTS,
    ExportNote,
    Session,
    check_files,
    cpu_multiplies_bfloat16,
    open_session,
    require,
)
from dagan.errors import InputError
from dagan.models.keypoints import Keypoints, on_landmarks
from dagan.motion.openings import FaceKeypoints

# Larger batches cost memory on a CPU and gain nothing.
_BATCH_SIZE = 4


class GraphEngine(Engine):
    """Runs the graphs of an exported folder on the CPU.

    Each graph is read when it is first needed. Raises InputError for damaged files, and for a precision that the runtime does not have.
    """

    def __init__(self, folder: Path, note: ExportNote, runtime: str, precision: str = "auto", batch_size: int | None = None) -> None:
        check_batch_size(batch_size)
        require(runtime)
        self.name = note.name
        self.size = note.image_size
        self.keypoint_count = note.keypoints
        self.face = FaceKeypoints(note.config.keypoints.landmarks, note.config.keypoints.gains)
        self.has_depth = note.has_depth
        self.align_corners = note.config.align_corners
        self.depth_range = note.depth_range
        self.batch_size = batch_size or _BATCH_SIZE
        self.device = f"cpu ({runtime})"
        self._compute = choose_graph_precision(precision, runtime)
        self.precision = self._compute if note.precision == "float32" else f"{note.precision} and {self._compute}"
        self._folder, self._note, self._runtime = folder, note, runtime
        self._sessions: dict[str, Session] = {}

    @property
    def detector_digest(self) -> str:
        """Implements the method of `Engine`, which is documented there."""
        return self._note.detector

    def encode(self, picture: np.ndarray, places: np.ndarray | None = None) -> EncodedSource:
        """Implements the method of `Engine`, which is documented there."""
        image = self._images([picture])
        content = {**self._run(ENCODER, {"image": image}), "source_image": image}
        found = _keypoints(content["source_value"], content["source_jacobian"])
        if places is not None:
            found = on_landmarks(found, torch.from_numpy(places)[None])
            content["source_value"] = found.value.numpy()
        return EncodedSource(found, content)

    def keypoints(self, pictures: Sequence[np.ndarray]) -> Keypoints:
        """Implements the method of `Engine`, which is documented there."""
        found = self._run(KEYPOINTS, {"image": self._images(pictures)})
        return _keypoints(found["value"], found["jacobian"])

    def render(self, source: EncodedSource, keypoints: Keypoints) -> np.ndarray:
        """Implements the method of `Engine`, which is documented there."""
        return to_bytes(self.draw(source, keypoints).images).numpy()

    def draw(self, source: EncodedSource, keypoints: Keypoints) -> Drawing:
        """Implements the method of `Engine`, which is documented there."""
        driven = {"value": keypoints.value.numpy(), "jacobian": keypoints.jacobian.numpy(), **source.content}
        drawn = self._run(GENERATOR, driven)
        return Drawing(torch.from_numpy(drawn["result"]), torch.from_numpy(drawn["deformation"]))

    def disparity(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Implements the method of `Engine`, which is documented there."""
        if not self.has_depth:
            raise InputError(f"model {self.name!r} has no depth network: use one whose name does not end in -rgb")
        return self._run(DEPTH, {"image": self._images(pictures)})["disparity"][:, 0]

    def _images(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        return to_images(self.stacked(pictures)).numpy()

    def _run(self, graph: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if graph not in self._sessions:
            path = check_files(self._folder, self._note.graphs[graph])
            compute = "float32" if graph in self._note.quantised else self._compute
            self._sessions[graph] = open_session(path, self._runtime, compute)
        return self._sessions[graph].run(inputs)


def choose_graph_precision(name: str, runtime: str) -> str:
    """Returns the precision in which those convolutions compute that are not quantised. Raises InputError for an unknown one."""
    if name == "auto":
        return "bfloat16" if runtime == "openvino" and cpu_multiplies_bfloat16() else "float32"
    known = ("float32", "bfloat16") if runtime == "openvino" else ("float32",)
    if name not in known:
        raise InputError(f"--runtime {runtime} does not compute in {name!r}: use auto or {' or '.join(known)}")
    return name


def _keypoints(value: np.ndarray, jacobian: np.ndarray) -> Keypoints:
    return Keypoints(torch.from_numpy(value), torch.from_numpy(jacobian))
