"""Losses on keypoints: equivariance of positions and Jacobians, and a distance hinge (docs/method.md#losses).

Legend: B batch, K keypoints.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dagan.geometry import ThinPlateTransform, inverse_2x2
from dagan.models.keypoints import Keypoints


def equivariance(driving: Keypoints, transformed: Keypoints, transform: ThinPlateTransform) -> tuple[Tensor, Tensor]:
    """(position, Jacobian) losses: keypoints of the transformed frame, mapped by the transform, are those of the frame.

    Position: mean |p - T(p')|; Jacobian: mean |1 - J^-1 T'(p') J'|.
    """
    value = (driving.value - transform.warp_coordinates(transformed.value)).abs().mean()
    mapped = transform.jacobian(transformed.value) @ transformed.jacobian
    identity = torch.eye(2, device=mapped.device)
    return value, (identity - inverse_2x2(driving.jacobian) @ mapped).abs().mean()


def guidance(value: Tensor, points: Tensor, openings: Sequence[tuple[int, int]] = ()) -> Tensor:
    """Mean |p - q| of keypoints and the landmarks that guide them, both B x K x 2; landmarks that are NaN do not count.

    openings: pairs of places whose difference is compared too, and added as a mean of its own: a lid that is off by its eye's
    opening costs little as a place, and everything as a blink.
    Ours, not the paper's: nothing in reconstruction losses finds eyelids and lips before everything else is right.
    """
    loss = _mean_distance(value, points)
    if openings:
        first, second = ([pair[i] for pair in openings] for i in (0, 1))
        loss = loss + _mean_distance(value[:, first] - value[:, second], points[:, first] - points[:, second])
    return loss


def _mean_distance(value: Tensor, points: Tensor) -> Tensor:
    known = points.isfinite()
    difference = (value - torch.where(known, points, 0)).abs() * known
    return difference.sum() / known.sum().clamp(min=1)


def keypoint_distance(value: Tensor, alpha: float = 0.2) -> Tensor:
    """Mean of max(0, alpha - |p_i - p_j|) over pairs i != j of B x K x 2 positions.

    A hinge on the distance itself: the sign-based form has no gradient (docs/method.md#faults-that-are-not-repeated).
    """
    count = value.shape[1]
    first, second = torch.triu_indices(count, count, offset=1, device=value.device)
    # The small constant keeps the gradient of the root finite where two keypoints coincide.
    distance = ((value[:, first] - value[:, second]).square().sum(-1) + 1e-8).sqrt()
    return (alpha - distance).clamp(min=0).mean()
