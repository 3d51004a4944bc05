"""Keypoints, which are found on colour and depth (docs/method.md#keypoints), and dense motion from them (docs/method.md#dense-motion).

Legend: B batch, K keypoints, H W image, h w heatmap or motion size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dagan.config import KeypointConfig, MotionConfig
from dagan.geometry import coordinate_grid, gaussian_heatmap, inverse_2x2, sample
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


@dataclass(frozen=True)
class Motion:
    """The motion of every place."""

    deformation: Tensor
    """Where each place of the output looks in the source, B x h x w x 2."""
    occlusion: Tensor
    """What can be seen, B x 1 x h x w in (0, 1); 1 is visible."""
    mask: Tensor
    """The shares of the background and of the K keypoints' motions, B x (K + 1) x h x w. They sum to 1."""


def sparse_motions(source: Keypoints, driving: Keypoints) -> Tensor:
    """Returns the affine maps (z, 1) -> T_k(z), B x (K + 1) x 2 x 3 in float32: T_0 = identity, T_k(z) = p_S + J_S J_D^-1 (z - p_D)."""
    linear = source.jacobian.float() @ inverse_2x2(driving.jacobian.float())
    offset = source.value.float()[..., None] - linear @ driving.value.float()[..., None]
    maps = torch.cat([linear, offset], dim=-1)
    identity = torch.eye(2, 3, device=maps.device).expand(maps.shape[0], 1, 2, 3)
    return torch.cat([identity, maps], dim=1)


class DenseMotion(nn.Module):
    """Estimates the `Motion` from the small source image, its keypoints, and driving keypoints."""

    def __init__(self, config: MotionConfig, keypoints: int, factor: int, align_corners: bool, landmarks: int = 0) -> None:
        """Builds it for K `keypoints`, the first `landmarks` of which stand on landmarks. `factor` is image size over motion size."""
        super().__init__()
        self.config = config
        self.landmarks = landmarks
        self.align_corners = align_corners
        self.down = BandLimitedDown(3, factor)
        self.hourglass = Hourglass(config.hourglass, (keypoints + 1) * 4)
        self.mask = nn.Conv2d(self.hourglass.channels, keypoints + 1, config.kernel, padding=config.kernel // 2)
        self.occlusion = nn.Conv2d(self.hourglass.channels, 1, config.kernel, padding=config.kernel // 2)

    def forward(self, small: Tensor, source: Keypoints, driving: Keypoints) -> Motion:
        """`small` is the source image, reduced by `self.down` to B x 3 x h x w."""
        size = (small.shape[-2], small.shape[-1])
        batch, count = driving.value.shape[0], driving.value.shape[1] + 1  # The shape is used, and not len, because exporters follow it.
        grid = coordinate_grid(*size, device=small.device).reshape(-1, 2).T
        places = torch.cat([grid, torch.ones_like(grid[:1])])  # This is 3 x N: (x, y, 1).
        with torch.autocast(small.device.type, enabled=False):
            maps = sparse_motions(source, driving)
            # All motions of an image are put below one another, so that one look-up does without a copy of the image for each.
            motions = (maps.reshape(-1, 3) @ places).reshape(batch, count, 2, -1).transpose(2, 3)
        stacked = motions.reshape(batch, count * size[0], size[1], 2)
        # Planes of colour follow each other, because the result is cut apart plane by plane.
        warped = sample(small.contiguous(), stacked, align_corners=self.align_corners).reshape(batch, 3, count, *size)
        mask, occlusion = self.shares(self.join(self._heatmap_difference(source, driving, size), warped))
        with torch.autocast(small.device.type, enabled=False):
            # Mixing affine maps gives the same as mixing their results, so six numbers per place are mixed and applied once.
            mixed = maps.reshape(batch, count, 6).transpose(1, 2) @ mask.flatten(2)  # B 6 N: all that is looked up lies plane by plane
            deformation = (mixed.reshape(batch, 2, 3, -1) * places).sum(2).reshape(batch, 2, *size).permute(0, 2, 3, 1)
        return Motion(deformation, occlusion, mask)

    def join(self, heatmaps: Tensor, warped: Tensor) -> Tensor:
        """Joins heatmaps, B x (K + 1) x h x w, and warped images, B x 3 x (K + 1) x h x w, to what the hourglass takes."""
        return torch.cat([heatmaps[:, :, None].to(warped.dtype), warped.transpose(1, 2)], dim=2).flatten(1, 2)

    def shares(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Computes mask and occlusion, as in `Motion`, from what `join` gave."""
        features = self.hourglass(x)
        return torch.softmax(self.mask(features).float(), dim=1), torch.sigmoid(self.occlusion(features).float())

    def _heatmap_difference(self, source: Keypoints, driving: Keypoints, size: tuple[int, int]) -> Tensor:
        """Returns driving minus source heatmaps, B x (K + 1) x h x w. They are zero for the background."""
        difference = self._heatmaps(driving.value.float(), size) - self._heatmaps(source.value.float(), size)
        return torch.cat([torch.zeros_like(difference[:, :1]), difference], dim=1)

    def _heatmaps(self, value: Tensor, size: tuple[int, int]) -> Tensor:
        narrow, count = self.config.landmark_variance, self.landmarks
        if narrow is None or count == 0:
            return gaussian_heatmap(value, size, self.config.variance)
        parts = [gaussian_heatmap(value[:, :count], size, narrow), gaussian_heatmap(value[:, count:], size, self.config.variance)]
        return torch.cat(parts, dim=1)
