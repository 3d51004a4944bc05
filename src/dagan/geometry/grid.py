"""Coordinate grids, sampling, Gaussian heatmaps, 2 x 2 matrices, and random affine and thin-plate-spline transforms.

See docs/method.md#notation and docs/method.md#thin-plate-transforms. Coordinates are (x, y) in [-1, 1], x to the right and y down. The
first pixel centre is -1, and the last is +1.

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
        # |z| is measured in L1, as first-order motion training does it. The small number keeps the logarithm finite.
        distance = (coordinates[:, :, None] - self.points).abs().sum(-1)
        bump = distance.square() * torch.log(distance + 1e-6)
        return moved + bump @ self.weights[:, :, None]

    def warp_image(self, image: Tensor, *, align_corners: bool = True, padding_mode: str = "reflection") -> Tensor:
        """Returns the image, B x C x H x W, looked up at the transformed grid."""
        height, width = image.shape[-2:]
        grid = coordinate_grid(height, width, device=image.device).reshape(1, -1, 2)
        grid = self.warp_coordinates(grid).reshape(-1, height, width, 2)
        return sample(image, grid, align_corners=align_corners, padding_mode=padding_mode)

    def jacobian(self, coordinates: Tensor) -> Tensor:
        """Returns d warp / d z, B x N x 2 x 2, at coordinates B x N x 2. It can be differentiated with respect to them too."""
        if not coordinates.requires_grad:
            coordinates = coordinates.detach().requires_grad_()
        with torch.enable_grad():
            moved = self.warp_coordinates(coordinates)
            rows = [torch.autograd.grad(moved[..., i].sum(), coordinates, create_graph=True)[0] for i in (0, 1)]
        return torch.stack(rows, dim=-2)
