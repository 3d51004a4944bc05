"""A model behind plain arrays: pictures in, keypoints, disparity maps or pictures out, one batch at a time.

Everything that animates or measures depth goes through a `Runner`; this is the one that computes with PyTorch.

Legend: N pictures, S side of the model's images, K keypoints. Pictures are uint8 S x S x 3 RGB.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch

from dagan.inference.runner import EncodedSource, Runner, check_batch_size, to_bytes
from dagan.models.dagan import DaGAN
from dagan.models.keypoints import Keypoints
from dagan.weights.digest import weights_digest
from dagan.weights.fold import fold, is_folded

_PRECISION_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
# Enough to fill an accelerator with 256 x 256 pictures; on a CPU larger batches cost memory and gain nothing.
_BATCH_SIZES = {"cuda": 16, "mps": 8}
_CPU_BATCH_SIZE = 4


class Engine(Runner):
    """Runs `model` on its own device, in its own precision.

    Raises InputError for a batch size below 1.
    """

    def __init__(self, model: DaGAN, batch_size: int | None = None) -> None:
        check_batch_size(batch_size)
        self._original = model  # its keypoint detector tells motion files apart, folded or not
        self._model = model.eval() if is_folded(model) else fold(model)
        self._device = next(model.parameters()).device
        self.name = model.config.name
        self.size = model.config.image_size
        self.keypoint_count = model.config.keypoints.count
        self.has_depth = model.config.use_depth
        self.depth_range = (model.config.depth.min_depth, model.config.depth.max_depth)
        self.batch_size = batch_size or _BATCH_SIZES.get(self._device.type, _CPU_BATCH_SIZE)
        self.device = str(self._device)
        self.precision = _PRECISION_NAMES.get(model.compute_dtype, str(model.compute_dtype))

    @cached_property
    def detector_digest(self) -> str:
        """SHA-256 of what finds keypoints (keypoint detector and depth network): equal digests find equal keypoints."""
        return weights_digest(self._original.keypoint_detector, self._original.depth_network)

    def encode(self, picture: np.ndarray) -> EncodedSource:
        """What `render` needs of a source picture, computed once."""
        source = self._model.encode_source(self._to_images([picture], self._device))
        return EncodedSource(_to_cpu(source.keypoints), source)

    def keypoints(self, pictures: Sequence[np.ndarray]) -> Keypoints:
        """Keypoints of N pictures, float32, on the CPU."""
        return _to_cpu(self._model.keypoints(self._to_images(pictures, self._device)))

    def render(self, source: EncodedSource, keypoints: Keypoints) -> np.ndarray:
        """N x S x S x 3 uint8: the source in the pose of each of N keypoint sets."""
        placed = Keypoints(keypoints.value.to(self._device), keypoints.jacobian.to(self._device))
        return to_bytes(self._model.drive(source.content, placed).image)

    def disparity(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """N x S x S float32 in (0, 1), near = large. Raises InputError for a model without a depth network."""
        return self._model.depth(self._to_images(pictures, self._device))[:, 0].float().cpu().numpy()


def _to_cpu(keypoints: Keypoints) -> Keypoints:
    return Keypoints(keypoints.value.float().cpu(), keypoints.jacobian.float().cpu())
