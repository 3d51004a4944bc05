"""A head that can be turned: keypoints with their depth, which rotations move as a camera far away sees it (docs/method.md#turning-a-head).

Keypoints lie in the picture's plane. A `Relief` says how far behind it each of them is, and how steep the face is there. A rotation then
moves places and Jacobians alike, because the neighbourhood of a keypoint is a small plane that turns along. The way back is a fit: it
finds the rotation, size and shift that come nearest to keypoints that have moved.

Coordinates are the model's (x to the right and y down, the picture is 2 wide), with z away from the camera in the same unit.

Legend: B poses, K keypoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from dagan.geometry import inverse_2x2
from dagan.geometry.camera import axis_angle_to_rotation, cross_matrix
from dagan.models.keypoints import Keypoints

_STEPS = 8  # The fit has settled after so many steps for turns of up to 45 degrees.
_LONGEST_STEP = 1.0  # No step turns, grows or shifts by more: radians, the logarithm of size, heights of faces. Real heads need less.
_OUTLIER = 0.03  # A keypoint that is off by more than this, in faces' heights, moves by itself, and counts less in the fit.
# This much of a face's height is what a turn of one radian is thought to cost. It holds turns back that keypoints hardly tell.
_HOLD = 0.02


@dataclass(frozen=True)
class Relief:
    """How the keypoints of one source lie in depth."""

    depth: Tensor
    """How far each keypoint is behind the plane of the face, K, in the model's unit; it is negative in front of it."""
    slope: Tensor
    """By how much depth grows to the right and downwards round each keypoint, K x 2."""
    pivot: Tensor
    """The point x, y, z about which the head turns, 3."""
    height: float
    """The height of the face from hairline to chin, in the model's unit."""


@dataclass(frozen=True)
class HeadMotion:
    """Where heads went from the source's own pose."""

    turn: Tensor
    """Rotations as vectors, B x 3: their direction is the axis, and their length the angle in radians."""
    growth: Tensor
    """The logarithm of the change of size, B."""
    shift: Tensor
    """The way of the pivot in the picture, B x 2."""

    def part(self, share: float) -> HeadMotion:
        """Returns the same motion gone only so far, or farther for a share above 1."""
        return HeadMotion(self.turn * share, self.growth * share, self.shift * share)


def turn_of(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Returns the rotation, as a vector of 3 radians, of a head that turns by so many degrees.

    yaw turns it to the right side of the picture, pitch makes it look up, and roll leans it clockwise as seen.
    """
    return Rotation.from_euler("YXZ", [-yaw, -pitch, roll], degrees=True).as_rotvec()


def angles_of(rotation: np.ndarray) -> np.ndarray:
    """Returns yaw, pitch and roll in degrees, as `turn_of` takes them, of a 3 x 3 rotation."""
    yaw, pitch, roll = Rotation.from_matrix(rotation).as_euler("YXZ", degrees=True)
    return np.array([-yaw, -pitch, roll])


def moved_head(source: Keypoints, relief: Relief, motion: HeadMotion) -> Keypoints:
    """Returns the source's keypoints (batch 1) as they lie when its head has moved, B."""
    value, affine = _carried(source.value[0].double(), relief, motion)
    jacobian = affine @ source.jacobian.double()
    return Keypoints(value.to(source.value.dtype), jacobian.to(source.jacobian.dtype))


def _carried(places: Tensor, relief: Relief, motion: HeadMotion) -> tuple[Tensor, Tensor]:
    """Returns where K x 2 places go, B x K x 2, and what becomes of their neighbourhoods, B x K x 2 x 2, all in float64."""
    solid = torch.cat([places, relief.depth[:, None]], dim=1) - relief.pivot
    seen = motion.growth.exp()[:, None, None] * rotations(motion.turn)[:, :2]  # B 2 3
    value = relief.pivot[:2] + motion.shift[:, None] + torch.einsum("bij,kj->bki", seen, solid)
    affine = seen[:, None, :, :2] + seen[:, None, :, 2:] * relief.slope[:, None]
    return value, affine


def rotations(turn: Tensor) -> Tensor:
    """Returns the B x 3 x 3 rotations, in float64, of B x 3 vectors."""
    return axis_angle_to_rotation(turn).double()


def neighbourhoods(relief: Relief, motion: HeadMotion) -> Tensor:
    """Returns the B x K x 2 x 2 matrices that a motion of the head does to the neighbourhoods of keypoints, in float64."""
    return _carried(torch.zeros(len(relief.depth), 2, dtype=torch.float64), relief, motion)[1]


def plane(motion: HeadMotion) -> Tensor:
    """Returns the B x 2 x 2 matrices that a motion of the head does to what faces the camera, in float64."""
    return motion.growth.exp()[:, None, None] * rotations(motion.turn)[:, :2, :2]


def fitted_motion(source: Keypoints, relief: Relief, moved: Keypoints, weights: Sequence[float]) -> HeadMotion:
    """Finds how the head moved, from the source's keypoints (batch 1) and moved ones (B), by least squares.

    `weights` say how surely each of K keypoints goes where the head goes. Keypoints that are far off count less. The fit is that of
    Gauss and Newton, from the similarity in the picture's plane on.
    """
    home, target = source.value[0].double(), moved.value.double()
    batch, scale = len(target), relief.height
    counts = torch.tensor(weights, dtype=torch.float64)
    solid = (torch.cat([home, relief.depth[:, None]], dim=1) - relief.pivot) / scale
    wanted = (target - relief.pivot[:2]) / scale
    turn, growth, shift = _flat_fit(solid[:, :2], wanted, counts)
    hold = torch.diag(torch.tensor([_HOLD, _HOLD, 0, 0, 0, 0], dtype=torch.float64).square())
    for _ in range(_STEPS):
        rotated = torch.einsum("bij,kj->bki", rotations(turn), solid)  # B K 3
        size = growth.exp()[:, None, None]
        off = wanted - (size * rotated[..., :2] + shift[:, None])
        weight = (counts * (_OUTLIER / off.norm(dim=2).clamp(min=_OUTLIER)))[..., None]  # Huber's
        # These are the derivatives by a further small turn, by growth, and by the two shifts.
        by_turn = -size[..., None] * cross_matrix(rotated.reshape(-1, 3)).reshape(batch, -1, 3, 3)[:, :, :2]
        by_growth = (size * rotated[..., :2])[..., None]
        by_shift = torch.eye(2, dtype=torch.float64).expand(batch, len(solid), 2, 2)
        slope = torch.cat([by_turn, by_growth, by_shift], dim=3)  # B K 2 6
        normal = torch.einsum("bkij,bki,bkil->bjl", slope, weight.expand_as(off), slope) + hold + 1e-9 * torch.eye(6, dtype=torch.float64)
        pull = torch.einsum("bkij,bki->bj", slope, weight * off)
        pull[:, :2] -= hold[0, 0] * turn[:, :2]
        # Keypoints that lie on one spot or far outside tell of no turn, and an unbounded step would leave the numbers that a computer has.
        step = torch.linalg.solve(normal, pull).clamp(-_LONGEST_STEP, _LONGEST_STEP)
        turn = _joined(step[:, :3], turn)
        growth, shift = growth + step[:, 3], shift + step[:, 4:]
    return HeadMotion(turn, growth, shift * scale)


def _flat_fit(home: Tensor, wanted: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns turn, growth and shift of the similarity that brings K x 2 places nearest to B x K x 2 others."""
    share = (counts / counts.sum())[:, None]
    middle, middles = (share * home).sum(0), (share * wanted).sum(1)
    a = torch.view_as_complex((home - middle).contiguous())
    b = torch.view_as_complex((wanted - middles[:, None]).contiguous())
    factor = (counts * b * a.conj()).sum(1) / (counts * a.abs().square()).sum().clamp(min=1e-12)
    factor = torch.where(factor.abs() > 1e-3, factor, torch.ones_like(factor))
    turn = torch.zeros(len(wanted), 3, dtype=torch.float64)
    turn[:, 2] = factor.angle()
    growth = factor.abs().log()
    moved = torch.view_as_real(factor * torch.view_as_complex(middle.contiguous()))
    return turn, growth, middles - moved


def _joined(second: Tensor, first: Tensor) -> Tensor:
    """Returns the rotations that do `first` and then `second`, all of them as B x 3 vectors."""
    one, two = (Rotation.from_rotvec(vector.numpy()) for vector in (first, second))
    return torch.from_numpy((two * one).as_rotvec())


def relative_jacobians(source: Keypoints, moved: Keypoints) -> Tensor:
    """Returns what became of the neighbourhoods of the source's keypoints (batch 1): B x K x 2 x 2 in float64."""
    return moved.jacobian.double() @ inverse_2x2(source.jacobian.double())


def resting(batch: int) -> HeadMotion:
    """Returns the motion of B heads that stay where they are."""
    zero = torch.zeros(batch, 3, dtype=torch.float64)
    return HeadMotion(zero, zero[:, 0], zero[:, :2])
