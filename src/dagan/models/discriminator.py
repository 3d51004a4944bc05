"""Patch discriminator conditioned on the driving keypoints (docs/method.md#discriminator)."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dagan.geometry import gaussian_heatmap


class Discriminator(nn.Module):
    """(image B x 3 x H x W, keypoint positions B x K x 2) -> (features of the four convolutions, prediction B x 1 x h x w)."""

    def __init__(self, keypoints: int, width: int = 64, max_width: int = 512, variance: float = 0.01) -> None:
        super().__init__()
        self.variance = variance
        widths = [3 + keypoints] + [min(max_width, width * 2**i) for i in range(4)]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 4) for a, b in pairwise(widths))
        self.norms = nn.ModuleList([nn.Identity(), *[nn.InstanceNorm2d(w, affine=True) for w in widths[2:]]])
        self.final = nn.Conv2d(widths[-1], 1, 1)

    def forward(self, image: Tensor, keypoints: Tensor) -> tuple[list[Tensor], Tensor]:
        heatmaps = gaussian_heatmap(keypoints.float(), (image.shape[-2], image.shape[-1]), self.variance)
        x = torch.cat([image, heatmaps.to(image.dtype)], dim=1)
        features = []
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = F.leaky_relu(norm(conv(x)), 0.2)
            if i < len(self.convs) - 1:
                x = F.avg_pool2d(x, 2)
            features.append(x)
        return features, self.final(x)
