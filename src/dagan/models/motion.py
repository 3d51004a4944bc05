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


def sparse_motions(source: Keypoints, driving: Keypoints) -> Tensor:
    """B x (K + 1) x 2 x 3, the affine maps (z, 1) -> T_k(z) in float32: T_0 = identity, T_k(z) = p_S + J_S J_D^-1 (z - p_D)."""
    linear = source.jacobian.float() @ inverse_2x2(driving.jacobian.float())
    offset = source.value.float()[..., None] - linear @ driving.value.float()[..., None]
    maps = torch.cat([linear, offset], dim=-1)
    identity = torch.eye(2, 3, device=maps.device).expand(maps.shape[0], 1, 2, 3)
    return torch.cat([identity, maps], dim=1)


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
        heatmaps = self._heatmap_difference(source, driving, size)
        batch, count = heatmaps.shape[:2]
        grid = coordinate_grid(*size, device=small.device).reshape(-1, 2)
        places = torch.cat([grid, torch.ones_like(grid[:, :1])], dim=1)  # N x 3: (x, y, 1)
        with torch.autocast(small.device.type, enabled=False):
            maps = sparse_motions(source, driving)
            motions = (maps.reshape(-1, 3) @ places.T).reshape(batch * count, 2, -1).transpose(1, 2).reshape(batch * count, *size, 2)
        copies = small[:, None].expand(batch, count, *small.shape[1:]).flatten(0, 1)
        warped = sample(copies, motions, align_corners=self.align_corners).reshape(batch, count, 3, *size)
        features = self.hourglass(torch.cat([heatmaps[:, :, None].to(warped.dtype), warped], dim=2).flatten(1, 2))
        mask = torch.softmax(self.mask(features).float(), dim=1)
        with torch.autocast(small.device.type, enabled=False):
            # Affine maps mix like their results: mix six numbers per place, then look up once.
            mixed = (mask.flatten(2).transpose(1, 2) @ maps.reshape(batch, count, 6)).reshape(batch, -1, 2, 3)
            deformation = (mixed * places[:, None]).sum(-1).reshape(batch, *size, 2)
        return Motion(deformation, torch.sigmoid(self.occlusion(features).float()), mask)

    def _heatmap_difference(self, source: Keypoints, driving: Keypoints, size: tuple[int, int]) -> Tensor:
        """B x (K + 1) x h x w: driving minus source, zero for the background."""
        variance = self.config.variance
        difference = gaussian_heatmap(driving.value.float(), size, variance) - gaussian_heatmap(source.value.float(), size, variance)
        return torch.cat([torch.zeros_like(difference[:, :1]), difference], dim=1)
