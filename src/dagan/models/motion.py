"""Dense motion from keypoints (METHOD section 4). Legend: B batch, K keypoints, h w motion size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dagan.config import MotionConfig
from dagan.geometry import coordinate_grid, gaussian_heatmap, inverse_2x2, sample
from dagan.models.blocks import BandLimitedDown, Hourglass
from dagan.models.keypoints import Keypoints


@dataclass(frozen=True)
class Motion:
    """deformation: B x h x w x 2, where each output place looks in the source; occlusion: B x 1 x h x w in (0, 1), 1 = visible;
    mask: B x (K + 1) x h x w, shares of the background and the K keypoint motions, summing to 1."""

    deformation: Tensor
    occlusion: Tensor
    mask: Tensor


def sparse_motions(source: Keypoints, driving: Keypoints, size: tuple[int, int]) -> Tensor:
    """B x (K + 1) x h x w x 2: T_0 = identity, T_k(z) = p_S + J_S J_D^-1 (z - p_D), in float32."""
    grid = coordinate_grid(*size, device=driving.value.device)
    batch, count = driving.value.shape[:2]
    linear = source.jacobian.float() @ inverse_2x2(driving.jacobian.float())
    offset = grid - driving.value.float()[:, :, None, None]
    moved = (linear[:, :, None, None] * offset[..., None, :]).sum(-1) + source.value.float()[:, :, None, None]
    return torch.cat([grid.expand(batch, 1, *size, 2), moved.reshape(batch, count, *size, 2)], dim=1)


class DenseMotion(nn.Module):
    """(small source image, source keypoints, driving keypoints) -> Motion."""

    def __init__(self, config: MotionConfig, keypoints: int, factor: int, align_corners: bool) -> None:
        super().__init__()
        self.config = config
        self.align_corners = align_corners
        self.down = BandLimitedDown(3, factor)
        self.hourglass = Hourglass(config.hourglass, (keypoints + 1) * 4)
        self.mask = nn.Conv2d(self.hourglass.channels, keypoints + 1, config.kernel, padding=config.kernel // 2)
        self.occlusion = nn.Conv2d(self.hourglass.channels, 1, config.kernel, padding=config.kernel // 2)

    def forward(self, small: Tensor, source: Keypoints, driving: Keypoints) -> Motion:
        """small: source image downsampled by `self.down`, B x 3 x h x w."""
        size = (small.shape[-2], small.shape[-1])
        motions = sparse_motions(source, driving, size)
        batch, count = motions.shape[:2]
        warped = sample(
            small[:, None].expand(batch, count, *small.shape[1:]).flatten(0, 1), motions.flatten(0, 1), align_corners=self.align_corners
        )
        heatmaps = self._heatmap_difference(source, driving, size).to(warped.dtype)
        inputs = torch.cat([heatmaps[:, :, None], warped.reshape(batch, count, 3, *size)], dim=2).flatten(1, 2)
        features = self.hourglass(inputs)
        mask = torch.softmax(self.mask(features).float(), dim=1)
        deformation = (mask[..., None] * motions).sum(1)
        return Motion(deformation, torch.sigmoid(self.occlusion(features).float()), mask)

    def _heatmap_difference(self, source: Keypoints, driving: Keypoints, size: tuple[int, int]) -> Tensor:
        """B x (K + 1) x h x w: driving minus source, zero for the background."""
        variance = self.config.variance
        difference = gaussian_heatmap(driving.value.float(), size, variance) - gaussian_heatmap(source.value.float(), size, variance)
        return torch.cat([torch.zeros_like(difference[:, :1]), difference], dim=1)
