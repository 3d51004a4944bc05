"""Grids, sampling, cameras and thin-plate transforms: the mathematics that networks, losses and jobs share.

Images are sampled at coordinates (x, y) in [-1, 1], x to the right and y down. The first pixel centre is -1, and the last is +1. See
docs/method.md#notation and docs/method.md#thin-plate-transforms.

Pinhole cameras and rigid motions are in float32 (docs/method.md#stage-1). Cameras look along +z, with x to the right and y down. Their
pixel coordinates count pixel centres from 0 to W - 1. A camera is kept normalised, as fractions of the image's (width, height), so that
one camera serves every size of an image: a focal length of 1.5 is one and a half image widths, and a principal point of 0.5 is the
middle of the image.

Legend: B batch, K keypoints, N points, P control points, H W image, h w output grid.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def coordinate_grid(height: int, width: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """Returns the h x w x 2 grid of the coordinates of pixel centres, x_j = 2 j / (W - 1) - 1."""
    x, y = (_centres(count, device, dtype) for count in (width, height))
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1)


def _centres(count: int, device: torch.device | str | None, dtype: torch.dtype | None) -> Tensor:
    return 2 * torch.arange(count, device=device, dtype=dtype or torch.float32) / (count - 1) - 1


def sample(image: Tensor, grid: Tensor, *, align_corners: bool, padding_mode: str = "zeros") -> Tensor:
    """Looks image, B C H W, up at grid, B h w 2, bilinearly. The result, B C h w, has the image's dtype and layout.

    Positions stay in float32, because bfloat16 resolves only 1/256 of the image's width near the border.
    """
    looked_up = F.grid_sample(image.float(), grid.float(), mode="bilinear", padding_mode=padding_mode, align_corners=align_corners)
    if image.shape[1] > 1 and image.stride(1) == 1:  # The image is in channels last, and so is what the result is joined with.
        return looked_up.to(image.dtype, memory_format=torch.channels_last)
    return looked_up.to(image.dtype)


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes B C H W to `size`, bilinearly, with `align_corners=False`. An image of that size is returned as it is."""
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False)


def resize_grid(grid: Tensor, size: tuple[int, int], *, align_corners: bool) -> Tensor:
    """Resizes a field of positions, B h w 2, bilinearly. With align_corners an identity field stays exactly one."""
    if tuple(grid.shape[1:3]) == tuple(size):
        return grid
    return F.interpolate(grid.permute(0, 3, 1, 2), size=size, mode="bilinear", align_corners=align_corners).permute(0, 2, 3, 1)


def gaussian_heatmap(value: Tensor, size: tuple[int, int], variance: float) -> Tensor:
    """Returns the heatmaps exp(-|z - p|^2 / (2 variance)), B K h w, of keypoints p = value, B K 2."""
    lines = []
    # A heatmap is the product of a line along x and one along y, so that it takes h + w exponentials instead of h w.
    for axis, count in ((0, size[1]), (1, size[0])):
        positions = _centres(count, value.device, value.dtype)
        lines.append(torch.exp(-0.5 * (positions - value[..., axis, None]).square() / variance))
    return lines[1][..., :, None] * lines[0][..., None, :]


def inverse_2x2(matrix: Tensor) -> Tensor:
    """Returns the closed-form inverse of ... x 2 x 2 matrices, because torch.inverse cannot be exported. Singular ones give inf."""
    a, b, c, d = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 0], matrix[..., 1, 1]
    adjugate = torch.stack([torch.stack([d, -b], -1), torch.stack([-c, a], -1)], -2)
    return adjugate / (a * d - b * c)[..., None, None]


_NEAR_POINT = 1e-6  # Keeps the logarithm of a distance from a control point finite.


class ThinPlateTransform:
    """The map z -> A (z, 1) + sum_p w_p U(|z - c_p|), one per sample, over a regular grid of control points c_p in [-1, 1]^2."""

    def __init__(self, affine: Tensor, weights: Tensor, points: Tensor) -> None:
        """`affine` is A, B x 2 x 3; `weights` are the w_p, B x P; `points` are the control points, P x 2."""
        self.affine, self.weights, self.points = affine, weights, points

    @classmethod
    def random(
        cls, batch: int, affine_sigma: float = 0.05, tps_sigma: float = 0.005, points: int = 5,
        generator: torch.Generator | None = None, device: torch.device | str | None = None,
    ) -> ThinPlateTransform:  # fmt: skip
        """Draws transforms that differ from the identity by normal numbers. They are drawn on the CPU, the same for every device."""
        affine = torch.eye(2, 3) + affine_sigma * torch.randn(batch, 2, 3, generator=generator)
        weights = tps_sigma * torch.randn(batch, points**2, generator=generator)
        return cls(affine.to(device), weights.to(device), coordinate_grid(points, points, device=device).reshape(-1, 2))

    def warp_coordinates(self, coordinates: Tensor) -> Tensor:
        """Maps coordinates, B x N x 2, to B x N x 2. Coordinates of batch 1 serve every transform."""
        moved = coordinates @ self.affine[:, :, :2].transpose(1, 2) + self.affine[:, None, :, 2]
        distance = self._from_points(coordinates).abs().sum(-1)
        bump = distance.square() * torch.log(distance + _NEAR_POINT)
        return moved + bump @ self.weights[:, :, None]

    def warp_image(self, image: Tensor, *, align_corners: bool = True, padding_mode: str = "reflection") -> Tensor:
        """Returns the image, B x C x H x W, looked up at the transformed grid."""
        height, width = image.shape[-2:]
        grid = coordinate_grid(height, width, device=image.device).reshape(1, -1, 2)
        grid = self.warp_coordinates(grid).reshape(-1, height, width, 2)
        return sample(image, grid, align_corners=align_corners, padding_mode=padding_mode)

    def jacobian(self, coordinates: Tensor) -> Tensor:
        """Returns d warp / d z, B x N x 2 x 2, at coordinates B x N x 2. It can be differentiated with respect to them too.

        The derivative is written out, because torch.compile cannot train through a call of autograd.
        """
        offset = self._from_points(coordinates)
        distance = offset.abs().sum(-1)
        slope = 2 * distance * torch.log(distance + _NEAR_POINT) + distance.square() / (distance + _NEAR_POINT)
        # A bump moves both coordinates alike, so it adds the same to both rows.
        bend = ((self.weights[:, None] * slope)[..., None] * offset.sign()).sum(2)
        return self.affine[:, None, :, :2] + bend[:, :, None]

    def _from_points(self, coordinates: Tensor) -> Tensor:
        """Returns z - c_p, B x N x P x 2. Its length |z - c_p| is the sum of both absolute values, as in first-order motion training."""
        return coordinates[:, :, None] - self.points


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
        A B x H x W x 2 grid for `geometry.sample` with align_corners=True: -1 and +1 are the outer pixel centres. Points at or
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
