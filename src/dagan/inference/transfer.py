"""Motion transfer: the driving keypoints brought to the source's face (METHOD section 8)."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import ConvexHull, QhullError

from dagan.geometry import inverse_2x2
from dagan.models.keypoints import Keypoints


def transfer(source: Keypoints, driving: Keypoints, initial: Keypoints, relative: bool = True, adapt_scale: bool = True) -> Keypoints:
    """Keypoints to drive the source with, for a batch of driving frames (B x K x 2 and B x K x 2 x 2).

    relative: value = p_S + s (p_D - p_0), Jacobian = J_D J_0^-1 J_S, where `initial` (batch 1) is the reference driving
    frame; otherwise the driving keypoints as they are. adapt_scale: s = sqrt(hull area of source / of initial), else 1.
    """
    if not relative:
        return driving
    scale = movement_scale(source, initial) if adapt_scale else 1.0
    value = source.value + scale * (driving.value - initial.value)
    jacobian = driving.jacobian @ inverse_2x2(initial.jacobian) @ source.jacobian
    return Keypoints(value, jacobian)


def movement_scale(source: Keypoints, initial: Keypoints) -> float:
    """sqrt(area of the convex hull of the source keypoints / that of `initial`'s), both of batch 1; 1 where a hull has no area."""
    areas = [_hull_area(k.value[0]) for k in (source, initial)]
    return float(np.sqrt(areas[0] / areas[1])) if min(areas) > 0 else 1.0


def _hull_area(points: torch.Tensor) -> float:
    try:
        return float(ConvexHull(points.detach().float().cpu().numpy()).volume)  # in two dimensions `volume` is the area
    except QhullError:  # fewer than three points, or all on a line
        return 0.0
