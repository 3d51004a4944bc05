"""Terms of stage 1 on relief itself: the shape from which training starts, and the shape of one head seen in two frames.

Legend: B batch, H W image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dagan.geometry import gaussian_heatmap, resize, sample
from dagan.geometry.camera import NEAREST, back_project, invert_intrinsics, project

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
