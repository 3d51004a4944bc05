"""Depth of a frame from many frames of its clip (multi-view stereo): what pairs of frames leave open, wide turns settle.

How a turned face stands hardly shows in the photometric error of one pair, because the motion that is fitted makes up for it
(docs/depth.md). In all frames of a turn together it shows: a frame is aligned with those before and after it, each from where
the one between was found; how the network's depth stands is settled together with those motions (`train.depth.alignment`); then the inverse
depth at which all look most alike is searched for (a plane sweep), and the network's is moved towards it as far as the pictures are
sure. Nothing but frames enters; the network needs a first idea of heads.

Legend: F frames to find depth for, K views of each, S of them used, J inverse depths tried, H W image. Inverse depth is relative to the
head's (`alignment.head_level`). Views 0 .. K/2 - 1 lead away from the frame in time, K/2 .. K - 1 in the other direction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dagan.geometry.camera import back_project, intrinsics, invert_intrinsics, project, rigid_motion
from dagan.losses.photometric import warp
from dagan.losses.relief import HEAD, HEAD_SOFTNESS
from dagan.train.depth.alignment import align, head_level, settle_tilt
from dagan.train.recipe import LEAST_VIEWS

# Coarse to fine as in `alignment.SIDES`, for a view that starts where its neighbour was found.
SIDES = ((32, 3), (64, 3), (128, 2))
# Radians. Smaller turns show no relief; beyond the second views are hidden or badly placed; no view is followed past the third.
LEAST_TURN, MOST_TURN, END_TURN = math.radians(3), math.radians(18), math.radians(30)
# Nor where it would have been shifted by more than this, in units of the head's distance: the head was lost.
END_SHIFT = 0.5
# A depth takes at least so many views; more than the second bring little.
MOST_VIEWS = 16
# Relative inverse depths tried: from the ears to beyond the nose.
FARTHEST_TRIED, NEAREST_TRIED, TRIED = 0.85, 1.10, 26
# Side of the windows that are compared, and standard deviation, in pixels, over which their costs are averaged.
WINDOW, SPREAD = 5, 2.0
# Added to variances: below it a window counts as having no texture.
TEXTURE = 2e-4
# Corrections are averaged over windows of these standard deviations, in image widths, coarse first; the finer one takes over where the
# confidence in it exceeds ENOUGH. Corrections beyond LARGEST are errors.
SMOOTH, ENOUGH, LARGEST = (1 / 16, 1 / 32), 0.1, 0.08


@dataclass(frozen=True)
class DepthFromViews:
    """inverse: F x 1 x H x W, relative inverse depth, the network's own without enough views. usable: F bool, had enough views."""

    inverse: Tensor
    usable: Tensor


@torch.no_grad()
def depth_from_views(
    frame: Tensor, views: Tensor, present: Tensor, disparity: Tensor, focal: Tensor, principal: Tensor
) -> DepthFromViews:
    """Corrects the network's inverse depth of frames by other frames of their clips.

    Args:
        frame: F x 3 x H x W in [0, 1]; views: F x K x 3 x H x W; present: F x K bool, whether a view exists.
        disparity: F x 1 x H x W, inverse depth by the network, of any scale.
        focal, principal: F x 2, the normalised camera of `geometry.camera`.
    """
    # Solving for motion needs float32, whatever precision networks run in.
    with torch.autocast(frame.device.type, enabled=False):
        own = disparity.float() / head_level(disparity.float())
        poses, found = _follow(frame, views, present, own, focal, principal)
        turn = torch.linalg.vector_norm(poses[..., :3], dim=-1)
        chosen, usable = _choose(found & (turn > LEAST_TURN) & (turn < MOST_TURN))
        rows = usable.nonzero()[:, 0]
        if len(rows):
            places = (rows[:, None], chosen[rows])
            own[rows] = _by_views(frame[rows], views[places], poses[places], own[rows], focal[rows], principal[rows])
        return DepthFromViews(own, usable)


def _by_views(frame: Tensor, views: Tensor, poses: Tensor, own: Tensor, focal: Tensor, principal: Tensor) -> Tensor:
    """Relative inverse depth of frames with S views each, F x S x 3 x H x W, and their motions F x S x 6."""
    poses, inverse = settle_tilt(frame, views, poses, own, focal, principal)
    seen, confidence = _sweep(frame, views, poses, focal, principal)
    head = torch.sigmoid((inverse - HEAD) / HEAD_SOFTNESS)
    inverse = torch.lerp(inverse, _corrected(inverse, seen, confidence * head), head)
    return inverse / head_level(inverse)


def _follow(
    frame: Tensor, views: Tensor, present: Tensor, inverse: Tensor, focal: Tensor, principal: Tensor
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Motions F x K x 6 (rotation, translation, as `align` finds them) to the views, and which were reached, the head not lost."""
    count, ways = present.shape
    poses = frame.new_zeros(count, ways, 6)
    found = torch.zeros_like(present)
    for way in (0, ways // 2):
        going, last = torch.ones_like(present[:, 0]), frame.new_zeros(count, 6)
        for k in range(way, way + ways // 2):
            going = going & present[:, k]
            rows = going.nonzero()[:, 0]
            if not len(rows):
                break
            pose = align(frame[rows], views[rows, k], inverse[rows], focal[rows], principal[rows], last[rows], SIDES)
            last = last.index_put((rows,), torch.cat(pose, dim=1))
            going = going & (torch.linalg.vector_norm(last[:, 3:], dim=1) < END_SHIFT)
            poses[:, k], found[:, k] = last, going
            going = going & (torch.linalg.vector_norm(last[:, :3], dim=1) < END_TURN)
    return poses, found


def _choose(good: Tensor) -> tuple[Tensor, Tensor]:
    """Which views to use: indices F x S, evenly over those that are good (F x K bool), with repetitions; and which F have enough."""
    number = good.sum(1)
    order = torch.argsort(good.int(), dim=1, descending=True, stable=True)
    places = torch.arange(MOST_VIEWS, device=good.device) * number[:, None] // MOST_VIEWS
    return order.gather(1, places), number >= LEAST_VIEWS


def _sweep(frame: Tensor, views: Tensor, poses: Tensor, focal: Tensor, principal: Tensor) -> tuple[Tensor, Tensor]:
    """Relative inverse depth at which the views (F x S) look most like the frame, F x 1 x H x W, and how clearly, at least 0."""
    count, used = poses.shape[:2]
    size = (frame.shape[-2], frame.shape[-1])
    grey = frame.mean(1, keepdim=True)
    others = views.mean(2).flatten(0, 1)[:, None]
    motion = poses.flatten(0, 1)
    pivot = motion.new_tensor([0.0, 0.0, 1.0]).expand(len(motion), 3)
    moved = rigid_motion(motion[:, :3], motion[:, 3:], pivot=pivot)
    matrix = intrinsics(focal, principal, size)
    rays = back_project(torch.ones_like(grey), invert_intrinsics(matrix)).repeat_interleave(used, 0)
    matrix = matrix.repeat_interleave(used, 0)
    mean = _local_mean(grey)
    deviation = _deviation(grey, mean).repeat_interleave(used, 0)
    mean, grey = mean.repeat_interleave(used, 0), grey.repeat_interleave(used, 0)
    tried = torch.linspace(FARTHEST_TRIED, NEAREST_TRIED, TRIED, device=frame.device)
    costs = []
    for inverse in tried:
        seen = warp(others, project(rays / inverse, matrix, moved))
        seen_mean = _local_mean(seen)
        covariance = _local_mean(seen * grey) - seen_mean * mean
        # Correlation, not difference: a face that turns is lit differently.
        correlation = covariance / (deviation * _deviation(seen, seen_mean))
        costs.append(1 - correlation.unflatten(0, (count, used)).mean(1))
    return lowest(_blur(torch.cat(costs, dim=1), SPREAD), tried)


def lowest(cost: Tensor, tried: Tensor) -> tuple[Tensor, Tensor]:
    """Where costs (F x J x H x W) of the values tried (J, evenly spaced) are lowest, by a parabola, and how clearly."""
    best = cost.argmin(1, keepdim=True).clamp(1, len(tried) - 2)
    low, middle, high = (cost.gather(1, best + k) for k in (-1, 0, 1))
    curvature = (low + high - 2 * middle).clamp(min=1e-6)
    place = tried[best] + ((low - high) / (2 * curvature)).clamp(-1, 1) * (tried[1] - tried[0])
    return place, curvature / (cost.amin(1, keepdim=True) + 0.1).square()


def _corrected(own: Tensor, seen: Tensor, confidence: Tensor) -> Tensor:
    """The network's inverse depth plus the smoothed difference to what was seen: its detail stays."""
    difference = (seen - own).clamp(-LARGEST, LARGEST)
    correction = torch.zeros_like(own)
    for share in SMOOTH:
        weight = _blur(confidence, share * own.shape[-1])
        here = _blur(confidence * difference, share * own.shape[-1]) / weight.clamp(min=1e-6)
        correction = torch.lerp(correction, here, weight / (weight + ENOUGH))
    return own + correction


def _local_mean(x: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(x, (WINDOW // 2,) * 4, mode="replicate"), WINDOW, 1)


def _deviation(x: Tensor, mean: Tensor) -> Tensor:
    return ((_local_mean(x.square()) - mean.square()).clamp(min=0) + TEXTURE).sqrt()


def _blur(x: Tensor, deviation: float) -> Tensor:
    from kornia.filters import gaussian_blur2d

    side = 2 * math.ceil(2.5 * deviation) + 1
    return gaussian_blur2d(x, (side, side), (deviation, deviation), border_type="replicate")
