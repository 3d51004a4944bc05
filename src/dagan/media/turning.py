"""Pictures turned such that a face in them stands upright.

Angles are in radians, clockwise as seen: the angle of a face is by how much it leans. Positions are x, y in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dagan.media.mesh_points import CHIN, FOREHEAD_TOP, LEFT_EYE_OUTER, RIGHT_EYE_OUTER

# People lean their heads this far, and models are trained on that: what leans more was filmed or stored turned.
_NATURAL = math.radians(22.5)
_NEAR_QUARTER = math.radians(10)  # a camera held sideways; turning by exact quarters moves pixels without filtering them


def lean(landmarks: np.ndarray) -> float:
    """The angle of a face with these mesh landmarks (478 x 2 or more columns), from -pi to pi.

    The line of the eyes and the line from forehead to chin count by their lengths: seen from the side the eyes' is short.
    """
    across = landmarks[LEFT_EYE_OUTER, :2] - landmarks[RIGHT_EYE_OUTER, :2]
    down = landmarks[CHIN, :2] - landmarks[FOREHEAD_TOP, :2]
    return math.atan2(float(across[1] - down[0]), float(across[0] + down[1]))


def upright_angle(angle: float) -> float:
    """The angle by which to turn for a face that leans so much: 0 for a natural lean, exact quarter turns near those."""
    angle = math.remainder(angle, math.tau)
    if abs(angle) <= _NATURAL:
        return 0.0
    quarter = round(angle / (math.pi / 2)) * (math.pi / 2)
    return quarter if abs(angle - quarter) <= _NEAR_QUARTER else angle


def quarters(angle: float) -> int | None:
    """The number of quarter turns, 0 to 3, that the angle is; None where it is none exactly."""
    count = angle / (math.pi / 2)
    return round(count) % 4 if abs(count - round(count)) < 1e-9 else None


@dataclass(frozen=True)
class Turn:
    """A width x height picture turned back by `angle`, on the smallest upright canvas that holds it."""

    angle: float
    width: int
    height: int

    @cached_property
    def size(self) -> tuple[float, float]:
        """Width and height of the canvas."""
        cos, sin = abs(math.cos(self.angle)), abs(math.sin(self.angle))
        return self.width * cos + self.height * sin, self.width * sin + self.height * cos

    def forward(self, points: np.ndarray) -> np.ndarray:
        """Positions (... x 2) in the picture -> on the canvas."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        moved = points - np.array([self.width / 2, self.height / 2])
        return moved @ np.array([[cos, -sin], [sin, cos]]) + np.array(self.size) / 2

    def back(self, points: np.ndarray) -> np.ndarray:
        """Positions (... x 2) on the canvas -> in the picture."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        moved = points - np.array(self.size) / 2
        return moved @ np.array([[cos, sin], [-sin, cos]]) + np.array([self.width / 2, self.height / 2])
