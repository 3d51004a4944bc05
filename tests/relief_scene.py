"""A textured head-like solid before a static textured wall, ray-cast exactly: images, depth and motion are known."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dagan.geometry import back_project, intrinsics, invert_intrinsics, rigid_motion
from dagan.models.depth import Egomotion

DISTANCE = 1.0
WALL = 1.6


@dataclass(frozen=True)
class Scene:
    """B samples. frames: previous, this, next (B 3 H W). depth: B 1 H W of the middle frame. head: B 1 H W bool there."""

    frames: tuple[Tensor, Tensor, Tensor]
    depth: Tensor
    head: Tensor
    motion: Egomotion  # 2 B pairs in temporal order, as the network gives it; translation in units of DISTANCE


def render(count: int, size: int, generator: torch.Generator, *, degrees: float = 8.0, shift: float = 0.03, focal: float = 1.5) -> Scene:
    """Random solids (ellipsoid with a nose) and textures; between frames each turns by about `degrees` and moves by `shift`."""
    def uniform(*shape: int) -> Tensor:
        return 2 * torch.rand(*shape, generator=generator) - 1

    rotation = uniform(2 * count, 3) * torch.tensor([1.0, 1.0, 0.5]) * torch.deg2rad(torch.tensor(degrees))
    translation = uniform(2 * count, 3) * shift
    centre = torch.cat([uniform(count, 2) * 0.1, torch.full((count, 1), DISTANCE)], dim=1)
    axes = torch.tensor([0.20, 0.26, 0.20]) * (1 + 0.1 * uniform(count, 3))
    waves = uniform(count, 3, 3, 12) * 60.0
    phases = uniform(count, 3, 12) * torch.pi
    base = 0.5 + 0.2 * uniform(count, 3)
    camera = Egomotion(rotation, translation, torch.full((2 * count, 2), focal), torch.full((2 * count, 2), 0.5))
    matrix = intrinsics(camera.focal[:count], camera.principal[:count], (size, size))
    rays = back_project(torch.ones(count, 1, size, size), invert_intrinsics(matrix))
    pivot = torch.tensor([[0.0, 0.0, DISTANCE]]).expand(count, 3)
    to_middle = (
        rigid_motion(rotation[:count], translation[:count], pivot=pivot),
        torch.eye(4).expand(count, 4, 4),
        rigid_motion(rotation[count:], translation[count:], invert=True, pivot=pivot),
    )
    views = [_view(rays, motion, centre, axes, waves, phases, base) for motion in to_middle]
    (_, _, _), (_, depth, head) = views[0], views[1]
    return Scene((views[0][0], views[1][0], views[2][0]), depth, head, camera)


def _view(rays: Tensor, to_middle: Tensor, centre: Tensor, axes: Tensor, waves: Tensor, phases: Tensor, base: Tensor) -> tuple[Tensor, ...]:
    """Image, depth and head mask; the solid lives in the coordinates of the middle frame, where `to_middle` takes the rays."""
    directions = torch.einsum("bij,bjhw->bihw", to_middle[:, :3, :3], rays)
    origin = to_middle[:, :3, 3]
    nose = centre + torch.tensor([0.0, 0.02, -0.19])
    skull_depth = _ellipsoid(origin, directions, centre, axes)
    nose_depth = _ellipsoid(origin, directions, nose, torch.tensor([0.035, 0.06, 0.07]).expand_as(axes))
    head_depth = torch.minimum(skull_depth, nose_depth)
    head = torch.isfinite(head_depth)
    points = origin[:, :, None, None] + directions * torch.where(head, head_depth, 1.0)
    wall = rays * WALL + 7.0
    image = torch.where(head, _texture(points, waves, phases, base), _texture(wall, waves * 0.5, phases, 1 - base))
    return image, torch.where(head, head_depth, WALL), head


def _ellipsoid(origin: Tensor, directions: Tensor, centre: Tensor, axes: Tensor) -> Tensor:
    """B 1 H W: depth of the first hit, infinite for none. Rays have z = 1 in the view, so the ray's parameter is the depth."""
    start = ((origin - centre) / axes)[:, :, None, None]
    step = directions / axes[:, :, None, None]
    a, b = step.square().sum(1, keepdim=True), (start * step).sum(1, keepdim=True)
    root = b.square() - a * (start.square().sum(1, keepdim=True) - 1)
    return torch.where(root > 0, (-b - root.clamp(min=0).sqrt()) / a, torch.inf)


def _texture(points: Tensor, waves: Tensor, phases: Tensor, base: Tensor) -> Tensor:
    """Sums of plane waves in space, so that a point keeps its colour whatever the view."""
    angle = torch.einsum("bcdk,bdhw->bckhw", waves, points) + phases[:, :, :, None, None]
    return (base[:, :, None, None] + 0.09 * torch.sin(angle).sum(2)).clamp(0, 1)
