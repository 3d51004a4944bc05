"""Random affine + thin-plate-spline transforms (docs/method.md#thin-plate-transforms). Legend: B batch, N points, P control points."""

from __future__ import annotations

import torch
from torch import Tensor

from dagan.geometry.grid import coordinate_grid, sample


class ThinPlateTransform:
    """z -> A (z, 1) + sum_p w_p U(|z - c_p|), one per sample, over a regular grid of control points c_p in [-1, 1]^2."""

    def __init__(self, affine: Tensor, weights: Tensor, points: Tensor) -> None:
        """affine: B x 2 x 3; weights: B x P; points: P x 2 control points."""
        self.affine, self.weights, self.points = affine, weights, points

    @classmethod
    def random(
        cls, batch: int, affine_sigma: float = 0.05, tps_sigma: float = 0.005, points: int = 5,
        generator: torch.Generator | None = None, device: torch.device | str | None = None,
    ) -> ThinPlateTransform:  # fmt: skip
        """Normal deviations from the identity. Drawn on the CPU so that every device gets the same transform."""
        affine = torch.eye(2, 3) + affine_sigma * torch.randn(batch, 2, 3, generator=generator)
        weights = tps_sigma * torch.randn(batch, points**2, generator=generator)
        return cls(affine.to(device), weights.to(device), coordinate_grid(points, points, device=device).reshape(-1, 2))

    def warp_coordinates(self, coordinates: Tensor) -> Tensor:
        """B x N x 2 -> B x N x 2; coordinates of batch 1 serve every transform."""
        moved = coordinates @ self.affine[:, :, :2].transpose(1, 2) + self.affine[:, None, :, 2]
        # |z| of the control points in L1, as first-order motion training uses it; + 1e-6 keeps the logarithm finite.
        distance = (coordinates[:, :, None] - self.points).abs().sum(-1)
        bump = distance.square() * torch.log(distance + 1e-6)
        return moved + bump @ self.weights[:, :, None]

    def warp_image(self, image: Tensor, *, align_corners: bool = True, padding_mode: str = "reflection") -> Tensor:
        """B x C x H x W: the image looked up at the transformed grid."""
        height, width = image.shape[-2:]
        grid = coordinate_grid(height, width, device=image.device).reshape(1, -1, 2)
        grid = self.warp_coordinates(grid).reshape(-1, height, width, 2)
        return sample(image, grid, align_corners=align_corners, padding_mode=padding_mode)

    def jacobian(self, coordinates: Tensor) -> Tensor:
        """B x N x 2 x 2: d warp / d z at B x N x 2 coordinates, differentiable with respect to them too."""
        if not coordinates.requires_grad:
            coordinates = coordinates.detach().requires_grad_()
        with torch.enable_grad():
            moved = self.warp_coordinates(coordinates)
            rows = [torch.autograd.grad(moved[..., i].sum(), coordinates, create_graph=True)[0] for i in (0, 1)]
        return torch.stack(rows, dim=-2)
