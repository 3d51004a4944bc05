"""What moves: the motion that reaches a source is taken apart into head and face, and each part is kept, scaled or left out.

The head's part is the rigid motion that fits best. What keypoints on landmarks do beside it is expression: mouth, lids, gaze, brows. No
fit is exact, so expression is what they do relative to a point nearby that hardly moves on a face: the lower lid for an eye and its brow,
the outer upper lip for the mouth. What is left at those, and at keypoints that stand on no landmark, goes with the head, because it is
how a model shows a turned one. Models without keypoints on landmarks have only the fit to go by, so everything that is left is expression
(docs/method.md#what-moves).

Legend: B frames, K keypoints, L of them on landmarks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from dagan.errors import InputError
from dagan.geometry import inverse_2x2
from dagan.models.keypoints import Keypoints
from dagan.motion.head import HeadMotion, Relief, fitted_motion, moved_head, neighbourhoods, plane, relative_jacobians
from dagan.motion.openings import FaceKeypoints

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
