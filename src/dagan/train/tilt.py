"""How a face stands, from many views at once: motion and tilt solved for together (a small bundle adjustment).

Motion alone adapts to any tilt, and tilt alone to any motion; in turns one after the other they hardly move. Together, over views that
turn far, they are decided: with the six numbers of each view eliminated, two numbers per frame are left.
Legend: F frames, S views of each, R = F S, H W image, N = 3 H W residuals.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dagan.geometry import coordinate_grid
from dagan.geometry.camera import (
    axis_angle_to_rotation,
    back_project,
    cross_matrix,
    intrinsics,
    invert_intrinsics,
    project,
    rigid_motion,
)
from dagan.losses.photometric import warp
from dagan.train.alignment import DAMPING, FARTHEST, LONGEST_STEP, flow_per_motion, image_flow, moving_head, slopes, trust

# Side of the compared pictures, and steps.
SIDE, STEPS = 128, 4
# Pull of the two numbers towards zero, per pixel, and their longest step: slopes of relative inverse depth per half width.
PULL, LONGEST_TILT = 0.012, 0.05


def settle_tilt(
    frame: Tensor, views: Tensor, poses: Tensor, inverse: Tensor, focal: Tensor, principal: Tensor
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Tilts relative inverse depth so that the views agree with the frame.

    Args:
        frame: F x 3 x H x W; views: F x S x 3 x H x W, in [0, 1]; poses: F x S x 6, motion to each view as `align` finds it.
        inverse: F x 1 x H x W, relative inverse depth; focal, principal: F x 2.

    Returns:
        poses and inverse, both improved, in the units they came in.
    """
    count, used = poses.shape[:2]
    side = min(SIDE, *frame.shape[-2:])
    near, far, shape = (F.adaptive_avg_pool2d(x, side) for x in (frame, views.flatten(0, 1), inverse.clamp(min=FARTHEST)))
    camera = intrinsics(focal, principal, (side, side))
    rays = back_project(torch.ones_like(shape), invert_intrinsics(camera))
    place = coordinate_grid(side, side, device=frame.device).permute(2, 0, 1)[None]
    near, camera = (x.repeat_interleave(used, 0) for x in (near, camera))
    moving = moving_head(near, far, shape.repeat_interleave(used, 0))
    slopes_there = torch.cat(slopes(far), dim=1)
    pose, tilt = poses.flatten(0, 1), poses.new_zeros(count, 2)
    damping = torch.diag(pose.new_full((6,), DAMPING * side * side))
    pull = torch.diag(pose.new_full((2,), PULL * side * side))
    pivot = pose.new_tensor([0.0, 0.0, 1.0]).expand(len(pose), 3)
    for _ in range(STEPS):
        tilted = shape * (1 + (place * tilt[:, :, None, None]).sum(1, keepdim=True))
        points = (rays / tilted).repeat_interleave(used, 0)
        # A point moves along its ray as its inverse depth grows by a share `place` of it.
        towards = (-rays * shape / tilted.square()).repeat_interleave(used, 0)
        grid = project(points, camera, rigid_motion(pose[:, :3], pose[:, 3:], pivot=pivot))
        residual = near - warp(far, grid)
        flow_x, flow_y = _flow(points, towards, pose, pivot, camera, place)
        slope_x, slope_y = warp(slopes_there, grid).chunk(2, dim=1)
        jacobian = slope_x[:, :, None] * flow_x[:, None] + slope_y[:, :, None] * flow_y[:, None]  # R 3 8 H W
        jacobian = jacobian.movedim(2, -1).reshape(len(pose), -1, 8)
        weight = (moving * trust(residual)).expand(-1, 3, -1, -1).reshape(len(pose), -1, 1)
        weighted = (jacobian * weight).transpose(1, 2)
        normal, right = weighted @ jacobian, weighted @ residual.reshape(len(pose), -1, 1)
        change, pose_change = _solve(normal, right, tilt, used, damping, pull)
        tilt = tilt + change.clamp(-LONGEST_TILT, LONGEST_TILT)
        pose = pose + pose_change.clamp(-LONGEST_STEP, LONGEST_STEP)
    grid = coordinate_grid(inverse.shape[-2], inverse.shape[-1], device=frame.device).permute(2, 0, 1)[None]
    tilted = inverse * (1 + (grid * tilt[:, :, None, None]).sum(1, keepdim=True))
    return pose.unflatten(0, (count, used)), tilted


def _flow(
    points: Tensor, towards: Tensor, pose: Tensor, pivot: Tensor, camera: Tensor, place: Tensor
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Pixels that each point (R 3 H W) moves in the view per unit of six motion and two tilt numbers, in x and y: two R x 8 x H x W."""
    turn = axis_angle_to_rotation(pose[:, :3])
    centre = pivot + pose[:, 3:]
    moved = torch.einsum("rij,rjhw->rihw", turn, points - pivot[:, :, None, None]) + centre[:, :, None, None]
    motion_x, motion_y = flow_per_motion(moved, centre, camera)
    ahead = torch.einsum("rij,rjhw->rihw", turn, towards)
    depth_x, depth_y = image_flow(moved, ahead[:, :1], ahead[:, 1:2], ahead[:, 2:], camera)
    left = _left_jacobian(pose[:, :3])
    both = []
    for motion, depth in ((motion_x, depth_x), (motion_y, depth_y)):
        rotation = torch.einsum("rkhw,rkj->rjhw", motion[:, :3], left)
        both.append(torch.cat([rotation, motion[:, 3:], depth * place], dim=1))
    return both[0], both[1]


def _left_jacobian(axis_angle: Tensor) -> Tensor:
    """R x 3 x 3: the turn, in the frame of the view, per change of the axis-angle numbers; to second order, for turns below a radian."""
    cross = cross_matrix(axis_angle)
    return torch.eye(3, device=axis_angle.device) + cross / 2 + cross @ cross / 6


def _solve(
    normal: Tensor, right: Tensor, tilt: Tensor, used: int, damping: Tensor, pull: Tensor
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Changes of tilts (F x 2) and motions (R x 6) from normal equations R x 8 x 8: the Schur complement of the motions."""
    mixed = normal[:, :6, 6:]
    solved = torch.linalg.solve(normal[:, :6, :6] + damping, torch.cat([right[:, :6], mixed], dim=2))
    alone, per_tilt = solved[:, :, :1], solved[:, :, 1:]
    reduced = (normal[:, 6:, 6:] - mixed.transpose(1, 2) @ per_tilt).unflatten(0, (-1, used)).sum(1) + pull
    wanted = (right[:, 6:] - mixed.transpose(1, 2) @ alone).unflatten(0, (-1, used)).sum(1) - pull @ tilt[:, :, None]
    change = torch.linalg.solve(reduced, wanted)
    return change[:, :, 0], (alone - per_tilt @ change.repeat_interleave(used, 0))[:, :, 0]
