"""Finds the reference frame: the driving frame that stands for the source's pose (docs/method.md#reference-frame).

Relative motion adds to the source what the driving face did since the reference frame. The result is right only when source and reference
agree in head pose and expression. With the face landmarker, pose and expression are compared; without it, the layouts of the model's
keypoints are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from dagan.errors import InputError
from dagan.media.landmarks import CHIN, FOREHEAD_TOP, Face

# No expression moves these mesh points: forehead, corners of the eyes, bridge and wings of the nose, temples, cheekbones.
RIGID = (10, 33, 133, 168, 197, 5, 362, 263, 127, 356, 234, 454, 98, 327)
_UPPER_LIP, _LOWER_LIP = 13, 14  # These are the inner borders of the lips.
_BLINKS = ("eyeBlinkLeft", "eyeBlinkRight")
# Differences of these sizes count alike. They were tuned by eye on 14 pairs of portrait and clip. An open mouth weighs most, because motion
# that counts from one never closes the source's mouth.
_DEGREES, _GAP, _BLINK, _EXPRESSION = 10.0, 0.03, 0.3, 1.0


@dataclass(frozen=True)
class HeadPose:
    """The head pose and the expression of one face, as the face landmarker found them in one picture."""

    rigid: np.ndarray
    """P x 3 points in pixels that no expression moves."""
    gap: float
    """The gap between the lips, in heights of the face."""
    blink: float
    """How far the eyes are closed, from 0 to 1."""
    expression: np.ndarray
    """The strengths of 51 facial movements."""


def head_pose(face: Face) -> HeadPose:
    """Returns what is compared of a face that the landmarker found."""
    points = face.landmarks.astype(np.float64)
    shapes = face.blendshapes()
    gap = np.linalg.norm(points[_UPPER_LIP] - points[_LOWER_LIP]) / np.linalg.norm(points[FOREHEAD_TOP] - points[CHIN])
    blink = sum(shapes[name] for name in _BLINKS) / len(_BLINKS)
    expression = np.array([strength for name, strength in shapes.items() if not name.startswith("_")])
    return HeadPose(points[list(RIGID)], float(gap), blink, expression)


def pose_distance(a: HeadPose, b: HeadPose) -> float:
    """Returns 0 for the same pose and expression, and 1 for a turn of 10 degrees, or for lips 3 % of the face's height farther apart."""
    parts = (
        turn_between(a.rigid, b.rigid) / _DEGREES,
        (a.gap - b.gap) / _GAP,
        (a.blink - b.blink) / _BLINK,
        float(np.linalg.norm(a.expression - b.expression)) / _EXPRESSION,
    )
    return float(np.linalg.norm(parts))


def turn_between(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the degrees of the rotation that brings P x 3 points best onto others, whatever their place and size."""
    return float(np.degrees(np.arccos(np.clip((np.trace(rotation_between(a, b)) - 1) / 2, -1, 1))))


def rotation_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the 3 x 3 rotation R with (a - mean) R near a multiple of (b - mean) for P x 3 points, by least squares (Procrustes)."""
    u, _, vt = np.linalg.svd((a - a.mean(0)).T @ (b - b.mean(0)))
    mirrored = np.sign(np.linalg.det(u @ vt))
    return u @ np.diag([1.0, 1.0, mirrored]) @ vt


def parse_reference(text: str) -> int | None:
    """Returns the frame number of `first` (0) or of digits, and None for `auto`. Raises InputError for anything else."""
    if text == "auto":
        return None
    if text == "first":
        return 0
    if re.fullmatch(r"[0-9]{1,9}", text):
        return int(text)
    raise InputError(f"reference frame is {text!r}: must be auto, first or a frame number, from 0")


def check_reference(reference: int, frames: int) -> None:
    """Raises InputError unless `reference` is the number of one of `frames` frames, counted from 0."""
    if reference >= frames:
        raise InputError(f"reference frame {reference} does not exist: the driving video has {frames} frames, numbered 0 to {frames - 1}")


def normalise(layout: np.ndarray) -> np.ndarray:
    """Moves and scales layouts, ... x K x 2, to mean 0 and root mean square distance 1, which removes place and size in the picture."""
    centred = layout - layout.mean(-2, keepdims=True)
    radius = np.sqrt(np.square(centred).sum(-1, keepdims=True).mean(-2, keepdims=True))
    return centred / np.maximum(radius, 1e-9)


def nearest_layout(source: np.ndarray, driving: np.ndarray) -> int:
    """Returns the index of the driving keypoints (N x K x 2) that lie most like the source's (K x 2), the earliest of equals."""
    return int(np.square(normalise(driving) - normalise(source)).sum(-1).mean(-1).argmin())
