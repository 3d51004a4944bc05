"""Losses on keypoints: equivariance of positions and Jacobians, guidance by landmarks, and a least distance (docs/method.md#losses).

Legend: B batch, K keypoints.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dagan.geometry import ThinPlateTransform, inverse_2x2
from dagan.models.keypoints import Keypoints


def equivariance(driving: Keypoints, transformed: Keypoints, transform: ThinPlateTransform) -> tuple[Tensor, Tensor]:
    """Returns the losses of positions and of Jacobians. Keypoints of the transformed frame, mapped by the transform, must be the frame's.

    They are mean |p - T(p')| and mean |1 - J^-1 T'(p') J'|.
    """
    value = (driving.value - transform.warp_coordinates(transformed.value)).abs().mean()
    mapped = transform.jacobian(transformed.value) @ transformed.jacobian
    identity = torch.eye(2, device=mapped.device)
    return value, (identity - inverse_2x2(driving.jacobian) @ mapped).abs().mean()


def guidance(value: Tensor, points: Tensor, openings: Sequence[tuple[int, int]] = ()) -> Tensor:
    """Returns the mean |p - q| of keypoints and the landmarks that guide them, both B x K x 2. Landmarks that are NaN do not count.

    `openings` are pairs of places whose difference is compared too; its mean is added. A lid that is off by its eye's opening costs
    little as a place, but a whole blink as an opening. This loss is not the paper's: reconstruction losses do not find eyelids and lips
    before everything else is right.
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
    """Returns the mean of max(0, alpha - |p_i - p_j|) over pairs i != j of positions, B x K x 2.

    It is a hinge on the distance itself, because the form with a sign has no gradient (docs/method.md#faults-that-are-not-repeated).
    """
    count = value.shape[1]
    first, second = torch.triu_indices(count, count, offset=1, device=value.device)
    # The small number keeps the gradient of the root finite where two keypoints coincide.
    distance = ((value[:, first] - value[:, second]).square().sum(-1) + 1e-8).sqrt()
    return (alpha - distance).clamp(min=0).mean()
