"""Motion transfer: brings driving keypoints to the source's face, steadily, and never so far that it breaks.

Motion that goes beyond what the model can draw is damped (docs/method.md#motion-transfer). What leads from the source's keypoints to those
that drive it is taken apart into a shift, a turn in the picture's plane, a change of size, and what is left. What is left are head turns
and expression, which change the layout of keypoints and their Jacobians. Models draw the first three well far out, and the last up to a
limited amount. Each part passes unchanged below its knee, and approaches its ceiling above (figures: docs/lite-256.md). A frame that no
knee touches stays bit by bit as it is. Every frame is limited by itself, whatever comes before or after.

Motion is steadied: keypoints are smoothed where they hardly move, and left alone where they move (docs/method.md#steady-motion). The filter
is the one-Euro filter: a low-pass whose cutoff rises with speed. Noise is slow on average, so it is taken out, and a mouth that opens is
fast, so it is kept. A whole motion is filtered forwards and backwards, which delays nothing. While frames come in one by one, only the past
is known, and a little delay is the price.

Legend: B or N frames, K keypoints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.spatial import ConvexHull, QhullError
from torch import Tensor

from dagan.errors import InputError
from dagan.geometry import inverse_2x2
from dagan.models.keypoints import Keypoints
from dagan.motion.file import DrivingMotion
from dagan.motion.head import Parts
from dagan.motion.openings import FaceKeypoints, Numbers, Places, complex_places, turn_and_size

# Vertical change of the layout breaks faces at about half the size at which horizontal change does, so it counts so many times.
_VERTICAL = 2.0
_SMALLEST_SIZE = 1e-3  # Relative to the source's layout. Division by smaller sizes is avoided.


@dataclass(frozen=True)
class Soft:
    """Passes magnitudes up to `knee` unchanged. Greater ones approach `ceiling`, without a corner."""

    knee: float
    ceiling: float

    def __call__(self, magnitude: Numbers) -> Numbers:
        """Returns what is left of magnitudes, which are at least 0."""
        room = self.ceiling - self.knee
        return np.where(magnitude <= self.knee, magnitude, self.knee + room * np.tanh((magnitude - self.knee) / room))

    def share(self, magnitude: Numbers) -> Numbers:
        """Returns which share of magnitudes is left, in (0, 1]. It is exactly 1 up to the knee."""
        return np.where(magnitude <= self.knee, 1.0, self(magnitude) / np.maximum(magnitude, self.knee))


SHIFT = Soft(0.8, 1.2)  # The shift of the middle, in radii of the source's layout.
ROLL = Soft(math.radians(45), math.radians(60))  # The turn in the picture's plane.
GROWTH = Soft(math.log(1.4), math.log(1.6))  # The logarithm of the change of size.
# The greater of two root mean squares over the keypoints: of the change of layout, in radii of the source's layout, and of the relative
# change of Jacobians (Frobenius norm).
SHAPE = Soft(0.12, 0.17)
SINGLE_JACOBIAN = Soft(0.5, 0.8)  # The relative change of one Jacobian. Below 1 it cannot turn a patch inside out.


def layout_radius(points: Tensor) -> float:
    """Returns the radius of the circle as large as the convex hull of K x 2 points, or 0 where the hull has no area."""
    return _hull_radius(points.detach().double().cpu().numpy().tobytes())


@lru_cache(maxsize=256)  # Every frame asks for the source's and the reference's.
def _hull_radius(points: bytes) -> float:
    try:
        area = float(ConvexHull(np.frombuffer(points).reshape(-1, 2)).volume)  # In two dimensions `volume` is the area.
    except QhullError:  # There are fewer than three points, or all are on a line.
        return 0.0
    return math.sqrt(area / np.pi)


def limit(source: Keypoints, driving: Keypoints, judged: Sequence[int] | None = None) -> tuple[Keypoints, Tensor]:
    """Damps keypoints that drive the source (B x K x 2 and B x K x 2 x 2) where they are too far from its own (batch 1).

    It also returns, for each frame, which share is left of the part that was damped most: B numbers in (0, 1], 1 for frames that are not
    changed. `judged` are the keypoints whose change of layout is measured, all for None; lips that part and lids that close do no harm.
    Where the source's keypoints have no layout (all on a line), no frame is changed.
    """
    radius = layout_radius(source.value[0])
    if radius == 0:
        return driving, torch.ones(len(driving.value), dtype=torch.float64, device=driving.value.device)
    with np.errstate(all="ignore"):  # What has no size or no inverse is dealt with below.
        value, jacobian, left = _limited(source, driving, radius, judged)
    shares = torch.from_numpy(left).to(driving.value.device)
    same = shares == 1
    return Keypoints(
        torch.where(same[:, None, None], driving.value, torch.from_numpy(value).to(driving.value)),
        torch.where(same[:, None, None, None], driving.jacobian, torch.from_numpy(jacobian).to(driving.jacobian)),
    ), shares


def _limited(
    source: Keypoints, driving: Keypoints, radius: float, judged: Sequence[int] | None
) -> tuple[Numbers, Numbers, Numbers]:  # fmt: skip
    """Returns the damped positions, B x K x 2, and Jacobians, B x K x 2 x 2, and the B shares that are left, all in float64.

    It counts in numpy, which needs a third of PyTorch's time for so few numbers.
    """
    home, target = complex_places(source.value), complex_places(driving.value)
    middle, moved = home.mean(1, keepdims=True), target.mean(1, keepdims=True)
    centred, placed = home - middle, target - moved  # 1 K and B K; a complex factor turns and sizes a layout.
    factor = turn_and_size(centred, placed)  # B
    size, roll = np.maximum(np.abs(factor), _SMALLEST_SIZE), np.angle(factor)
    factor = size * np.exp(1j * roll)
    growth = np.log(size)
    held = np.exp(np.sign(growth) * GROWTH(np.abs(growth)) + 1j * np.sign(roll) * ROLL(np.abs(roll)))

    layout = placed / factor[:, None] - centred  # This is the change of the layout, in the source's own axes and size.
    weighted = np.stack([layout.real, _VERTICAL * layout.imag], axis=-1) / radius
    counted = list(range(layout.shape[1])) if judged is None else list(judged)
    own = source.jacobian.detach().double().cpu()
    relative = driving.jacobian.detach().double().cpu().numpy() @ inverse_2x2(own).numpy()
    change = _matrix(1 / factor)[:, None] @ relative - np.eye(2)  # B K 2 2
    single = np.sqrt(np.square(change).sum((2, 3)))  # B K
    shape = np.sqrt(np.maximum(np.square(weighted).sum(2)[:, counted].mean(1), np.square(single)[:, counted].mean(1)))
    share = SHAPE.share(shape)
    kept = share[:, None] * SINGLE_JACOBIAN.share(share[:, None] * single)  # B K
    shift = moved - middle  # B 1
    near = SHIFT.share(np.abs(shift) / radius)

    value = middle + shift * near + held[:, None] * (centred + share[:, None] * layout)
    jacobian = _matrix(held)[:, None] @ (np.eye(2) + kept[..., None, None] * change) @ own.numpy()
    left = np.minimum.reduce([kept.min(1), near[:, 0], GROWTH.share(np.abs(growth)), ROLL.share(np.abs(roll))])
    left = np.where(np.isfinite(left), left, 1.0)  # A source Jacobian without inverse says nothing of changes.
    return np.stack([value.real, value.imag], axis=-1), jacobian, left


def _matrix(factor: Places) -> Numbers:
    """Returns the B x 2 x 2 matrices that do to points what multiplying by B complex factors does."""
    x, y = factor.real, factor.imag
    return np.stack([np.stack([x, -y], axis=-1), np.stack([y, x], axis=-1)], axis=-2)


def transfer(
    source: Keypoints,
    driving: Keypoints,
    initial: Keypoints,
    relative: bool = True,
    adapt_scale: bool = True,
    limit_motion: bool = True,
    face: FaceKeypoints | None = None,
    parts: Parts | None = None,
) -> Keypoints:
    """Returns the keypoints with which to drive the source, for a batch of driving frames (B x K x 2 and B x K x 2 x 2).

    Args:
        relative: Positions are p_S + s (p_D - p_0) and Jacobians J_D J_0^-1 J_S, where `initial` (batch 1) is the reference frame.
            Otherwise the driving keypoints are taken as they are.
        adapt_scale: s is sqrt(hull area of source / of initial), else 1.
        limit_motion: What goes farther from the source than a model can draw is damped (see `limit`).
        face: It says which keypoints stand on landmarks; their openings are carried (see `dagan.motion.openings`). None takes them like
            any others.
        parts: It says how much of the head's and of the face's motion is kept (see `dagan.motion.head`). None keeps all of it.
    """
    moved = driving
    face = face or FaceKeypoints()
    scale = 1.0
    if relative:
        scale = movement_scale(source, initial) if adapt_scale else 1.0
        value = source.value + scale * (driving.value - initial.value)
        moved = Keypoints(value, driving.jacobian @ inverse_2x2(initial.jacobian) @ source.jacobian)
    moved = face.carried(source, driving, initial if relative else None, moved, scale)
    if parts is not None:
        moved = parts.kept(source, moved)
    return limit(source, moved, face.rigid(source.value.shape[1]))[0] if limit_motion else moved


def movement_scale(source: Keypoints, initial: Keypoints) -> float:
    """Returns sqrt(area of the convex hull of the source keypoints / of `initial`'s), both of batch 1, or 1 where a hull has no area."""
    own, other = (layout_radius(k.value[0]) for k in (source, initial))
    return own / other if min(own, other) > 0 else 1.0


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


def _cutoff(speed: Numbers, amount: float) -> Numbers:
    """Returns cutoffs in hertz for speeds in radii a second."""
    return (_STILL + _RISE * np.maximum(speed - _NOISE, 0)) / amount


def _share(cutoff: Numbers, step: float | Numbers) -> Numbers:
    """Returns which share of a new value counts, in (0, 1], for a low-pass of first order and steps in seconds."""
    turn = 2 * np.pi * cutoff * step
    return turn / (1 + turn)


def _one_way(values: Numbers, cutoff: Numbers, steps: Numbers) -> Numbers:
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
        self._last: Numbers | None = None
        self._before: Numbers | None = None
        self._speed: Numbers | None = None

    def __call__(self, keypoints: Keypoints) -> Keypoints:
        """Returns the keypoints of the next frames, N x K x 2 and N x K x 2 x 2, smoothed."""
        if self._amount == 0:
            return keypoints
        count = keypoints.value.shape[1]
        packed = torch.cat([keypoints.value, keypoints.jacobian.reshape(len(keypoints.value), count, 4)], dim=2).double().numpy()
        steady = torch.from_numpy(np.stack([self._next(frame) for frame in packed])).to(keypoints.value.dtype)
        return Keypoints(steady[..., :2].contiguous(), steady[..., 2:].reshape(keypoints.jacobian.shape).contiguous())

    def _next(self, frame: Numbers) -> Numbers:
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
