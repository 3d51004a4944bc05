"""LPIPS (Zhang et al., CVPR 2018, version 0.1) on SqueezeNet, VGG-16 or AlexNet features, with the linear weights that torchmetrics ships.

torchmetrics' own class needs torchvision for the feature network; ours reads the same weights from a file instead.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from dagan.losses.features import FeatureNetwork

LpipsNetwork = Literal["squeezenet", "vgg16", "alexnet"]
_LINEAR = {"squeezenet": "squeeze.pth", "vgg16": "vgg.pth", "alexnet": "alex.pth"}


class LPIPS(nn.Module):
    """(a, b) B x 3 x H x W in [0, 1] -> B distances, 0 = equal; lower is better.

    file: the network's weights with torchvision's key names; None takes SqueezeNet's bundled ones.
    Raises InputError when the file is missing or does not fit.
    """

    def __init__(self, file: str | Path | None = None, network: LpipsNetwork = "squeezenet") -> None:
        super().__init__()
        # The feature network's mean and deviation on [0, 1] are LPIPS's shift and scale on [-1, 1].
        self.network = FeatureNetwork(network, file)
        with resources.as_file(resources.files("torchmetrics.functional.image") / "lpips_models" / _LINEAR[network]) as weights:
            linear = torch.load(weights, map_location="cpu", weights_only=True)
        count = len(self.network.taps)
        self.linear = nn.ParameterList(linear[f"lin{i}.model.1.weight"] for i in range(count)).requires_grad_(False)

    @torch.inference_mode()
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        total = torch.zeros(len(a), device=a.device)
        for weight, x, y in zip(self.linear, self.network(a), self.network(b), strict=True):
            difference = (_unit(x) - _unit(y)).square()
            total += (difference * weight).sum(1).mean((1, 2))
        return total


def _unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)
