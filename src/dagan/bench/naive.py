"""The naive way to animate, which speed is compared with: what the released demo does.

float32, nothing folded, one frame at a time; the generator's source side is computed again for every frame, attention goes through
the full N x N map, and whole videos lie in memory: all frames are read before the first is computed, all computed before the first
is written. What the source's depth and keypoints are is found once, as there.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dagan.inference.transfer import transfer
from dagan.media.framing import to_square
from dagan.models.attention import CrossModalAttention
from dagan.models.dagan import DaGAN
from dagan.models.keypoints import Keypoints


class NaiveAttention(CrossModalAttention):
    """The same attention by its formula."""

    def forward(self, query: Tensor, features: Tensor) -> Tensor:
        """See CrossModalAttention."""
        key, value = self.key(features).relu().flatten(2), self.value(features).relu().flatten(2)
        weights = torch.softmax(query.flatten(2).transpose(1, 2) @ key, dim=-1)  # B x N x N
        return self.gamma * (value @ weights.transpose(1, 2)).reshape(features.shape) + features


class Naive:
    """Drives the picture `source` (S x S x 3 uint8) frame by frame, relative to the first; `model` stays as it is."""

    def __init__(self, model: DaGAN, source: np.ndarray) -> None:
        self._model = copy.deepcopy(model).eval()
        self._model.compute_dtype = torch.float32
        if self._model.generator.attention is not None:
            # No tensor changes, only what is computed from them.
            self._model.generator.attention.__class__ = NaiveAttention
        self.size = model.config.image_size
        self._device = next(model.parameters()).device
        self._image = self._tensor(source)
        self._encoded = self._model.encode_source(self._image)
        self._first: Keypoints | None = None

    @torch.inference_mode()
    def frame(self, picture: np.ndarray) -> np.ndarray:
        """S x S x 3 float32 in [0, 1]: the source in the pose of a picture."""
        driving = self._model.keypoints(self._tensor(picture))
        self._first = driving if self._first is None else self._first
        moved = transfer(self._encoded.keypoints, driving, self._first, relative=True, adapt_scale=True)
        again = self._model._encode(self._image, self._encoded.disparity, self._encoded.keypoints)
        return self._model._drive(again, moved).image[0].permute(1, 2, 0).cpu().numpy()

    def video(self, driving: Path, output: Path) -> int:
        """Reads, computes and writes a whole video; the number of frames."""
        from dagan.media.video import VideoWriter, open_video

        with open_video(driving) as reader:
            rate = reader.rate
            frames = [to_square(frame.filled, self.size).astype(np.float32) / 255 for frame in reader]
        results = [self.frame((frame * 255).astype(np.uint8)) for frame in frames]
        with VideoWriter(output, self.size, self.size, rate=rate, overwrite=True) as writer:
            for i, result in enumerate(_bytes(results)):
                writer.write(result, Fraction(i) / rate)
        return len(results)

    def _tensor(self, picture: np.ndarray) -> Tensor:
        return torch.from_numpy(picture.copy()).to(self._device).permute(2, 0, 1)[None].float() / 255


def _bytes(pictures: Iterable[np.ndarray]) -> list[np.ndarray]:
    return [np.rint(picture.clip(0, 1) * 255).astype(np.uint8) for picture in pictures]
