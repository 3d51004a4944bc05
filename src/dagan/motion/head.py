"""The head's part of a motion, which is rigid, and expression, which is the rest.

A head can be turned: keypoints have depth, and rotations move them as a camera far away sees it (docs/method.md#turning-a-head). Keypoints
lie in the picture's plane. A `Relief` says how far behind it each of them is, and how steep the face is there. A rotation then moves
places and Jacobians alike, because the neighbourhood of a keypoint is a small plane that turns along. The way back is a fit: it finds the
rotation, size and shift that come nearest to keypoints that have moved.

The motion that reaches a source is taken apart into head and face, and each part is kept, scaled or left out (docs/method.md#what-moves).
The head's part is the rigid motion that fits best. What keypoints on landmarks do beside it is expression: mouth, lids, gaze, brows. No
fit is exact, so expression is what they do relative to a point nearby that hardly moves on a face: the lower lid for an eye and its brow,
the outer upper lip for the mouth. What is left at those, and at keypoints that stand on no landmark, goes with the head, because it is
how a model shows a turned one. Models without keypoints on landmarks have only the fit to go by, so everything that is left is expression.

Coordinates are the model's (x to the right and y down, the picture is 2 wide), with z away from the camera in the same unit.

Legend: B poses or frames, K keypoints, L of them on landmarks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from dagan.errors import InputError
from dagan.geometry import axis_angle_to_rotation, cross_matrix, inverse_2x2
from dagan.models.keypoints import Keypoints
from dagan.motion.openings import FaceKeypoints

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


MoveChoice = Literal["all", "expression", "pose", "mouth", "eyes"]
MOST_STRENGTH = 2.0
# These mesh points make the mouth and the eyes: lips, corners and chin; lids, irises and brows.
MOUTH = frozenset((61, 291, 13, 14, 0, 17, 152))
EYES = frozenset((159, 145, 386, 374, 468, 473, 105, 334))
# How surely a mesh point goes where the head goes. Lower lids, brows and the outer upper lip hardly do anything else. Points that are not
# named do not count.
_STEADY = {145: 1.0, 374: 1.0, 105: 0.5, 334: 0.5, 468: 0.5, 473: 0.5, 159: 0.3, 386: 0.3, 61: 0.3, 291: 0.3, 0: 0.5, 152: 0.1}
# Each point moves relative to its anchor, as far as expression goes.
_ANCHORS = {
    159: 145, 468: 145, 105: 145, 145: 145, 386: 374, 473: 374, 334: 374, 374: 374,
    61: 0, 291: 0, 13: 0, 14: 0, 17: 0, 152: 0, 0: 0,
}  # fmt: skip
_FREE = 0.15  # So surely do keypoints that stand on no landmark.


def check_move(move: str) -> MoveChoice:
    """Returns the choice. Raises InputError when there is no such one."""
    for known in get_args(MoveChoice):
        if move == known:
            return known
    raise InputError(f"--move is {move!r}: must be {', '.join(get_args(MoveChoice))}")


def check_strength(strength: float) -> None:
    """Raises InputError for a strength outside 0 to 2."""
    if not 0 <= strength <= MOST_STRENGTH:
        raise InputError(f"--strength is {strength:g}: must be from 0 (nothing moves) to {MOST_STRENGTH:g} (twice as far); 1 is as driven")


def changes(move: str, strength: float) -> bool:
    """Says whether motion comes out other than it went in. Raises InputError for a choice or a strength that there is not."""
    check_strength(strength)
    return check_move(move) != "all" or strength != 1


def check_parts(move: str, face: FaceKeypoints, model: str) -> None:
    """Raises InputError for a part of the face on which this model has no keypoints."""
    points = {"mouth": MOUTH, "eyes": EYES}.get(check_move(move))
    if points is not None and not points & set(face.landmarks):
        raise InputError(
            f"--move {move}: no keypoints of model {model!r} stand on landmarks there: use all, expression or pose, or another model"
        )


@dataclass(frozen=True)
class Parts:
    """How much of the head's and of the face's motion reaches a source."""

    head: float
    """So much of the head's motion is kept; 1 is as driven."""
    shares: tuple[float, ...]
    """So much of the rest is kept at each of K keypoints."""
    weights: tuple[float, ...]
    """How surely each keypoint goes where the head goes."""
    anchors: tuple[int | None, ...]
    """The keypoint relative to which each moves in expression; None for keypoints that have none."""
    relief: Relief
    """How the source's keypoints lie in depth."""

    def kept(self, source: Keypoints, moved: Keypoints) -> Keypoints:
        """Returns what is left of `moved` (B), the keypoints that would drive the source (batch 1)."""
        full = fitted_motion(source, self.relief, moved, self.weights)
        wanted = full.part(self.head)
        then, now = (moved_head(source, self.relief, motion) for motion in (full, wanted))
        shares = torch.tensor(self.shares, dtype=torch.float64)
        # What is left is turned back with the head's plane, so that it points to where it pointed on the face.
        back = plane(wanted) @ inverse_2x2(plane(full))
        rest = (moved.value.double() - then.value.double()) @ back.transpose(1, 2)
        value = now.value.double() + shares[:, None] * (rest - self._anchored(rest)) + self.head * self._anchored(rest)
        jacobian = self._jacobians(source, moved, full, wanted, shares)
        return Keypoints(value.to(moved.value.dtype), jacobian.to(moved.jacobian.dtype))

    def exchanged(self, home: Keypoints, own: Keypoints, driven: Keypoints) -> Keypoints:
        """Returns `own` with its expression exchanged for that of `driven`, where a share of it is kept (B, or 1 for each).

        `home` (batch 1) is the same face at rest, from which both count. Head and Jacobians stay as they are in `own`.
        """
        head, other = (fitted_motion(home, self.relief, moved, self.weights) for moved in (own, driven))
        was = own.value.double() - moved_head(home, self.relief, head).value.double()
        turned = plane(head) @ inverse_2x2(plane(other))
        comes = (driven.value.double() - moved_head(home, self.relief, other).value.double()) @ turned.transpose(1, 2)
        shares = torch.tensor(self.shares, dtype=torch.float64)[:, None]
        on_face = torch.tensor([float(anchor is not None) for anchor in self.anchors], dtype=torch.float64)[:, None]
        if not on_face.any():
            on_face = torch.ones_like(on_face)
        change = shares * (comes - self._anchored(comes)) - (shares > 0) * (was - self._anchored(was))
        return Keypoints((own.value.double() + on_face * change).to(own.value.dtype), own.jacobian)

    def _anchored(self, rest: Tensor) -> Tensor:
        """Returns for each keypoint what is left at its anchor, B x K x 2; 0 for keypoints without one."""
        held = torch.zeros_like(rest)
        for i, anchor in enumerate(self.anchors):
            if anchor is not None:
                held[:, i] = rest[:, anchor]
        return held

    def _jacobians(self, source: Keypoints, moved: Keypoints, full: HeadMotion, wanted: HeadMotion, shares: Tensor) -> Tensor:
        """Returns the Jacobians: what the head does to a neighbourhood, and a share of the change that is not the head's."""
        own = inverse_2x2(neighbourhoods(self.relief, full)) @ relative_jacobians(source, moved)
        identity = torch.eye(2, dtype=torch.float64)
        change = identity + shares[:, None, None] * (own - identity)
        return neighbourhoods(self.relief, wanted) @ change @ source.jacobian.double()


def parts_of(move: str, strength: float, face: FaceKeypoints, relief: Relief) -> Parts:
    """Returns which part of motion is kept. Raises InputError for a choice or a strength that there is not.

    Args:
        move: all, expression (the head stays), pose (the face stays), mouth or eyes (everything else stays).
        strength: So much of what moves is kept; 1 is as driven.
        face: It says which keypoints stand on landmarks.
        relief: See `Parts`.
    """
    check_strength(strength)
    move = check_move(move)
    count = len(relief.depth)
    on_face = len(face.landmarks)
    head = strength if move in ("all", "pose") else 0.0
    points = set(MOUTH if move == "mouth" else EYES if move == "eyes" else MOUTH | EYES if move in ("all", "expression") else ())
    points |= {point for point in face.landmarks if move in ("all", "expression")}
    shares = [strength if point in points else 0.0 for point in face.landmarks]
    apart = head if on_face else (strength if move in ("all", "expression") else 0.0)
    weights = [_STEADY.get(point, 0.0) for point in face.landmarks] + [_FREE if on_face else 1.0] * (count - on_face)
    index = {point: i for i, point in enumerate(face.landmarks)}
    anchors = [index.get(_ANCHORS.get(point, -1)) for point in face.landmarks] + [None] * (count - on_face)
    return Parts(head, tuple(shares + [apart] * (count - on_face)), tuple(weights), tuple(anchors), relief)
