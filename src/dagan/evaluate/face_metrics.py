"""Metrics between faces: head pose, expression, gaze. Landmarks are those of the 478-point mesh, x and y in pixels, z in their scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dagan.inference.reference import rotation_between
from dagan.media.mesh_points import LEFT_EYE_INNER, LEFT_EYE_OUTER, RIGHT_EYE_INNER, RIGHT_EYE_OUTER

Points = NDArray[np.floating]

ACTIVE = 0.25  # strength from which a movement counts as present
MOVES = 0.02  # standard deviation below which the driving face does not make a movement
FEWEST_FRAMES = 5  # below, a correlation says nothing
CLOSED = 0.5  # blink strength from which an iris cannot be seen well enough
# Radius of the eyeball in widths of the eye's opening: about 12 mm of about 30 mm in adults.
_EYEBALL = 0.4
_EYES = ((RIGHT_EYE_OUTER, RIGHT_EYE_INNER, 468), (LEFT_EYE_INNER, LEFT_EYE_OUTER, 473))  # viewer's left corner, right corner, iris


def head_pose_error(a: Points, b: Points) -> float:
    """Root mean square, in degrees, of yaw, pitch and roll between two heads, from P x 3 points that no expression moves.

    The rotation is the least-squares one (Procrustes; place and size left aside). 0 to 150.
    """
    angles = Rotation.from_matrix(rotation_between(a, b).T).as_euler("YXZ", degrees=True)
    return float(np.sqrt(np.square(angles).mean()))


def expression_agreement(a: Points, b: Points) -> float:
    """Share, 0 to 1, of movements (strengths E) that are present (at least `ACTIVE`) in both faces or in neither."""
    return float(np.mean((a >= ACTIVE) == (b >= ACTIVE)))


def expression_correlation(result: Points, driving: Points) -> float | None:
    """Mean over movements of the correlation, in [-1, 1], of their strengths over time (T x E each).

    Movements that the driving face does not make (standard deviation below `MOVES`) are left out; one that it makes and the
    result does not counts 0. None for fewer than `FEWEST_FRAMES` frames, or when the driving face makes none.
    """
    if len(driving) < FEWEST_FRAMES:
        return None
    moving = driving.std(0) >= MOVES
    if not moving.any():
        return None
    x, y = (v[:, moving] - v[:, moving].mean(0) for v in (result.astype(np.float64), driving.astype(np.float64)))
    norms = np.linalg.norm(x, axis=0) * np.linalg.norm(y, axis=0)
    products = (x * y).sum(0)
    still = x.std(0) < 1e-6
    return float(np.mean(np.where(still, 0.0, products / np.where(still, 1.0, norms))))


def gaze(landmarks: Points) -> NDArray[np.float64]:
    """Unit vector (right, down, forward) of the gaze relative to the eyes' openings, mean of both eyes.

    From where the iris lies between the corners of each eye, on an eyeball of 0.4 widths of its opening; the head's own turn is
    left aside as far as corners turn with it.
    """
    directions = []
    for first, second, iris in _EYES:
        corner, other = landmarks[first, :2].astype(np.float64), landmarks[second, :2].astype(np.float64)
        width = max(float(np.linalg.norm(other - corner)), 1e-6)
        across = (other - corner) / width
        offset = (landmarks[iris, :2] - (corner + other) / 2) / (_EYEBALL * width)
        side, down = float(offset @ across), float(offset @ np.array([-across[1], across[0]]))
        length = np.hypot(side, down)
        if length > 1:  # outside the eyeball: the rim is as far as an eye can turn
            side, down = side / length, down / length
        directions.append([side, down, np.sqrt(max(0.0, 1 - side**2 - down**2))])
    mean = np.mean(directions, axis=0)
    return mean / max(float(np.linalg.norm(mean)), 1e-9)


def gaze_error(a: Points, b: Points) -> float:
    """Angle in degrees, 0 to 180, between the gazes of two faces (landmarks 478 x >= 2)."""
    return float(np.degrees(np.arccos(np.clip(gaze(a) @ gaze(b), -1, 1))))
