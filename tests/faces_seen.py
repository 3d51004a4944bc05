"""Faces as a finder gives them, without pictures: for tests of what is done with them."""

from __future__ import annotations

import numpy as np

from dagan.media.framing import FaceBox
from dagan.media.landmarks import CHIN, FOREHEAD_TOP, LEFT_EYE_OUTER, RIGHT_EYE_OUTER


def seen(box: tuple[float, float, float, float], angle: float = 0.0) -> FaceBox:
    """An upright face that fills the box, turned clockwise by `angle` (radians) round the box's middle."""
    x0, y0, x1, y1 = box
    middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], dtype=np.float64)
    points = corners[np.arange(478) % 4]
    points[RIGHT_EYE_OUTER], points[LEFT_EYE_OUTER] = ((x0 * 3 + x1) / 4, middle[1]), ((x0 + x1 * 3) / 4, middle[1])
    points[FOREHEAD_TOP], points[CHIN] = (middle[0], y0), (middle[0], y1)
    cos, sin = np.cos(angle), np.sin(angle)
    points = (points - middle) @ np.array([[cos, sin], [-sin, cos]]) + middle
    (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    landmarks = np.concatenate([points, np.zeros((478, 1))], axis=1).astype(np.float32)
    return FaceBox((left, top, right, bottom), 1.0, landmarks)
