"""Steady motion: keypoints are smoothed where they hardly move, and left alone where they move (docs/method.md#steady-motion).

The filter is the one-Euro filter: a low-pass whose cutoff rises with speed. Noise is slow on average, so it is taken out, and a mouth that
opens is fast, so it is kept. A whole motion is filtered forwards and backwards, which delays nothing. While frames come in one by one,
only the past is known, and a little delay is the price.

Legend: N frames, K keypoints.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from dagan.errors import InputError
from dagan.models.keypoints import Keypoints
from dagan.motion.file import DrivingMotion
from dagan.motion.transfer import layout_radius

# At full strength, what stands still is filtered at this cutoff in hertz. At half strength it is twice as high.
_STILL = 0.4
# The cutoff rises by so many hertz for a speed of one radius of the layout a second; half the strength, twice the rise.
_RISE = 30.0
# Speeds below this, in radii a second, are those of noise.
_NOISE = 0.12
_SPEED_FRAMES = 1.0  # Speeds are those of positions that are smoothed by this standard deviation, in frames.
_LOOP = 0.6  # Seconds at the end of a motion in which it passes into its start.


def check_smooth(amount: float) -> None:
    """Raises InputError for an amount outside 0 to 1."""
    if not 0 <= amount <= 1:
        raise InputError(f"--smooth is {amount:g}: must be from 0 (as it is) to 1 (steadiest)")


def smoothed(motion: DrivingMotion, amount: float) -> DrivingMotion:
    """Returns the motion with its noise taken out, without delay. 0 returns it as it is, and 1 takes out most.

    Raises InputError for an amount outside 0 to 1.
    """
    check_smooth(amount)
    if amount == 0 or len(motion) < 3:
        return motion
    times = np.array([float(time) for time in motion.times[:-1]])
    radius = layout_radius(torch.from_numpy(motion.value[motion.reference])) or 1.0
    even = gaussian_filter1d(motion.value.astype(np.float64), _SPEED_FRAMES, axis=0, mode="nearest")
    speed = np.linalg.norm(np.gradient(even, times, axis=0), axis=2) / radius  # N K
    # A keypoint that will move in a moment is let go now, so that its start is not rounded off.
    cutoff = _cutoff(np.maximum(gaussian_filter1d(speed, 1.5, axis=0, mode="nearest"), speed), amount)
    steps = np.diff(times, prepend=times[0])
    packed = np.concatenate([motion.value, motion.jacobian.reshape(len(motion), -1, 4)], axis=2).astype(np.float64)  # N K 6
    there = _one_way(packed, cutoff, steps)
    back = _one_way(there[::-1], cutoff[::-1], np.diff(times[::-1], prepend=times[-1]) * -1)[::-1]
    value, jacobian = np.split(back.astype(np.float32), [2], axis=2)
    return replace(motion, value=value.copy(), jacobian=jacobian.reshape(motion.jacobian.shape).copy())


def _cutoff(speed: NDArray[np.float64], amount: float) -> NDArray[np.float64]:
    """Returns cutoffs in hertz for speeds in radii a second."""
    return (_STILL + _RISE * np.maximum(speed - _NOISE, 0)) / amount


def _share(cutoff: NDArray[np.float64], step: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns which share of a new value counts, in (0, 1], for a low-pass of first order and steps in seconds."""
    turn = 2 * np.pi * cutoff * step
    return turn / (1 + turn)


def _one_way(values: NDArray[np.float64], cutoff: NDArray[np.float64], steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Filters N x K x C values in their order."""
    shares = _share(cutoff, steps[:, None])[..., None]
    filtered = values.copy()
    for i in range(1, len(values)):
        filtered[i] = filtered[i - 1] + shares[i] * (values[i] - filtered[i - 1])
    return filtered


class Steadier:
    """Smooths keypoints that come in one after the other; it knows only the past. Each stream of frames needs one of its own."""

    def __init__(self, amount: float, step: float = 1 / 25) -> None:
        """`step` is the time from frame to frame, in seconds. Raises InputError for an amount outside 0 to 1."""
        check_smooth(amount)
        self._amount, self._step = amount, step
        self._last: NDArray[np.float64] | None = None
        self._before: NDArray[np.float64] | None = None
        self._speed: NDArray[np.float64] | None = None

    def __call__(self, keypoints: Keypoints) -> Keypoints:
        """Returns the keypoints of the next frames, N x K x 2 and N x K x 2 x 2, smoothed."""
        if self._amount == 0:
            return keypoints
        count = keypoints.value.shape[1]
        packed = torch.cat([keypoints.value, keypoints.jacobian.reshape(len(keypoints.value), count, 4)], dim=2).double().numpy()
        steady = torch.from_numpy(np.stack([self._next(frame) for frame in packed])).to(keypoints.value.dtype)
        return Keypoints(steady[..., :2].contiguous(), steady[..., 2:].reshape(keypoints.jacobian.shape).contiguous())

    def _next(self, frame: NDArray[np.float64]) -> NDArray[np.float64]:
        if self._last is None or self._before is None or self._speed is None:
            self._last, self._before, self._speed = frame, frame, np.zeros(frame[:, :2].shape)
            return frame
        radius = layout_radius(torch.from_numpy(frame[:, :2])) or 1.0
        self._speed = self._speed + 0.5 * ((frame - self._before)[:, :2] / (self._step * radius) - self._speed)
        self._before = frame
        share = _share(_cutoff(np.linalg.norm(self._speed, axis=1), self._amount), self._step)[:, None]
        self._last = self._last + share * (frame - self._last)
        return self._last


def shaped(motion: DrivingMotion, amount: float, loop: bool) -> DrivingMotion:
    """Returns the motion smoothed by that amount, and with `loop` also with an end that passes into its start."""
    motion = smoothed(motion, amount)
    return looped(motion) if loop else motion


def looped(motion: DrivingMotion) -> DrivingMotion:
    """Returns the motion with an end that passes into its start, so that it can be repeated without a jump.

    The last 0.6 seconds, or the last third of a shorter motion, are blended into the first frame's keypoints.
    """
    times = np.array([float(time) for time in motion.times])
    length = min(_LOOP, times[-1] / 3)
    share = np.clip((times[:-1] - (times[-1] - length)) / length, 0, 1)
    share = (share * share * (3 - 2 * share))[:, None, None]
    value = motion.value + share * (motion.value[:1] - motion.value)
    jacobian = motion.jacobian + share[..., None] * (motion.jacobian[:1] - motion.jacobian)
    return replace(motion, value=value.astype(np.float32), jacobian=jacobian.astype(np.float32))
