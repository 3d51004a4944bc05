"""Keypoints, which are found on colour and depth (docs/method.md#keypoints). Legend: B batch, K keypoints, H W image, h w heatmap."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dagan.config import KeypointConfig
from dagan.geometry import coordinate_grid
from dagan.models.blocks import BandLimitedDown, Hourglass, SameBlock


@dataclass(frozen=True)
class Keypoints:
    """The keypoints of a batch of images."""

    value: Tensor
    """Their positions (x, y) in [-1, 1], B x K x 2."""
    jacobian: Tensor
    """Their local affine frames, B x K x 2 x 2."""

    def __getitem__(self, index: slice | Tensor) -> Keypoints:
        """Returns a part of the batch."""
        return Keypoints(self.value[index], self.jacobian[index])


def on_landmarks(keypoints: Keypoints, landmarks: Tensor) -> Keypoints:
    """Puts the first L keypoints on landmarks, B x L x 2 in [-1, 1], where those are finite. Jacobians stay."""
    count = landmarks.shape[1]
    first = keypoints.value[:, :count]
    placed = torch.where(landmarks.isfinite(), landmarks.to(first.dtype), first)
    return Keypoints(torch.cat([placed, keypoints.value[:, count:]], dim=1), keypoints.jacobian)


class KeypointDetector(nn.Module):
    """Finds keypoints in images, B x 3 x H x W, with disparity, B x 1 x H x W, or None. The hourglass works `factor` times smaller.

    Disparity is a fourth channel, or with `config.geometry` it has an hourglass of its own, whose features are fused with those of the
    image before the heads.
    """

    def __init__(self, config: KeypointConfig, factor: int, sees_depth: bool) -> None:
        super().__init__()
        self.config = config
        channels = 4 if sees_depth else 3
        self.down = BandLimitedDown(channels, factor)
        branches = sees_depth and config.geometry is not None
        self.hourglass = Hourglass(config.hourglass, 3 if branches else channels)
        width = self.hourglass.channels
        self.geometry: Hourglass | None = None
        self.fusion: SameBlock | None = None
        if config.geometry is not None and branches:
            self.geometry = Hourglass(config.geometry, 1)
            # The heads see as many channels as those of a single branch would.
            self.fusion = SameBlock(width + self.geometry.channels, width + 1)
            width += 1
        self.heatmap = nn.Conv2d(width, config.count, config.kernel)
        self.jacobian = nn.Conv2d(width, 4 * config.count, config.kernel)
        nn.init.zeros_(self.jacobian.weight)
        assert self.jacobian.bias is not None
        with torch.no_grad():
            self.jacobian.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 1.0]).repeat(config.count))

    def forward(self, image: Tensor, disparity: Tensor | None) -> Keypoints:
        x = image if disparity is None else torch.cat([image, disparity.to(image.dtype)], dim=1)
        features = self._features(self.down(x))
        batch, count = image.shape[0], self.config.count  # The shape is used, and not len, because exporters follow it.
        logits, frames = self.heatmap(features), self.jacobian(features)
        # Positions and frames are in float32, because bfloat16 is too coarse for them.
        with torch.autocast(image.device.type, enabled=False):
            h, w = logits.shape[-2:]
            weights = torch.softmax(logits.float().reshape(batch, count, h * w) / self.config.temperature, dim=-1)
            value = weights @ coordinate_grid(h, w, device=image.device).reshape(h * w, 2)
            # All heatmaps are multiplied with all frames, and each keypoint's own product is kept. That takes fifteen times the
            # multiplications but a third of the time, because one product per image reads the frames once, as the convolution left them.
            planes = frames.float().permute(0, 2, 3, 1).reshape(batch, h * w, 4 * count)
            jacobian = (weights @ planes).reshape(batch, count, count, 4).diagonal(dim1=1, dim2=2).transpose(1, 2)
        return Keypoints(value, jacobian.reshape(batch, count, 2, 2))

    def _features(self, small: Tensor) -> Tensor:
        """Returns what the heads see of a small image, with its disparity as the fourth channel where there is one."""
        if self.geometry is None or self.fusion is None:
            return self.hourglass(small)
        return self.fusion(torch.cat([self.hourglass(small[:, :3]), self.geometry(small[:, 3:])], dim=1))
