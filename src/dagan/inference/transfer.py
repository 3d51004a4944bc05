"""Motion transfer: the driving keypoints brought to the source's face (docs/method.md#motion-transfer)."""

from __future__ import annotations

from dagan.geometry import inverse_2x2
from dagan.inference.limit import layout_radius, limit
from dagan.inference.openings import FaceKeypoints
from dagan.models.keypoints import Keypoints


def transfer(
    source: Keypoints,
    driving: Keypoints,
    initial: Keypoints,
    relative: bool = True,
    adapt_scale: bool = True,
    limit_motion: bool = True,
    face: FaceKeypoints | None = None,
) -> Keypoints:
    """Keypoints to drive the source with, for a batch of driving frames (B x K x 2 and B x K x 2 x 2).

    relative: value = p_S + s (p_D - p_0), Jacobian = J_D J_0^-1 J_S, where `initial` (batch 1) is the reference driving
    frame; otherwise the driving keypoints as they are. adapt_scale: s = sqrt(hull area of source / of initial), else 1.
    limit_motion: damp what goes farther from the source than a model can draw (see `dagan.inference.limit`). face: which keypoints
    stand on landmarks, whose openings are carried (see `dagan.inference.openings`); None takes them like any others.
    """
    moved = driving
    face = face or FaceKeypoints()
    scale = 1.0
    if relative:
        scale = movement_scale(source, initial) if adapt_scale else 1.0
        value = source.value + scale * (driving.value - initial.value)
        moved = Keypoints(value, driving.jacobian @ inverse_2x2(initial.jacobian) @ source.jacobian)
    moved = face.carried(source, driving, initial if relative else None, moved, scale)
    return limit(source, moved, face.rigid(source.value.shape[1]))[0] if limit_motion else moved


def movement_scale(source: Keypoints, initial: Keypoints) -> float:
    """sqrt(area of the convex hull of the source keypoints / that of `initial`'s), both of batch 1; 1 where a hull has no area."""
    own, other = (layout_radius(k.value[0]) for k in (source, initial))
    return own / other if min(own, other) > 0 else 1.0
