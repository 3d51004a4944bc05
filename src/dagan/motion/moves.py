"""Motions that come with the package: six that are made by hand, of poses, for whatever face is to move (docs/method.md#made-motions).

They hold no keypoints. Those are made for the source and the model at hand, so they fit every model that can be posed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from scipy.interpolate import PchipInterpolator

from dagan.motion.pose import NEEDS, Pose

RATE = Fraction(25)
# Times in seconds and values of one field of a pose; between them a smooth curve leads, without overshoot.
Track = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class MadeMotion:
    """A motion as curves over time. It starts and ends at rest, so it can be repeated."""

    about: str
    """What one sees, in a sentence."""
    seconds: float
    """How long it takes."""
    tracks: Mapping[str, Track]
    """The curve of each field of `Pose` that moves."""

    @property
    def needs_landmarks(self) -> bool:
        """Whether mouth or eyes move, for which a model's keypoints must stand on landmarks."""
        return bool(set(NEEDS) & set(self.tracks))

    def poses(self) -> list[Pose]:
        """Returns a pose for every frame, 25 a second."""
        times = np.arange(round(self.seconds * RATE)) / float(RATE)
        values = {}
        for name, track in self.tracks.items():
            places, heights = np.array([(0.0, 0.0), *track, (self.seconds, 0.0)]).T
            values[name] = PchipInterpolator(places, heights)(times)
        return [Pose(**{name: float(curve[i]) for name, curve in values.items()}) for i in range(len(times))]


def _blinks(*times: float) -> Track:
    """Lids close within a tenth of a second and open within a fifth."""
    return [point for time in times for point in ((time - 0.1, 0.0), (time, -1.0), (time + 0.04, -1.0), (time + 0.22, 0.0))]


def _syllables() -> Track:
    """The mouth of four words, of 3, 4, 2 and 3 syllables, which open it differently far and close it in between."""
    words = ((0.3, (0.35, 0.6, 0.3)), (1.1, (0.5, 0.25, 0.45, 0.2)), (2.2, (0.65, 0.35)), (2.9, (0.3, 0.55, 0.2)))
    points: list[tuple[float, float]] = []
    for start, heights in words:
        points.append((start, 0.0))
        for i, height in enumerate(heights):
            points += [(start + 0.1 + 0.2 * i, height), (start + 0.2 + 0.2 * i, 0.08 if i + 1 < len(heights) else 0.0)]
    return points


MOTIONS: dict[str, MadeMotion] = {
    "nod": MadeMotion(
        "The head nods twice.", 2.4,
        {"pitch": [(0.1, 0.0), (0.5, -11.0), (0.9, 5.0), (1.3, -10.0), (1.8, 3.0), (2.2, 0.0)]},
    ),
    "shake": MadeMotion(
        "The head is shaken.", 2.8,
        {"yaw": [(0.1, 0.0), (0.5, 14.0), (1.05, -14.0), (1.6, 12.0), (2.1, -8.0), (2.6, 0.0)]},
    ),
    "look": MadeMotion(
        "The face looks round, to either side and up; the eyes go first.", 5.2,
        {
            "gaze_x": [(0.2, 0.0), (0.4, 0.9), (1.3, 0.4), (1.7, -0.9), (2.8, -0.4), (3.1, 0.0)],
            "gaze_y": [(3.1, 0.0), (3.3, 0.8), (4.2, 0.4), (4.6, 0.0)],
            "yaw": [(0.3, 0.0), (0.9, 18.0), (1.5, 18.0), (2.2, -18.0), (2.8, -18.0), (3.6, 0.0)],
            "pitch": [(3.1, 0.0), (3.8, 9.0), (4.2, 9.0), (4.9, 0.0)],
            "lids": _blinks(1.65, 3.1),
        },
    ),
    "smile": MadeMotion(
        "A smile comes and goes.", 3.6,
        {
            "smile": [(0.2, 0.0), (0.8, 0.9), (2.4, 1.0), (3.2, 0.0)],
            "lids": [(0.3, 0.0), (0.9, -0.12), (2.4, -0.12), (3.2, 0.0)],
            "roll": [(0.2, 0.0), (1.1, 3.0), (2.4, 3.0), (3.4, 0.0)],
            "pitch": [(0.2, 0.0), (1.1, 3.0), (2.4, 3.0), (3.4, 0.0)],
        },
    ),
    "blink": MadeMotion("The eyes blink twice.", 2.4, {"lids": _blinks(0.6, 1.5)}),
    "speak": MadeMotion(
        "The mouth speaks, without sound, and the head goes a little with it.", 4.2,
        {
            "mouth": _syllables(),
            "smile": [(0.5, -0.2), (0.9, 0.3), (1.3, -0.3), (2.3, 0.25), (3.1, -0.25), (3.8, 0.0)],
            "yaw": [(0.6, 3.0), (1.6, -3.0), (2.6, 2.0), (3.9, 0.0)],
            "pitch": [(0.4, -3.0), (1.2, 2.0), (2.3, -3.0), (3.0, 1.5), (3.9, 0.0)],
            "lids": _blinks(1.0, 2.75),
        },
    ),
}  # fmt: skip
