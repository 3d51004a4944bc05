"""Finds how a head moves between frames with Gauss-Newton steps, before any network knows how heads move.

`align` finds the motion between two frames. A network that learns motion from the photometric error alone starts slowly: the error's
slope reaches only a few pixels far, and auto-masking drops just those pixels that would show that the motion is wrong. But a motion
is only six numbers per pair of frames, and when a depth is given these can be solved for.

`settle_tilt` solves for the motions of many views and for the tilt of the face's depth together (a small bundle adjustment). For every
tilt some motion fits, and for every motion some tilt, so solving for one and then the other hardly changes either. Solved for together,
over views that turn far, both are determined. The six numbers of each view are eliminated first, which leaves two numbers per frame.

Legend: P pairs; F frames, S views of each, R = F S; H W image or S side of the reduced frames; N residuals, one for each of its values.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dagan.geometry import (
    axis_angle_to_rotation,
    back_project,
    coordinate_grid,
    cross_matrix,
    intrinsics,
    invert_intrinsics,
    project,
    rigid_motion,
)
from dagan.losses.depth import middle_window, warp

# `align` goes from coarse to fine. Each entry is a side and the number of steps at it: a shift by a tenth of the image is two pixels at
# the first side. On pairs of synthetic heads that turn by 5 to 10 degrees, with the true depth, the turn is found to 0.7 degrees. It is
# found to 1.5 degrees where the finest side is 64. It is found to 6.0 degrees where the wall behind the head takes part, because a small
# turn about the head would move the wall far.
SIDES = ((16, 4), (32, 4), (64, 4), (128, 2))
# WINDOW is the standard deviation, in coordinates of [-1, 1], of the window in which frames are compared. Neck, shoulders and loose hair
# lie outside it, because they move differently from the head. The head's distance is measured in the narrower FACE_WINDOW.
WINDOW, FACE_WINDOW = 0.4, 0.3
# These are shares of the head's own inverse depth. Places below NEAR count as behind the head, with a soft border as wide as SOFTNESS.
# No place is taken to be farther away than FARTHEST.
NEAR, FARTHEST, SOFTNESS = 0.85, 0.75, 0.03
# `head_level` separates the head from what is behind it by this share of the window's mean inverse depth. It is higher than NEAR because
# that mean is lower than the head's inverse depth where a wall shows.
NEAR_MEAN = 0.9
# These are colour differences. A pixel that differs less than STATIC counts as static. One that differs more than OUTLIER weighs little,
# because it belongs to a mouth, to hair, or to a part that is hidden in one frame.
STATIC, OUTLIER = 0.02, 0.05
# The six numbers are pulled towards zero by this much per pixel. It decides what images leave open, such as frames without texture.
DAMPING = 1e-4
# No number may change more than this in one step; rotations are in radians, translations in units of the head's distance.
LONGEST_STEP = 0.1


@torch.no_grad()
def align(
    first: Tensor, second: Tensor, disparity: Tensor, focal: Tensor, principal: Tensor,
    start: Tensor | None = None, sides: Sequence[tuple[int, int]] = SIDES,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Finds the rigid motion, from the first frame to the second, of what moved between them.

    Args:
        first, second: These are the frames, P x 3 x H x W in [0, 1].
        disparity: This is the inverse depth in the first frame, 1 or P x 1 x H x W, of any scale.
        focal, principal: These describe the camera, P x 2 each, normalised as in `geometry`.
        start: This is the motion to begin with, P x 6, rotation and then translation. None begins at rest.
        sides: See SIDES.

    Returns:
        The rotation and the translation, both P x 3. The rotation is an axis times an angle, about the point in the middle of the frame
        at distance 1. Distance 1 is the head's, where `disparity` equals its `head_level`; the translation is in this unit.
    """
    count = len(first)
    inverse = (disparity.float() / head_level(disparity)).clamp(min=FARTHEST)
    pose = first.new_zeros(count, 6, dtype=torch.float32) if start is None else start
    for side, steps in sides:
        if side > max(first.shape[-2:]):
            break
        near, far, shape = (F.adaptive_avg_pool2d(x.float(), side) for x in (first, second, inverse))
        pose = _refine(pose, near, far, shape.expand(count, 1, side, side), intrinsics(focal, principal, (side, side)), steps)
    return pose[:, :3], pose[:, 3:]


def head_level(disparity: Tensor) -> Tensor:
    """Returns the head's inverse depth, B x 1 x 1 x 1, for maps of inverse depth, B x 1 x H x W.

    It is the mean over the near part of the middle of the frame, where the head is. A wall beside the head is left out, because it would
    put the point about which the head is thought to turn behind the head.
    """
    window = middle_window(disparity, FACE_WINDOW)
    level = (window * disparity).sum((2, 3), keepdim=True) / window.sum()
    weight = window * torch.sigmoid((disparity.detach() / level.detach() - NEAR_MEAN) / SOFTNESS)
    return (weight * disparity).sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True)


def _refine(pose: Tensor, first: Tensor, second: Tensor, inverse: Tensor, camera: Tensor, steps: int) -> Tensor:
    count, _, side, _ = first.shape
    points = back_project(1 / inverse, invert_intrinsics(camera))
    pivot = pose.new_tensor([0.0, 0.0, 1.0]).expand(count, 3)
    flow_x, flow_y = flow_per_motion(points, pivot, camera)
    slope = slopes(first)
    moving = moving_head(first, second, inverse)
    damping = pose.new_full((6,), DAMPING * side * side)
    for _ in range(steps):
        motion = rigid_motion(pose[:, :3], pose[:, 3:], pivot=pivot)
        seen = warp(second, project(points, camera, motion))
        residual = first - seen
        # The slopes of both images are averaged, as in ESM tracking, because that makes the steps converge to second order.
        slope_x, slope_y = ((a + b) / 2 for a, b in zip(slope, slopes(seen), strict=True))
        jacobian = slope_x[:, :, None] * flow_x[:, None] + slope_y[:, :, None] * flow_y[:, None]  # P 3 6 S S
        jacobian = jacobian.movedim(2, -1).reshape(count, -1, 6)
        weight = moving * trust(residual)
        weighted = jacobian * weight.expand(-1, 3, -1, -1).reshape(count, -1, 1)
        normal = weighted.transpose(1, 2) @ jacobian + torch.diag(damping)
        right = weighted.transpose(1, 2) @ residual.reshape(count, -1, 1) - (damping * pose)[:, :, None]
        pose = pose + torch.linalg.solve(normal, right)[:, :, 0].clamp(-LONGEST_STEP, LONGEST_STEP)
    return pose


def moving_head(first: Tensor, second: Tensor, inverse: Tensor) -> Tensor:
    """Weighs pixels of pairs of frames by how sure they belong to the moving head: P x 1 x S x S in [0, 1].

    A pixel of `first` weighs much where three things hold: it differs from that of `second` (both P x 3 x S x S), lies near the middle of
    the picture, and is not behind the head by the first frame's disparity, `inverse` (P x 1 x S x S).
    """
    still = (first - second).abs().mean(1, keepdim=True)
    return torch.sigmoid((still - STATIC) / (STATIC / 2)) * middle_window(first, WINDOW) * torch.sigmoid((inverse - NEAR) / SOFTNESS)


def trust(residual: Tensor) -> Tensor:
    """Returns P x 1 x S x S weights for colour differences, P x 3 x S x S: 1 where frames agree, and little where a pixel is an outlier."""
    return 1 / (1 + (residual.abs().mean(1, keepdim=True) / OUTLIER).square())


def flow_per_motion(points: Tensor, pivot: Tensor, camera: Tensor) -> tuple[Tensor, Tensor]:
    """Returns how many pixels in x and y each point, P 3 S S, moves per unit of the six motion numbers, as two P x 6 x S x S."""
    arm_x, arm_y, arm_z = (points - pivot[:, :, None, None]).split(1, dim=1)
    zero, one = torch.zeros_like(arm_x), torch.ones_like(arm_x)
    # Each of these six columns is what one motion number adds to d(point) = rotation x arm + translation.
    dx = torch.cat([zero, arm_z, -arm_y, one, zero, zero], dim=1)
    dy = torch.cat([-arm_z, zero, arm_x, zero, one, zero], dim=1)
    dz = torch.cat([arm_y, -arm_x, zero, zero, zero, one], dim=1)
    return image_flow(points, dx, dy, dz, camera)


def image_flow(points: Tensor, dx: Tensor, dy: Tensor, dz: Tensor, camera: Tensor) -> tuple[Tensor, Tensor]:
    """Returns how many pixels in x and y points, P 3 S S, move in the image as D small steps, each P x D x S x S, move them in space.

    The result is two P x D x S x S.
    """
    x, y, z = points.split(1, dim=1)
    focal_x, focal_y = camera[:, 0, 0, None, None, None], camera[:, 1, 1, None, None, None]
    return focal_x / z * (dx - x / z * dz), focal_y / z * (dy - y / z * dz)


def slopes(image: Tensor) -> tuple[Tensor, Tensor]:
    """Returns central differences in x and in y, per pixel. The border is repeated."""
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    return (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2, (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2


# `settle_tilt` compares pictures of this side, in this many steps.
SIDE, STEPS = 128, 4
# The two tilt numbers say by which share inverse depth grows over half the image's width and height. PULL draws them towards zero, per
# pixel; LONGEST_TILT is the most that they may change in one step.
PULL, LONGEST_TILT = 0.012, 0.05


def settle_tilt(
    frame: Tensor, views: Tensor, poses: Tensor, inverse: Tensor, focal: Tensor, principal: Tensor
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Tilts relative inverse depth such that the views agree with the frame.

    Args:
        frame: These are the frames, F x 3 x H x W in [0, 1].
        views: These are the views of each frame, F x S x 3 x H x W in [0, 1].
        poses: These are the motions to each view, F x S x 6, as `align` finds them.
        inverse: This is relative inverse depth, F x 1 x H x W.
        focal, principal: These describe the camera, F x 2 each.

    Returns:
        Better poses and inverse depths, in the units in which they were given.
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
        # When its inverse depth grows by the share `place`, a point moves along its ray by this much.
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
    """Returns how many pixels in x and y each point, R 3 H W, moves in its view per unit of six motion and two tilt numbers.

    The result is two R x 8 x H x W.
    """
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
    """Returns R x 3 x 3: by how much the view turns, in its own axes, when the axis-angle numbers change.

    It is exact to second order, which is enough for turns below a radian.
    """
    cross = cross_matrix(axis_angle)
    return torch.eye(3, device=axis_angle.device) + cross / 2 + cross @ cross / 6


def _solve(
    normal: Tensor, right: Tensor, tilt: Tensor, used: int, damping: Tensor, pull: Tensor
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Returns the changes of tilts, F x 2, and of motions, R x 6, that solve the normal equations, R x 8 x 8.

    Motions are eliminated first (the Schur complement), so that two equations per frame are left for the tilts.
    """
    mixed = normal[:, :6, 6:]
    solved = torch.linalg.solve(normal[:, :6, :6] + damping, torch.cat([right[:, :6], mixed], dim=2))
    alone, per_tilt = solved[:, :, :1], solved[:, :, 1:]
    reduced = (normal[:, 6:, 6:] - mixed.transpose(1, 2) @ per_tilt).unflatten(0, (-1, used)).sum(1) + pull
    wanted = (right[:, 6:] - mixed.transpose(1, 2) @ alone).unflatten(0, (-1, used)).sum(1) - pull @ tilt[:, :, None]
    change = torch.linalg.solve(reduced, wanted)
    return change[:, :, 0], (alone - per_tilt @ change.repeat_interleave(used, 0))[:, :, 0]
