"""What a synthetic head does: it turns and nods, speaks in phrases, blinks, looks about. One value per frame.

Legend: N frames, at `rate` frames a second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter1d

from dagan.data.synthetic.face_mesh import Expression
from dagan.data.synthetic.mesh import Array


@dataclass(frozen=True)
class Motion:
    """turns: N x 3 radians of the head about x (nod), y (turn), z (tilt), on the neck. sway: N x 3, mm, of the whole body.
    expressions: N."""

    turns: Array
    sway: Array
    expressions: list[Expression]


def draw_motion(frames: int, rate: float, rng: np.random.Generator) -> Motion:
    """A random performance of a person who talks to the camera."""
    seconds = np.arange(frames) / rate
    liveliness = rng.uniform(0.6, 1.3)
    reach = np.radians([9, 22, 7]) * liveliness
    middle = np.radians([3, 7, 2.5]) * rng.standard_normal(3).clip(-1.5, 1.5)
    turns = np.stack([middle[i] + reach[i] * _wander(seconds, rng, 0.5, 1.6) for i in range(3)], 1)
    talk = _talking(seconds, rng)
    # Speakers nod with their words.
    turns[:, 0] += np.radians(1.2) * gaussian_filter1d(talk * np.sin(2 * np.pi * 1.7 * seconds + rng.uniform(0, 6)), 2)
    sway = np.stack([r * _wander(seconds, rng, 1.0, 3.0) for r in (9.0, 4.0, 9.0)], 1)
    syllables = _syllables(seconds, talk, rng)
    shapes = {name: np.clip(_wander(seconds, rng, *pace), -1, 1) for name, pace in _PACES.items()}
    blink, gaze = _blinks(seconds, rng), _gaze(seconds, turns, rng)
    happy = rng.uniform(0, 0.6)
    expressions = [
        Expression(
            jaw=float(syllables[i] * (0.65 + 0.25 * shapes["open"][i])),
            upper_lip=float(syllables[i] * np.clip(0.4 + 0.5 * shapes["spread"][i], 0, 1)),
            lower_lip=float(syllables[i] * np.clip(0.5 + 0.4 * shapes["open"][i], 0, 1)),
            smile=float(np.clip(happy + 0.45 * shapes["smile"][i] + 0.25 * talk[i] * shapes["spread"][i], -0.25, 1)),
            pucker=float(talk[i] * np.clip(shapes["round"][i], 0, 1) * 0.9),
            blink=float(blink[i]),
            brow=float(np.clip(0.2 + 0.6 * shapes["brow"][i], -0.5, 1)),
            gaze=(float(gaze[i, 0]), float(gaze[i, 1])),
        )
        for i in range(frames)
    ]
    return Motion(turns, sway, expressions)


# Shortest and longest time in seconds between the targets of slow movements.
_PACES = {"open": (0.2, 0.5), "spread": (0.15, 0.4), "round": (0.2, 0.5), "smile": (1.0, 3.0), "brow": (0.6, 2.0)}


def _wander(seconds: Array, rng: np.random.Generator, shortest: float, longest: float) -> Array:
    """A smooth path between random targets of deviation about 0.6, N."""
    times, values = [seconds[0] - longest], [0.0]
    while times[-1] < seconds[-1] + longest:
        times.append(times[-1] + rng.uniform(shortest, longest))
        values.append(float(np.clip(0.7 * rng.standard_normal(), -1.3, 1.3)))
    return PchipInterpolator(times, values)(seconds)


def _talking(seconds: Array, rng: np.random.Generator) -> Array:
    """1 in phrases, 0 in pauses, with soft ends."""
    talk = np.zeros_like(seconds)
    start = -rng.uniform(0, 1.5)
    while start < seconds[-1]:
        end = start + rng.uniform(1.2, 3.5)
        talk[(seconds >= start) & (seconds < end)] = 1
        start = end + rng.uniform(0.2, 0.9)
    return gaussian_filter1d(talk, 2)


def _syllables(seconds: Array, talk: Array, rng: np.random.Generator) -> Array:
    """Openings of the mouth, three to six a second, each of its own height."""
    opening = np.zeros_like(seconds)
    start = seconds[0] - 0.3
    while start < seconds[-1]:
        length = rng.uniform(0.16, 0.34)
        phase = (seconds - start) / length
        pulse = np.where((phase > 0) & (phase < 1), np.sin(np.pi * np.clip(phase, 0, 1)) ** 2, 0)
        opening = np.maximum(opening, rng.uniform(0.25, 1.0) * pulse)
        start += length * rng.uniform(0.75, 1.0)
    return opening * talk


def _blinks(seconds: Array, rng: np.random.Generator) -> Array:
    """Quick to close, slower to open; every two to five seconds."""
    blink = np.zeros_like(seconds)
    start = rng.uniform(0.1, 3.0)
    while start < seconds[-1]:
        blink = np.maximum(blink, np.interp(seconds - start, [0, 0.07, 0.12, 0.26], [0, 1, 1, 0]))
        start += rng.uniform(2.0, 5.0)
    return blink


def _gaze(seconds: Array, turns: Array, rng: np.random.Generator) -> Array:
    """N x 2 (yaw, pitch): mostly at the camera, against the head's turns, with jumps aside."""
    aside = np.zeros((len(seconds), 2))
    start = seconds[0]
    while start < seconds[-1]:
        aside[seconds >= start] = rng.normal(0, (0.13, 0.06)) if rng.random() < 0.5 else 0.0
        start += rng.uniform(0.4, 1.8)
    at_camera = np.stack([turns[:, 1], -turns[:, 0]], 1)
    return np.clip(0.8 * at_camera + aside, -0.5, 0.5)
