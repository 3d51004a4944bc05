"""Poses that are set by hand, and the motions that are made of them.

A pose says how a head is turned, sized and placed, and what its mouth and eyes do (docs/method.md#poses-by-hand). Mouth, lids and irises
are moved on the source's own face, along its axes. Then the head is turned with them.

Six motions come with the package, made by hand, of poses, for whatever face is to move (docs/method.md#made-motions). They hold no
keypoints. Those are made for the source and the model at hand, so they fit every model that can be posed.

Legend: B poses, K keypoints. "Right" and "up" are those of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from dagan.errors import InputError
from dagan.models.keypoints import Keypoints
from dagan.motion.head import HeadMotion, Relief, moved_head, turn_of
from dagan.motion.openings import FaceKeypoints

# These are the ways of keypoints, in parts of the way by which lips part, as fitted to 60 clips of talking heads. A smile's are parts of
# the way by which the mouth becomes wider.
_LIPS: Mapping[int, tuple[float, float]] = {
    13: (0, -0.2), 0: (0, -0.1), 14: (0, 0.8), 17: (0, 0.8), 152: (0, 0.45), 61: (0, 0.15), 291: (0, 0.15),
}  # fmt: skip
_SMILE: Mapping[int, tuple[float, float]] = {
    61: (-0.5, -0.35), 291: (0.5, -0.35), 13: (0, -0.2), 0: (0, -0.1), 14: (0, -0.2), 17: (0, -0.3), 152: (0, -0.1),
}  # fmt: skip
# These are the ways of a mouth of 1 and of a smile of 1, in heights of the face. One frame in a hundred of the clips goes beyond 0.07 and
# 0.06.
_GAP, _WIDER = 0.11, 0.06
_GAZE_ACROSS, _GAZE_UP = 0.04, 0.028  # The way of an iris that looks aside or up by 1.
_LID_FOLLOWS = 0.6  # When eyes look up or down, the upper lid goes along by this share.
_LIDS = ((159, 145), (386, 374))
_IRISES = (468, 473)


@dataclass(frozen=True, kw_only=True)
class Pose:
    """A pose, as changes of the photo's own. The defaults change nothing. Raises InputError for what no head can do."""

    yaw: float = 0.0
    """Degrees, -60 to 60, by which the head turns to the right."""
    pitch: float = 0.0
    """Degrees, -45 to 45, by which it looks up."""
    roll: float = 0.0
    """Degrees, -90 to 90, by which it leans clockwise."""
    zoom: float = 1.0
    """Its size, 0.5 to 2, relative to that in the photo."""
    shift_x: float = 0.0
    """Its way to the right, -0.5 to 0.5 of the picture's side."""
    shift_y: float = 0.0
    """Its way upwards, -0.5 to 0.5 of the picture's side."""
    mouth: float = 0.0
    """-1 closes the mouth, 0 leaves it, and 1 opens it wide; at most 1.5."""
    smile: float = 0.0
    """1 is a broad smile, and -1 the opposite; at most 1.5 either way."""
    lids: float = 0.0
    """-1 closes the eyes, 0 leaves them, and above, up to 1, they open wider."""
    gaze_x: float = 0.0
    """1 looks as far to the right as eyes go, and -1 to the left."""
    gaze_y: float = 0.0
    """1 looks as far up as eyes go, and -1 down."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value, (low, high) = getattr(self, field.name), RANGES[field.name]
            if not low <= value <= high:
                raise InputError(f"{field.name.replace('_', ' ')} is {value:g}: must be from {low:g} to {high:g}")


RANGES = {
    "yaw": (-60, 60), "pitch": (-45, 45), "roll": (-90, 90), "zoom": (0.5, 2), "shift_x": (-0.5, 0.5), "shift_y": (-0.5, 0.5),
    "mouth": (-1, 1.5), "smile": (-1.5, 1.5), "lids": (-1, 1), "gaze_x": (-1, 1), "gaze_y": (-1, 1),
}  # fmt: skip
# These need keypoints on landmarks, each on the points that are named.
NEEDS = {"mouth": (13, 14), "smile": (61, 291), "lids": (159, 145, 386, 374), "gaze_x": _IRISES, "gaze_y": _IRISES}


def check_pose(poses: Sequence[Pose], face: FaceKeypoints, model: str) -> None:
    """Raises InputError where a pose moves something on which the model has no keypoints."""
    for name, points in NEEDS.items():
        if any(getattr(pose, name) for pose in poses) and not set(points) <= set(face.landmarks):
            raise InputError(
                f"{name.replace('_', ' ')}: the keypoints of model {model!r} do not stand on what this moves: "
                "leave it at 0, or use another model"
            )


def posed(source: Keypoints, relief: Relief, face: FaceKeypoints, poses: Sequence[Pose]) -> Keypoints:
    """Returns the keypoints of a source (batch 1) in B poses, B x K x 2 and B x K x 2 x 2. They count from the source itself.

    The model's gains are not in them: they come with `transfer`.
    """
    moved = [moved_head(_expressed(source, relief, face, pose), relief, _motion(pose)) for pose in poses]
    return Keypoints(torch.cat([one.value for one in moved]), torch.cat([one.jacobian for one in moved]))


def _motion(pose: Pose) -> HeadMotion:
    shift = torch.tensor([[2 * pose.shift_x, -2 * pose.shift_y]], dtype=torch.float64)
    turn = torch.from_numpy(turn_of(pose.yaw, pose.pitch, pose.roll)[None])
    return HeadMotion(turn, torch.tensor([math.log(pose.zoom)], dtype=torch.float64), shift)


def _expressed(source: Keypoints, relief: Relief, face: FaceKeypoints, pose: Pose) -> Keypoints:
    """Returns the source's keypoints with mouth, lids and irises as the pose says, in the photo's own turn."""
    index = {point: i for i, point in enumerate(face.landmarks)}
    places = torch.view_as_complex(source.value[0].double().contiguous()).clone()
    axis = _axis(places, index) * relief.height

    def move(ways: Mapping[int, tuple[float, float]], share: float) -> None:
        for point, (across, down) in ways.items():
            if point in index:
                places[index[point]] += share * axis * complex(across, down)

    own = _gap(places, index, 13, 14)
    if pose.mouth > 0:
        move(_LIPS, pose.mouth * _GAP)
    elif pose.mouth < 0 and own is not None:
        move(_LIPS, pose.mouth * own / relief.height)
    if pose.smile:
        move(_SMILE, pose.smile * _WIDER)
    lower = {point: places[index[point]].clone() for _, point in _LIDS if point in index}
    if pose.gaze_x or pose.gaze_y:
        move(dict.fromkeys(_IRISES, (_GAZE_ACROSS * pose.gaze_x, -_GAZE_UP * pose.gaze_y)), 1.0)
        move({upper: (0, -_LID_FOLLOWS * _GAZE_UP * pose.gaze_y) for upper, _ in _LIDS}, 1.0)
    if pose.lids:
        for upper, below in _LIDS:
            if upper in index and below in index:
                openness = 1 + pose.lids if pose.lids < 0 else 1 + 0.4 * pose.lids
                places[index[upper]] = lower[below] + openness * (places[index[upper]] - lower[below])
    return Keypoints(torch.view_as_real(places)[None].to(source.value.dtype), source.jacobian)


def _axis(places: Tensor, index: Mapping[int, int]) -> Tensor:
    """Returns the direction, a complex number of length 1, that leads from the eye on the left of the face to that on the right."""
    ends = next(((a, b) for a, b in (_IRISES, (145, 374), (61, 291)) if a in index and b in index), None)
    if ends is None:
        return torch.tensor(1 + 0j, dtype=torch.complex128)
    way = places[index[ends[1]]] - places[index[ends[0]]]
    return way / way.abs().clamp(min=1e-6)


def _gap(places: Tensor, index: Mapping[int, int], a: int, b: int) -> float | None:
    return float((places[index[a]] - places[index[b]]).abs()) if a in index and b in index else None


def between(start: Pose, end: Pose, share: float) -> Pose:
    """Returns the pose that lies so far, from 0 to 1, on the way from one to another."""
    return Pose(**{f.name: float(np.interp(share, (0, 1), (getattr(start, f.name), getattr(end, f.name)))) for f in fields(Pose)})


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
