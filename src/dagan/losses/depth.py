"""The losses of stage 1 of training: how well warped neighbours explain a frame, and terms on relief itself.

The photometric losses compare a frame with its warped neighbours (docs/method.md#photometric-loss). Images are float32 in [0, 1]; error
maps are B x 1 x H x W. The terms on relief are about the shape from which training starts, and the shape of one head seen in two frames.

Legend: B batch, S source frames, H W image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dagan.geometry import NEAREST, back_project, gaussian_heatmap, invert_intrinsics, project, resize, sample

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
    """Returns the source frame, B 3 H W, seen through a grid of `geometry.project`. Outside it the border is repeated."""
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


# Widths are standard deviations in coordinates of [-1, 1].
BULGE_WIDTH = 0.45  # The width of the bulge from which training starts, about that of a head.
SHAPE_WINDOW = 0.3  # The width of the window in which reliefs are compared, which holds mostly the face.
LABEL_WINDOW = 0.45  # The width of the window in which depth is learnt from labels, which holds the whole head.
# A place whose inverse depth is at least HEAD times the head's counts as head. The border is as soft as HEAD_SOFTNESS.
HEAD, HEAD_SOFTNESS = 0.88, 0.02
LEAST_RELIEF = 0.01  # Relief below this share of the distance is taken to be this, because flat maps would divide by nothing.


def middle_window(image: Tensor, deviation: float) -> Tensor:
    """Returns a Gaussian, 1 x 1 x H x W, that is 1 in the middle of images B x C x H x W. `deviation` is in coordinates of [-1, 1]."""
    return gaussian_heatmap(torch.zeros(1, 1, 2, device=image.device), (image.shape[-2], image.shape[-1]), deviation**2)


def start_bulge(frame: Tensor, height: float) -> Tensor:
    """Returns inverse depth, 1 x 1 x H x W, for frames B x 3 x H x W: 1 plus a Gaussian of `height` in the middle of the frame."""
    return 1 + height * middle_window(frame, BULGE_WIDTH)


def bulge_difference(disparity: Tensor, bulge: Tensor) -> Tensor:
    """Returns the mean |disparity - bulge|, a scalar, where both are relative to their means. Disparity is B 1 H W."""
    small = resize(bulge, (disparity.shape[-2], disparity.shape[-1]))
    return (disparity / disparity.mean((2, 3), keepdim=True) - small / small.mean()).abs().mean()


@dataclass(frozen=True)
class ShapeMatch:
    """How two depth maps of one head match."""

    difference: Tensor
    """The difference of their reliefs, a scalar (see `match_shapes`)."""
    scale: Tensor
    """B factors that bring the other depth map to the scale of the moved one."""


def match_shapes(depth: Tensor, other: Tensor, motion: Tensor, camera: Tensor) -> ShapeMatch:
    """Says how much one frame's relief, moved, differs from another frame's, relative to how much relief there is.

    Args:
        depth: This is the depth of the frame, B x 1 x H x W.
        other: This is the depth of the frame to which `motion` leads. Its scale may differ.
        motion: This is the rigid motion between the frames, B x 4 x 4.
        camera: These are the camera matrices in pixels, B x 3 x 3.

    Inverse depths are compared, relative to their means, in a window in the middle of the frame. They are divided by the spread of
    relief, which passes no gradient and is at least LEAST_RELIEF, so that flattening both maps does not pay.
    """
    points = back_project(depth, invert_intrinsics(camera))
    moved = torch.einsum("bi,bihw->bhw", motion[:, 2, :3], points)[:, None] + motion[:, 2, 3, None, None, None]
    seen = sample(1 / other, project(points, camera, motion), align_corners=True, padding_mode="border")
    window = middle_window(depth, SHAPE_WINDOW)
    window = window / window.sum()
    maps = (1 / moved.clamp(min=NEAREST), seen)
    means = [(window * x).sum((2, 3), keepdim=True) for x in maps]
    mine, theirs = (x / mean for x, mean in zip(maps, means, strict=True))
    relief = ((window * (theirs - 1).square()).sum((1, 2, 3)).sqrt() + (window * (mine - 1).square()).sum((1, 2, 3)).sqrt()) / 2
    difference = (window * (mine - theirs).abs()).sum((1, 2, 3))
    scale = (means[1] / means[0]).detach()[:, 0, 0, 0]
    return ShapeMatch((difference / relief.detach().clamp(min=LEAST_RELIEF)).mean(), scale)


def label_difference(inverse: Tensor, label: Tensor) -> Tensor:
    """Returns the mean |inverse depth - label| on the head in the middle of the frame, a scalar. Both are B x 1 x H x W.

    The label is relative to the head's inverse depth. The other may be of any scale: both are compared relative to their means there.
    """
    weight = middle_window(label, LABEL_WINDOW) * torch.sigmoid((label - HEAD) / HEAD_SOFTNESS)
    weight = weight / weight.sum((2, 3), keepdim=True)
    mine, theirs = (x / (weight * x).sum((2, 3), keepdim=True) for x in (inverse, label))
    return (weight * (mine - theirs).abs()).sum((1, 2, 3)).mean()
