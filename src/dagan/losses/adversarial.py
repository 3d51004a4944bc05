"""Least-squares GAN losses and feature matching (docs/method.md#losses)."""

from __future__ import annotations

import torch
from torch import Tensor


def discriminator_loss(real: Tensor, generated: Tensor) -> Tensor:
    """mean (1 - D(real))^2 + D(generated)^2, for predictions of any shape."""
    return ((1 - real.float()) ** 2 + generated.float() ** 2).mean()


def generator_loss(generated: Tensor) -> Tensor:
    """mean (1 - D(generated))^2."""
    return ((1 - generated.float()) ** 2).mean()


def feature_matching(real: list[Tensor], generated: list[Tensor]) -> Tensor:
    """Sum over layers of the mean L1 between the discriminator's features; those of the real image get no gradient."""
    terms = [(r.detach().float() - g.float()).abs().mean() for r, g in zip(real, generated, strict=True)]
    return torch.stack(terms).sum()
