"""Terms of stage 1 on relief itself: the shape training starts from, and one head's shape seen in two frames.

Legend: B batch, H W image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dagan.geometry import gaussian_heatmap, resize, sample
from dagan.geometry.camera import NEAREST, back_project, invert_intrinsics, project

# Standard deviation of the bulge that training starts from, in coordinates of [-1, 1]: about a head's.
BULGE_WIDTH = 0.45
# Standard deviation of the window in which reliefs are compared: mostly the face.
SHAPE_WINDOW = 0.3
# The same of the window in which depth is learnt from labels: the whole head.
LABEL_WINDOW = 0.45
# Inverse depth, relative to the head's, from which on a place counts as head, with its softness.
HEAD, HEAD_SOFTNESS = 0.88, 0.02
# Relief below this share of the distance is measured as if it were this: flat maps would divide by nothing.
LEAST_RELIEF = 0.01


def middle_window(image: Tensor, deviation: float) -> Tensor:
    """1 x 1 x H x W for images B x C x H x W: a Gaussian, 1 in the middle, where the face is. deviation: in coordinates of [-1, 1]."""
    return gaussian_heatmap(torch.zeros(1, 1, 2, device=image.device), (image.shape[-2], image.shape[-1]), deviation**2)


def start_bulge(frame: Tensor, height: float) -> Tensor:
    """1 x 1 x H x W inverse depth for frames B x 3 x H x W: 1 plus a Gaussian of `height` in the middle of the frame."""
    return 1 + height * middle_window(frame, BULGE_WIDTH)


def bulge_difference(disparity: Tensor, bulge: Tensor) -> Tensor:
    """Scalar: mean |disparity (B 1 H W) - bulge|, both relative to their means."""
    small = resize(bulge, (disparity.shape[-2], disparity.shape[-1]))
    return (disparity / disparity.mean((2, 3), keepdim=True) - small / small.mean()).abs().mean()


@dataclass(frozen=True)
class ShapeMatch:
    """difference: scalar, see `match_shapes`. scale: B, the factor that brings the other depth map to the scale of the moved one."""

    difference: Tensor
    scale: Tensor


def match_shapes(depth: Tensor, other: Tensor, motion: Tensor, camera: Tensor) -> ShapeMatch:
    """How much one frame's relief, moved, differs from another frame's, relative to how much relief there is.

    Args:
        depth, other: B x 1 x H x W, of the frame and of the frame to which `motion` (B x 4 x 4) leads; scales may differ.
        camera: B x 3 x 3, pixels.

    Inverse depths are compared, relative to their means, in a window in the middle of the frame; the spread of relief that they are
    divided by is detached and its least share is LEAST_RELIEF: flattening both maps does not pay.
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
    """Scalar: mean |inverse depth - label| (B x 1 x H x W, the label relative to the head's) on the head in the middle of the frame.

    The inverse depth is of any scale: both are compared relative to their means there.
    """
    weight = middle_window(label, LABEL_WINDOW) * torch.sigmoid((label - HEAD) / HEAD_SOFTNESS)
    weight = weight / weight.sum((2, 3), keepdim=True)
    mine, theirs = (x / (weight * x).sum((2, 3), keepdim=True) for x in (inverse, label))
    return (weight * (mine - theirs).abs()).sum((1, 2, 3)).mean()
