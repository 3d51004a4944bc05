"""Pinhole cameras and rigid motions, in float32 (docs/method.md#stage-1).

Cameras look along +z, with x to the right and y down. Pixel coordinates count pixel centres from 0 to W - 1. A camera is kept
normalised, as fractions of the image's (width, height), so that one camera serves every size of an image: a focal length of 1.5 is one
and a half image widths, and a principal point of 0.5 is the middle of the image.

Legend: B batch, H W image.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Points nearer to the camera plane than this, in the unit of the depth map, count as unseen.
NEAREST = 1e-3
# Unseen points are sent here. It is outside [-1, 1], so that sampling finds the border or zeros there.
OUTSIDE = 2.0


def intrinsics(focal: Tensor, principal: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns the camera matrices for an image of `size`.

    Args:
        focal: These are the focal lengths (x, y) in image (widths, heights), B x 2. They are positive.
        principal: These are the principal points (x, y) in image (widths, heights), B x 2. 0.5 is the middle.
        size: This is (height, width) in pixels.

    Returns:
        B x 3 x 3 matrices in pixels. Nothing is rounded, so that gradients reach focal and principal.
    """
    height, width = size
    extent = torch.tensor([width, height], device=focal.device, dtype=torch.float32)
    diagonal = focal.float() * extent
    # The image spans -0.5 to W - 0.5 in units of pixel centres, whatever its size.
    centre = principal.float() * extent - 0.5
    return _upper_triangular(diagonal, centre)


def invert_intrinsics(matrix: Tensor) -> Tensor:
    """Returns the closed-form inverse of B x 3 x 3 camera matrices without skew."""
    diagonal = torch.stack([matrix[:, 0, 0], matrix[:, 1, 1]], dim=-1)
    return _upper_triangular(1 / diagonal, -matrix[:, :2, 2] / diagonal)


def axis_angle_to_rotation(axis_angle: Tensor) -> Tensor:
    """Returns B x 3 x 3 rotations for B x 3 vectors, whose direction is the axis and whose length is the angle in radians.

    Rodrigues' formula R = I + sin(a)/a K + (1 - cos(a))/a^2 K^2 is written with sinc, whose value and gradient at zero are exact.
    """
    axis_angle = axis_angle.float()
    angle = torch.linalg.vector_norm(axis_angle, dim=-1)[:, None, None]
    cross = cross_matrix(axis_angle)
    identity = torch.eye(3, device=axis_angle.device, dtype=torch.float32)
    return identity + torch.sinc(angle / torch.pi) * cross + 0.5 * torch.sinc(angle / (2 * torch.pi)).square() * (cross @ cross)


def cross_matrix(vector: Tensor) -> Tensor:
    """Returns the B x 3 x 3 matrices whose product with a vector is the cross product of `vector`, B x 3, with it."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


def rigid_motion(axis_angle: Tensor, translation: Tensor, invert: bool = False, pivot: Tensor | None = None) -> Tensor:
    """Returns B x 4 x 4 matrices that turn points about `pivot` and then shift them. With `invert` they lead the way back.

    Args:
        axis_angle: This is the rotation, B x 3, in radians.
        translation: This is the shift, B x 3, in the unit of the depth map.
        pivot: The rotation leaves this point, B x 3, in place. None is the camera's own centre.
    """
    rotation = axis_angle_to_rotation(axis_angle)
    shift = translation.float()
    if pivot is not None:
        centre = pivot.float()
        shift = shift + centre - (rotation @ centre[:, :, None])[:, :, 0]
    if invert:
        rotation = rotation.transpose(1, 2)
        shift = -(rotation @ shift[:, :, None])[:, :, 0]
    last = torch.tensor([0.0, 0.0, 0.0, 1.0], device=rotation.device).expand(len(rotation), 1, 4)
    return torch.cat([torch.cat([rotation, shift[:, :, None]], dim=2), last], dim=1)


def invert_motion(motion: Tensor) -> Tensor:
    """Returns the inverse of B x 4 x 4 rigid motions in closed form."""
    rotation = motion[:, :3, :3].transpose(1, 2)
    return torch.cat([torch.cat([rotation, -rotation @ motion[:, :3, 3:]], dim=2), motion[:, 3:]], dim=1)


def back_project(depth: Tensor, inverse_intrinsics: Tensor) -> Tensor:
    """Returns the points that pixels see, B x 3 x H x W, for depth along z, B x 1 x H x W, and the inverse camera for that size."""
    _, _, height, width = depth.shape
    x = torch.arange(width, device=depth.device, dtype=torch.float32).expand(height, width)
    y = torch.arange(height, device=depth.device, dtype=torch.float32)[:, None].expand(height, width)
    pixels = torch.stack([x, y, torch.ones_like(x)]).flatten(1)
    rays = inverse_intrinsics.float() @ pixels
    return rays.unflatten(2, (height, width)) * depth.float()


def project(points: Tensor, intrinsics: Tensor, motion: Tensor) -> Tensor:
    """Returns where moved points appear in the other image.

    Args:
        points: These are the points, B x 3 x H x W.
        intrinsics: These are camera matrices for an image of H x W pixels, B x 3 x 3.
        motion: This is the rigid motion from the points' camera to the other, B x 4 x 4.

    Returns:
        A B x H x W x 2 grid for `geometry.grid.sample` with align_corners=True: -1 and +1 are the outer pixel centres. Points at or
        behind the camera plane are sent to OUTSIDE and pass no gradient.
    """
    batch, _, height, width = points.shape
    matrix = intrinsics.float() @ motion[:, :3].float()
    moved = torch.baddbmm(matrix[:, :, 3:], matrix[:, :, :3], points.float().flatten(2))
    distance = moved[:, 2:]
    extent = torch.tensor([width - 1, height - 1], device=points.device, dtype=torch.float32)[:, None]
    grid = moved[:, :2] / distance.clamp(min=NEAREST) * (2 / extent) - 1
    grid = torch.where(distance > NEAREST, grid, OUTSIDE)
    return grid.transpose(1, 2).reshape(batch, height, width, 2)


def _upper_triangular(diagonal: Tensor, offset: Tensor) -> Tensor:
    """Returns the matrices [[dx, 0, ox], [0, dy, oy], [0, 0, 1]] for diagonal and offset, both B x 2."""
    (dx, dy), (ox, oy) = diagonal.unbind(-1), offset.unbind(-1)
    zero, one = torch.zeros_like(dx), torch.ones_like(dx)
    return torch.stack([dx, zero, ox, zero, dy, oy, zero, zero, one], dim=-1).unflatten(-1, (3, 3))
