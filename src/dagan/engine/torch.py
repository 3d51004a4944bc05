"""The engine that computes with PyTorch: pictures go in; keypoints, disparity maps or pictures come out, one batch at a time.

On a CUDA device functions of tensors are recorded once and then replayed, so that one launch takes the place of hundreds. At small
batches a GPU finishes a layer before Python has asked for the next one. A CUDA graph removes the asking.

Legend: N pictures, S side of the model's images, K keypoints. Pictures are uint8 S x S x 3 RGB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dagan.device import choose_batch_size, choose_workers
from dagan.engine.base import Drawing, EncodedSource, Engine, check_batch_size, to_bytes, to_images
from dagan.engine.cpu.fast import prepare
from dagan.engine.cpu.pyramid import watch_source
from dagan.models.dagan import DaGAN
from dagan.models.keypoints import Keypoints, on_landmarks
from dagan.motion.openings import FaceKeypoints
from dagan.weights.files import weights_digest

_PRECISION_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16", torch.int8: "int8"}


@dataclass(frozen=True)
class _Pencils:
    """Two functions that draw one source. Both take values and Jacobians on the device and give tensors there."""

    pictures: Callable[..., tuple[Tensor, ...]]
    """Gives N x S x S x 3 uint8."""
    drawing: Callable[..., tuple[Tensor, ...]]
    """Gives what `Drawing` holds."""


class TorchEngine(Engine):
    """Runs `model` on its own device, in its own precision.

    `batch_size` is chosen for the device and for the size of the model's largest map where it is not given. The content of an
    `EncodedSource` is two functions that draw (`_Pencils`). Raises InputError for a batch size below 1.
    """

    def __init__(self, model: DaGAN, batch_size: int | None = None) -> None:
        check_batch_size(batch_size)
        self._original = model  # Motion files are told apart by the digest of its keypoint detector, which folding would change.
        self._model = prepare(model)
        self._device = next(model.parameters()).device
        self.name = model.config.name
        self.size = model.config.image_size
        self.keypoint_count = model.config.keypoints.count
        self.face = FaceKeypoints(model.config.keypoints.landmarks, model.config.keypoints.gains)
        self.has_depth = model.config.use_depth
        self.align_corners = model.config.align_corners
        self.depth_range = (model.config.depth.min_depth, model.config.depth.max_depth)
        self.batch_size = batch_size or choose_batch_size(self._device, _widest_map(model))
        self.workers = choose_workers(self._device)
        self.device = str(self._device)
        self.precision = _PRECISION_NAMES.get(model.compute_dtype, str(model.compute_dtype))
        self._find = self._replayed(self._find_keypoints)

    @cached_property
    def detector_digest(self) -> str:
        """Implements the method of `Engine`, which is documented there."""
        return weights_digest(self._original.keypoint_detector, self._original.depth_network)

    def encode(self, picture: np.ndarray, places: np.ndarray | None = None) -> EncodedSource:
        """Implements the method of `Engine`, which is documented there."""
        source = self._model.encode_source(to_images(self._to_device([picture])))
        if places is not None:
            source = replace(source, keypoints=on_landmarks(source.keypoints, torch.from_numpy(places)[None].to(self._device)))
        watch_source(self._model, source)

        def draw(value: Tensor, jacobian: Tensor) -> tuple[Tensor]:
            return (to_bytes(self._model.drive(source, Keypoints(value, jacobian)).image),)

        def draw_with_motion(value: Tensor, jacobian: Tensor) -> tuple[Tensor, Tensor]:
            output = self._model.drive(source, Keypoints(value, jacobian))
            return output.image.float(), output.deformation.float()

        pencils = _Pencils(self._replayed(draw), self._replayed(draw_with_motion))
        return EncodedSource(_to_cpu(source.keypoints.value, source.keypoints.jacobian), pencils)

    def keypoints(self, pictures: Sequence[np.ndarray]) -> Keypoints:
        """Implements the method of `Engine`, which is documented there."""
        return _to_cpu(*self._find(self._to_device(pictures)))

    def render(self, source: EncodedSource, keypoints: Keypoints) -> np.ndarray:
        """Implements the method of `Engine`, which is documented there."""
        (pictures,) = source.content.pictures(keypoints.value.to(self._device), keypoints.jacobian.to(self._device))
        return _to_host(pictures).numpy()

    def draw(self, source: EncodedSource, keypoints: Keypoints) -> Drawing:
        """Implements the method of `Engine`, which is documented there."""
        return Drawing(*source.content.drawing(keypoints.value.to(self._device), keypoints.jacobian.to(self._device)))

    def disparity(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Implements the method of `Engine`, which is documented there."""
        return self._model.depth(to_images(self._to_device(pictures)))[:, 0].float().cpu().numpy()

    def _find_keypoints(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        found = self._model.keypoints(to_images(batch))
        return found.value, found.jacobian

    def _to_device(self, pictures: Sequence[np.ndarray]) -> Tensor:
        batch = self.stacked(pictures)
        if self._device.type == "cuda":
            batch = batch.pin_memory()  # Pinned memory is copied without the processor's help.
        return batch.to(self._device, non_blocking=True)

    def _replayed(self, function: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
        return Replayed(function) if self._device.type == "cuda" else function


def _to_cpu(value: Tensor, jacobian: Tensor) -> Keypoints:
    return Keypoints(value.float().cpu(), jacobian.float().cpu())


def _to_host(pictures: Tensor) -> Tensor:
    if pictures.device.type != "cuda":
        return pictures.cpu()
    pinned = torch.empty(pictures.shape, dtype=pictures.dtype, pin_memory=True).copy_(pictures, non_blocking=True)
    torch.cuda.current_stream(pictures.device).synchronize()
    return pinned


def _widest_map(model: DaGAN) -> int:
    """Returns the bytes that the generator's largest map takes for one picture."""
    config = model.config.generator
    scale = 1 if config.decoder == "pyramid" else 0  # The pyramid's finest convolutions work at half the size.
    width = min(config.max_width, config.width * 2**scale)
    return width * (model.config.image_size >> scale) ** 2 * model.compute_dtype.itemsize


Tensors = tuple[Tensor, ...]
# A function runs this many times on inputs of one shape before it is recorded, because a shape that never comes back is not worth it.
_CALLS_BEFORE = 2
_WARM_UP = 2  # The function runs so often on the recording stream first, while libraries choose algorithms and workspaces.


class Record(Protocol):
    """Records a function for inputs of one shape. The result computes the function for other inputs of that shape."""

    def __call__(self, function: Callable[..., Tensors], inputs: Tensors) -> Callable[..., Tensors]: ...


class Replayed:
    """`function`, recorded for each shape of its inputs that comes back, and replayed from then on.

    Where recording fails (for want of memory, or because an operation cannot be recorded) `function` goes on being called for that
    shape. Several threads must not call it at once.
    """

    def __init__(self, function: Callable[..., Tensors], record: Record | None = None) -> None:
        self._function = function
        self._record = record or record_graph
        self._calls: dict[tuple[torch.Size, ...], int] = {}
        self._recorded: dict[tuple[torch.Size, ...], Callable[..., Tensors]] = {}

    def __call__(self, *inputs: Tensor) -> Tensors:
        shape = tuple(tensor.shape for tensor in inputs)
        calls = self._calls[shape] = self._calls.get(shape, 0) + 1
        if calls == _CALLS_BEFORE + 1:
            try:
                self._recorded[shape] = self._record(self._function, inputs)
            except RuntimeError:  # This includes running out of memory.
                self._recorded[shape] = self._function
        return self._recorded.get(shape, self._function)(*inputs)


def record_graph(function: Callable[..., Tensors], inputs: Tensors) -> Callable[..., Tensors]:
    """Returns the function as a CUDA graph. Raises RuntimeError where it cannot be recorded."""
    held = tuple(tensor.clone() for tensor in inputs)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            function(*held)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # Only calls of this thread are recorded, because others may use the device meanwhile (depth does for --side-by-side).
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outputs = function(*held)

    def replay(*given: Tensor) -> Tensors:
        for target, tensor in zip(held, given, strict=True):
            target.copy_(tensor)
        graph.replay()
        return tuple(output.clone() for output in outputs)  # The next replay overwrites `outputs`.

    return replay
