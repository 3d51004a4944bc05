"""Photometric losses of stage 1 of training: how well warped neighbours explain a frame (docs/method.md#photometric-loss).

Images are float32 in [0, 1]; error maps are B x 1 x H x W.

Legend: B batch, S source frames, H W image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dagan.geometry import sample

SSIM_SHARE = 0.85  # The share of structural similarity in the error; the rest is L1.
C1, C2 = 0.01**2, 0.03**2  # These are (0.01 L)^2 and (0.03 L)^2 of the definition of SSIM, for the data range L = 1.


@dataclass(frozen=True)
class Photometric:
    """The photometric loss."""

    loss: Tensor
    """The loss, a scalar."""
    kept: Tensor
    """The pixels that some warped frame explains better than every unwarped one, B x 1 x H x W bool."""


def _mean_3x3(x: Tensor) -> Tensor:
    """Averages over 3 x 3 windows with reflection padding. Summing slices is several times faster than pooling on CPUs."""
    x = F.pad(x, (1, 1, 1, 1), mode="reflect")
    x = x[..., :-2] + x[..., 1:-1] + x[..., 2:]
    return (x[..., :-2, :] + x[..., 1:-1, :] + x[..., 2:, :]) / 9


def ssim_map(first: Tensor, second: Tensor) -> Tensor:
    """Returns the structural similarity per pixel and channel, B x C x H x W in [-1, 1], with uniform 3 x 3 windows and data range 1."""
    mean_1, mean_2 = _mean_3x3(first), _mean_3x3(second)
    product = mean_1 * mean_2
    squares = mean_1.square() + mean_2.square()
    covariance = _mean_3x3(first * second) - product
    variances = _mean_3x3(first.square() + second.square()) - squares
    return ((2 * product + C1) * (2 * covariance + C2)) / ((squares + C1) * (variances + C2))


def photometric_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Returns 0.85 (1 - SSIM) / 2 + 0.15 L1, averaged over the channels, B x 1 x H x W. It is 0 where the images agree."""
    dissimilarity = ((1 - ssim_map(prediction, target)) / 2).clamp(0, 1).mean(1, keepdim=True)
    return SSIM_SHARE * dissimilarity + (1 - SSIM_SHARE) * (prediction - target).abs().mean(1, keepdim=True)


def warp(source: Tensor, grid: Tensor) -> Tensor:
    """Returns the source frame, B 3 H W, seen through a grid of `geometry.camera.project`. Outside it the border is repeated."""
    return sample(source, grid, align_corners=True, padding_mode="border")


def minimum_error(predictions: list[Tensor], target: Tensor) -> Tensor:
    """Returns for each pixel the smallest error over the predictions, so that what is hidden in one source frame is judged by the other."""
    error = photometric_error(predictions[0], target)
    for prediction in predictions[1:]:
        error = torch.minimum(error, photometric_error(prediction, target))
    return error


def masked_photometric(error: Tensor, still_error: Tensor | None, log_scale: Tensor | None = None) -> Photometric:
    """Averages the photometric error, with auto-masking and, if given, uncertainty weights.

    Args:
        error: This is the minimum error of the warped frames, B x 1 x H x W.
        still_error: This is the minimum error of the unwarped frames; None does without auto-masking. Where it is no larger than the
            other (on static background), the pixel passes no gradient and counts with this error. It also wins ties, so that nothing
            needs to be drawn at random.
        log_scale: This is the logarithm of each pixel's expected error relative to the average pixel's, B x 1 x H x W. The error is
            divided by the scale, and log_scale times the (detached) mean error is added. This is smallest at scale = error / mean error.
            At log_scale 0 it equals the plain loss, so that the weights of the other losses keep their meaning.
    """
    kept = torch.ones_like(error, dtype=torch.bool) if still_error is None else error < still_error
    if log_scale is not None:
        typical = (error.detach() * kept).sum() / kept.sum().clamp(min=1)
        error = error * torch.exp(-log_scale) + typical * log_scale
    if still_error is not None:
        error = torch.where(kept, error, still_error.detach())
    return Photometric(error.mean(), kept)


def edge_aware_smoothness(disparity: Tensor, image: Tensor) -> Tensor:
    """Returns the mean |gradient| of disparity (B 1 H W), weighted by exp(-|gradient|) of the image (B 3 H W), as a scalar.

    Each map is divided by its mean, which keeps the loss from shrinking disparity to nothing.
    """
    disparity = disparity / (disparity.mean((2, 3), keepdim=True) + 1e-7)
    loss = disparity.new_zeros(())
    for dim in (2, 3):
        weight = torch.exp(-image.diff(dim=dim).abs().mean(1, keepdim=True))
        loss = loss + (disparity.diff(dim=dim).abs() * weight).mean()
    return loss
