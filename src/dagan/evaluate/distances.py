"""Distances in features of networks: LPIPS between two pictures, and the Fréchet distance between two sets of pictures.

LPIPS (Zhang et al., CVPR 2018, version 0.1) uses features of SqueezeNet, VGG-16 or AlexNet with the linear weights that torchmetrics
ships. The class in torchmetrics needs torchvision for the feature network; this one reads the network's weights from a file instead.

The Fréchet distance (Heusel et al. 2017) uses the features of whichever network is given. Its figures can be compared only between runs
with the same network and the same number of frames. They are not those of Inception.

Legend: N pictures, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from dagan.losses.gan import FeatureNetwork
from dagan.media.face_networks import open_network

LpipsNetwork = Literal["squeezenet", "vgg16", "alexnet"]
_LINEAR = {"squeezenet": "squeeze.pth", "vgg16": "vgg.pth", "alexnet": "alex.pth"}


class LPIPS(nn.Module):
    """Measures the distances, B numbers, of pictures a and b, both B x 3 x H x W in [0, 1]. 0 means equal; lower is better.

    `file` holds the network's weights under torchvision's names; None takes SqueezeNet's bundled ones. Raises InputError when the file is
    missing or does not fit.
    """

    def __init__(self, file: str | Path | None = None, network: LpipsNetwork = "squeezenet") -> None:
        super().__init__()
        # The feature network normalises [0, 1] by mean and deviation. LPIPS does the same by a shift and a scale on [-1, 1].
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


Features = NDArray[np.float32]
Extractor = Callable[[torch.Tensor], Features]


@dataclass
class Moments:
    """What the Fréchet distance needs to know of a set of vectors, however many there are."""

    count: int = 0
    """The number of vectors."""
    total: NDArray[np.float64] | float = 0.0
    """Their sum, D."""
    products: NDArray[np.float64] | float = 0.0
    """The sum of their outer products, D x D."""

    def add(self, features: Features) -> None:
        """Adds N x D vectors."""
        wide = features.astype(np.float64)
        self.count += len(wide)
        self.total = self.total + wide.sum(0)
        self.products = self.products + wide.T @ wide

    def mean_and_covariance(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns the mean, D, and the covariance, D x D, with N - 1 in its denominator."""
        mean = np.asarray(self.total) / self.count
        covariance = (np.asarray(self.products) - self.count * np.outer(mean, mean)) / (self.count - 1)
        return mean, covariance


def frechet_distance(a: Moments, b: Moments) -> float | None:
    """Returns |mean difference|^2 + trace(A + B - 2 sqrt(A B)), which is at least 0; None when a set has fewer than 2 vectors."""
    if min(a.count, b.count) < 2:
        return None
    (mean_a, cov_a), (mean_b, cov_b) = a.mean_and_covariance(), b.mean_and_covariance()
    # sqrt(A B) has the trace of sqrt(sqrt(A) B sqrt(A)). That is symmetric, and so exact even where few vectors make A and B singular.
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ cov_b @ root), 0, None)).sum()
    return max(0.0, float(np.square(mean_a - mean_b).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross))


def squeezenet_features(network: FeatureNetwork) -> Extractor:
    """Returns a function from B x 3 x H x W in [0, 1] to B x 512, the means of the last layer over the picture."""

    @torch.inference_mode()
    def extract(images: torch.Tensor) -> Features:
        return network(images)[-1].mean((2, 3)).float().cpu().numpy()

    return extract


def onnx_features(file: Path) -> Extractor:
    """Returns a function from B x 3 x H x W in [0, 1] to B x D features of an ONNX network. Features that are maps are averaged.

    Pictures are resized where the network's input has a fixed size. Raises InputError as `open_network` does.
    """
    session = open_network(file, "feature network")
    inputs = session.get_inputs()[0]
    height, width = inputs.shape[2:] if len(inputs.shape) == 4 else (None, None)
    fixed = (height, width) if isinstance(height, int) and isinstance(width, int) else None

    def extract(images: torch.Tensor) -> Features:
        if fixed and images.shape[2:] != fixed:
            images = F.interpolate(images, fixed, mode="bilinear", align_corners=False, antialias=True)
        found = [session.run(None, {inputs.name: image[None].float().cpu().numpy()})[0] for image in images]
        values = np.concatenate(found).astype(np.float32)
        return values.mean((2, 3)) if values.ndim == 4 else values.reshape(len(values), -1)

    return extract
