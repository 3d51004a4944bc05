"""Which driving frame to take as the source's pose (docs/method.md#reference-frame).

Relative motion adds to the source what the driving face did since a reference frame: the result is right only when source and
reference agree in head pose and expression. With the face landmarker these are compared as such; without it, the layouts of the
model's keypoints are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from dagan.errors import InputError
from dagan.media.landmarks import CHIN, FOREHEAD_TOP, Face

# Mesh points that no expression moves: forehead, corners of the eyes, bridge and wings of the nose, temples, cheekbones.
_RIGID = (10, 33, 133, 168, 197, 5, 362, 263, 127, 356, 234, 454, 98, 327)
_UPPER_LIP, _LOWER_LIP = 13, 14  # inner borders
_BLINKS = ("eyeBlinkLeft", "eyeBlinkRight")
# Differences that count alike, tuned by eye on 14 pairs of portrait and clip. An open mouth weighs most: motion relative to one
# never closes the source's mouth.
_DEGREES, _GAP, _BLINK, _EXPRESSION = 10.0, 0.03, 0.3, 1.0


@dataclass(frozen=True)
class HeadPose:
    """How a head is held and what its face does. rigid: P x 3 points in pixels; gap: between the lips, in face heights;
    blink: closure of the eyes, 0 to 1; expression: strengths of 51 facial movements."""

    rigid: np.ndarray
    gap: float
    blink: float
    expression: np.ndarray


def head_pose(face: Face) -> HeadPose:
    """What is compared of a face found by the landmarker."""
    points = face.landmarks.astype(np.float64)
    shapes = face.blendshapes()
    gap = np.linalg.norm(points[_UPPER_LIP] - points[_LOWER_LIP]) / np.linalg.norm(points[FOREHEAD_TOP] - points[CHIN])
    blink = sum(shapes[name] for name in _BLINKS) / len(_BLINKS)
    expression = np.array([strength for name, strength in shapes.items() if not name.startswith("_")])
    return HeadPose(points[list(_RIGID)], float(gap), blink, expression)


def pose_distance(a: HeadPose, b: HeadPose) -> float:
    """0 for the same pose and expression; 1 for 10 degrees of turn, or for lips 3 % of the face's height farther apart."""
    parts = (
        turn_between(a.rigid, b.rigid) / _DEGREES,
        (a.gap - b.gap) / _GAP,
        (a.blink - b.blink) / _BLINK,
        float(np.linalg.norm(a.expression - b.expression)) / _EXPRESSION,
    )
    return float(np.linalg.norm(parts))


def turn_between(a: np.ndarray, b: np.ndarray) -> float:
    """Degrees of the rotation that brings P x 3 points best onto others, their place and size left aside."""
    return float(np.degrees(np.arccos(np.clip((np.trace(rotation_between(a, b)) - 1) / 2, -1, 1))))


def rotation_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """3 x 3 rotation R with (a - mean) R near a multiple of (b - mean) for P x 3 points, by least squares (Procrustes)."""
    u, _, vt = np.linalg.svd((a - a.mean(0)).T @ (b - b.mean(0)))
    mirrored = np.sign(np.linalg.det(u @ vt))
    return u @ np.diag([1.0, 1.0, mirrored]) @ vt


def parse_reference(text: str) -> int | None:
    """Frame number of `first` (0) or of digits; None for `auto`. Raises InputError for anything else."""
    if text == "auto":
        return None
    if text == "first":
        return 0
    if re.fullmatch(r"[0-9]{1,9}", text):
        return int(text)
    raise InputError(f"reference frame is {text!r}: must be auto, first or a frame number, from 0")


def check_reference(reference: int, frames: int) -> None:
    """Raises InputError when there is no such frame."""
    if reference >= frames:
        raise InputError(f"reference frame {reference} does not exist: the driving video has {frames} frames, numbered 0 to {frames - 1}")


def normalise(layout: np.ndarray) -> np.ndarray:
    """Layouts ... x K x 2 with their mean at 0 and root mean square distance from it 1: place and size in the picture removed."""
    centred = layout - layout.mean(-2, keepdims=True)
    radius = np.sqrt(np.square(centred).sum(-1, keepdims=True).mean(-2, keepdims=True))
    return centred / np.maximum(radius, 1e-9)


def nearest_layout(source: np.ndarray, driving: np.ndarray) -> int:
    """Index of the driving keypoints (N x K x 2) that lie most like the source's (K x 2); the earliest of equals."""
    return int(np.square(normalise(driving) - normalise(source)).sum(-1).mean(-1).argmin())
