"""A model behind plain arrays: pictures in, keypoints, disparity maps or pictures out, one batch at a time.

Everything that animates or measures depth goes through this one class, so a faster way to compute goes under it: another class
with the same members (`name`, `size`, `batch_size`, ...) serves the jobs as well.

Legend: N pictures, S side of the model's images, K keypoints. Pictures are uint8 S x S x 3 RGB.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dagan.device import choose_batch_size, choose_workers
from dagan.errors import InputError
from dagan.inference.fast import prepare
from dagan.inference.replay import Replayed
from dagan.models.dagan import DaGAN
from dagan.models.keypoints import Keypoints

_PRECISION_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


@dataclass(frozen=True)
class EncodedSource:
    """A source picture made ready. keypoints: of that picture, batch 1, float32, on the CPU. content: the engine's own affair."""

    keypoints: Keypoints
    content: Any


class Engine:
    """Runs `model` on its own device, in its own precision.

    name: of the model. size: side S of its pictures. keypoint_count: K. has_depth: whether `disparity` works. batch_size: how
    many pictures to hand over at once; chosen for the device and the model's widest maps where it is not given. device, precision:
    where and how it computes, in words. workers: how many threads may compute at once with gain (see `on_workers`).
    Raises InputError for a batch size below 1.
    """

    def __init__(self, model: DaGAN, batch_size: int | None = None) -> None:
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch size is {batch_size}: must be at least 1")
        self._original = model  # its keypoint detector tells motion files apart, folded or not
        self._model = prepare(model)
        self._device = next(model.parameters()).device
        self.name = model.config.name
        self.size = model.config.image_size
        self.keypoint_count = model.config.keypoints.count
        self.has_depth = model.config.use_depth
        self.depth_range = (model.config.depth.min_depth, model.config.depth.max_depth)
        self.batch_size = batch_size or choose_batch_size(self._device, _widest_map(model))
        self.workers = choose_workers(self._device)
        self._find = self._replayed(self._find_keypoints)
        self.device = str(self._device)
        self.precision = _PRECISION_NAMES.get(model.compute_dtype, str(model.compute_dtype))

    @cached_property
    def detector_digest(self) -> str:
        """SHA-256 of what finds keypoints (keypoint detector and depth network): equal digests find equal keypoints."""
        digest = hashlib.sha256()
        parts = (self._original.keypoint_detector, self._original.depth_network)
        for module in parts:
            for key, tensor in () if module is None else sorted(module.state_dict().items()):
                digest.update(f"{key}{tuple(tensor.shape)}".encode())
                digest.update(np.ascontiguousarray(tensor.detach().cpu().float().numpy()).tobytes())
        return digest.hexdigest()

    def encode(self, picture: np.ndarray) -> EncodedSource:
        """What `render` needs of a source picture, computed once."""
        source = self._model.encode_source(_to_images(self._to_device([picture])))

        def draw(value: Tensor, jacobian: Tensor) -> tuple[Tensor]:
            return (_to_bytes(self._model.drive(source, Keypoints(value, jacobian)).image),)

        return EncodedSource(_keypoints(source.keypoints.value, source.keypoints.jacobian), self._replayed(draw))

    def keypoints(self, pictures: Sequence[np.ndarray]) -> Keypoints:
        """Keypoints of N pictures, float32, on the CPU."""
        return _keypoints(*self._find(self._to_device(pictures)))

    def render(self, source: EncodedSource, keypoints: Keypoints) -> np.ndarray:
        """N x S x S x 3 uint8: the source in the pose of each of N keypoint sets."""
        (pictures,) = source.content(keypoints.value.to(self._device), keypoints.jacobian.to(self._device))
        return _to_host(pictures).numpy()

    def disparity(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """N x S x S float32 in (0, 1), near = large. Raises InputError for a model without a depth network."""
        return self._model.depth(_to_images(self._to_device(pictures)))[:, 0].float().cpu().numpy()

    def _find_keypoints(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        found = self._model.keypoints(_to_images(batch))
        return found.value, found.jacobian

    def _to_device(self, pictures: Sequence[np.ndarray]) -> Tensor:
        for picture in pictures:
            if picture.shape != (self.size, self.size, 3) or picture.dtype != np.uint8:
                raise InputError(
                    f"a picture is {picture.dtype} {picture.shape}: model {self.name!r} takes uint8 {(self.size, self.size, 3)}"
                )
        batch = torch.from_numpy(np.stack(pictures))
        if self._device.type == "cuda":
            batch = batch.pin_memory()  # copied without the processor's help
        return batch.to(self._device, non_blocking=True)

    def _replayed(self, function: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
        return Replayed(function) if self._device.type == "cuda" else function


def _to_images(batch: Tensor) -> Tensor:
    """N x 3 x S x S float32 in [0, 1], channels last, from uint8 N x S x S x 3."""
    return batch.permute(0, 3, 1, 2).float() / 255


def _keypoints(value: Tensor, jacobian: Tensor) -> Keypoints:
    return Keypoints(value.float().cpu(), jacobian.float().cpu())


def _to_bytes(images: Tensor) -> Tensor:
    # Rounded on the device: a quarter of the bytes to bring back.
    return (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _to_host(pictures: Tensor) -> Tensor:
    if pictures.device.type != "cuda":
        return pictures.cpu()
    pinned = torch.empty(pictures.shape, dtype=pictures.dtype, pin_memory=True).copy_(pictures, non_blocking=True)
    torch.cuda.current_stream(pictures.device).synchronize()
    return pinned


def _widest_map(model: DaGAN) -> int:
    """Bytes of the generator's largest map for one picture."""
    config = model.config.generator
    scale = 1 if config.decoder == "pyramid" else 0  # the pyramid's finest convolutions work at half size
    width = min(config.max_width, config.width * 2**scale)
    return width * (model.config.image_size >> scale) ** 2 * model.compute_dtype.itemsize
