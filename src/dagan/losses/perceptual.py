"""Perceptual loss: L1 between frozen features on an image pyramid (docs/method.md#losses)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dagan.losses.features import FeatureNetwork


class PerceptualLoss(nn.Module):
    """(result, target), B x 3 x H x W in [0, 1] -> one number: L1 over layers and the scales 1, 1/2, .. of the pyramid.

    relative: each layer's distance is divided by the target's mean activation there, so that layers of networks whose
    activations differ by orders of magnitude (SqueezeNet's do) weigh alike; without it the paper's plain sum.
    """

    def __init__(self, network: FeatureNetwork, scales: int = 4, relative: bool = False) -> None:
        super().__init__()
        self.network = network
        self.scales = scales
        self.relative = relative

    def forward(self, result: Tensor, target: Tensor) -> Tensor:
        total = result.new_zeros((), dtype=torch.float32)
        for scale in range(self.scales):
            if scale:
                result, target = F.avg_pool2d(result, 2), F.avg_pool2d(target, 2)
            with torch.no_grad():
                targets = self.network(target)
            for found, wanted in zip(self.network(result), targets, strict=True):
                distance = (found - wanted).abs().mean(dtype=torch.float32)
                total = total + (distance / (wanted.abs().mean(dtype=torch.float32) + 1e-6) if self.relative else distance)
        return total
