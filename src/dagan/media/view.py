"""Decides which square of a picture or a video the model looks at: the face, as in training, or the middle.

A video gets a steady framing for each of its shots, from a first pass that keeps only outlines of the face. A fixed square round
everywhere the face goes is best, because background and shoulders then stand still. The square follows the head only where the face
would become small in a fixed one, or where a fixed one would reach far beyond the picture. It then moves slowly and keeps its side.
Nothing is averaged or followed from one shot to the next.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Protocol, cast

import numpy as np

from dagan.errors import InputError
from dagan.media.container import Frame, VideoReader
from dagan.media.framing import (
    FaceFinder,
    Framing,
    Turn,
    bounds_of,
    crop,
    fit_box,
    fit_side,
    frame_still,
    keep_inside,
    middle,
    upright_angle,
)
from dagan.media.shots import FramingReport, Shot, find_shots
from dagan.progress import Progress, Warn, to_stderr
from dagan.stream import ahead

_LEAST_SHARE = 0.3  # Where the face would take a smaller share of the fixed square's side, the square moves.
_MOST_PADDED = 1.04  # A fixed square larger than this many times the picture's shorter side gives way to a moving one too.
_OUTLIERS = 2  # Per cent. So many boxes at either end do not count for their union.
_SMOOTHING = 0.4  # Seconds. This is the standard deviation of the low-pass filter of a moving centre.
_ROLLING = math.radians(45)  # Where the face leans farther than this from its usual angle, the square turns with it.


@dataclass(frozen=True, eq=False)
class ShotFraming:
    """The framing of a shot at any time. Centres and angles are smoothed."""

    times: np.ndarray
    """n seconds, for which centres and angles are known."""
    centers: np.ndarray
    """The centres of the square at these times, n x 2 pixels."""
    angles: np.ndarray
    """The angles of the square at these times, n radians."""
    side: float
    """The side of the square in pixels."""
    moving: bool
    """Whether the square follows the head."""
    face_height: float
    """The median height of the face in pixels."""

    def at(self, time: Fraction | float) -> Framing:
        """Returns the square for the frame at `time` seconds."""
        x, y, angle = (float(np.interp(float(time), self.times, row)) for row in (*self.centers.T, self.angles))
        return Framing(x, y, self.side, angle)


@dataclass(frozen=True, eq=False)
class VideoFraming:
    """The square that is cut out of a video's frame at any time: that of the shot, or the picture's middle in shots without a face."""

    starts: tuple[float, ...]
    """The seconds at which the shots begin; the first is 0."""
    shots: tuple[ShotFraming | None, ...]
    """The framing of each shot; None where it has no face."""
    middle: Framing
    """The picture's middle."""
    report: FramingReport
    """What the pass over the video saw."""

    def at(self, time: Fraction | float) -> Framing:
        """Returns the square for the frame at `time` seconds."""
        shot = self.shot(time)
        return self.middle if shot is None else shot.at(time)

    def shot(self, time: Fraction | float) -> ShotFraming | None:
        """Returns the framing of the shot at `time` seconds; None where it has no face."""
        return self.shots[max(0, bisect_right(self.starts, float(time)) - 1)]


def frame_video(reader: VideoReader, finder: FaceFinder, warn: Warn = to_stderr) -> VideoFraming:
    """Reads the video once, finds its shots and the face in each, and decides on a framing for each.

    `warn` is told of several shots, of several faces (the largest is taken and then followed), and of a file that is cut off. Raises
    InputError when there is no face at all.
    """
    starts: list[float] = []
    shots: list[ShotFraming | None] = []
    report = FramingReport()
    for shot in find_shots(reader, finder, report):
        starts.append(shot.start)
        shots.append(frame_shot(shot, reader.width, reader.height) if shot.times else None)
    if (problem := reader.problem()) is not None:
        warn(problem)
    if not any(shots):
        raise InputError(
            f"no face found in {reader.path}: none of the {report.frames} pictures looked at shows one: "
            "give a video with one visible face, not too small and not turned away"
        )
    if len(shots) > 1:
        without = sum(shot is None for shot in shots)
        warn(f"{reader.path}: {len(shots)} shots{f', {without} without a face' if without else ''}: each is framed for itself")
    if report.several:
        warn(f"{reader.path}: several faces in {report.several} of {report.frames} pictures looked at: the largest is followed")
    report.shots = len(shots)
    middle = Framing(reader.width / 2, reader.height / 2, float(min(reader.width, reader.height)))
    return VideoFraming(tuple(starts), tuple(shots), middle, report)


def frame_shot(shot: Shot, width: int, height: int) -> ShotFraming:
    """Returns the framing for the faces seen in one shot. They stand upright in it, however they lean."""
    times, leans, outlines = shot.arrays()
    angles = np.unwrap(leans)
    usual = float(np.median(angles))
    if float(np.percentile(np.abs(angles - usual), 90)) > _ROLLING:
        smoothed = smooth(times, angles[:, None])[:, 0]
        turns = [Turn(float(angle), width, height) for angle in smoothed]
        boxes = np.array([bounds_of(turn.forward(points)) for turn, points in zip(turns, outlines, strict=True)])
        middles = np.array([turn.back(middle) for turn, middle in zip(turns, (boxes[:, :2] + boxes[:, 2:]) / 2, strict=True)])
        heights = boxes[:, 3] - boxes[:, 1]
        side = fit_side(float(np.percentile(heights, 90)), 0.0, width, height)
        return ShotFraming(times, smooth(times, middles), smoothed, side, True, float(np.median(heights)))
    turn = Turn(upright_angle(usual), width, height)
    boxes = np.array([bounds_of(points) for points in turn.forward(outlines)])
    return settle(times, boxes, turn)


def settle(times: np.ndarray, boxes: np.ndarray, turn: Turn) -> ShotFraming:
    """Returns the framing for face boxes (n x 4: x0, y0, x1, y1) seen at `times` (n) on the canvas of a turned picture."""
    width, height = turn.size
    heights = boxes[:, 3] - boxes[:, 1]
    usual = float(np.median(heights))
    union = (
        *np.percentile(boxes[:, :2], _OUTLIERS, axis=0).tolist(),
        *np.percentile(boxes[:, 2:], 100 - _OUTLIERS, axis=0).tolist(),
    )
    fixed = fit_box(union, usual, width, height)
    alone = fit_side(usual, 0.0, width, height)
    padded = fixed.side > _MOST_PADDED * min(width, height) and fixed.side > _MOST_PADDED * alone
    if usual >= _LEAST_SHARE * fixed.side and not padded:
        center = turn.back(np.array([[fixed.center_x, fixed.center_y]]))
        return ShotFraming(times[:1], center, np.array([turn.angle]), fixed.side, False, usual)
    side = fit_side(float(np.percentile(heights, 90)), 0.0, width, height)
    if usual < _LEAST_SHARE * side:  # The size of the face changes a lot too, so its usual size decides.
        side = alone
    centers = smooth(times, (boxes[:, :2] + boxes[:, 2:]) / 2)
    inside = np.array([(keep_inside(x, side, width), keep_inside(y, side, height)) for x, y in centers])
    return ShotFraming(times, turn.back(inside), np.full(len(times), turn.angle), side, True, usual)


def smooth(times: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Smooths n x d values at n times without delay: round each value a straight line is fitted, with Gaussian weights.

    With a line, steady movement is kept at both ends too. Memory stays small however many values there are.
    """
    smoothed = np.empty_like(values, dtype=np.float64)
    first = np.searchsorted(times, times - 4 * _SMOOTHING)
    last = np.searchsorted(times, times + 4 * _SMOOTHING, side="right")
    for i, (start, stop) in enumerate(zip(first, last, strict=True)):
        offset = (times[start:stop] - times[i]) / _SMOOTHING
        weight = np.exp(-0.5 * offset**2)
        centred = offset - weight @ offset / weight.sum()
        spread = weight @ centred**2
        mean = weight @ values[start:stop] / weight.sum()
        slope = (weight * centred) @ values[start:stop] / spread if spread > 1e-6 else 0.0
        smoothed[i] = mean - slope * (weight @ offset / weight.sum())
    return smoothed


_FRAMES_AHEAD = 8  # So many frames are decoded and cut in advance, because some decoders give pictures in groups.


class View(Protocol):
    """Says where to look in a video."""

    def at(self, time: Fraction | float) -> Framing:
        """Returns the square for the frame at `time` seconds."""


@dataclass(frozen=True)
class MiddleView:
    """The middle of a video's pictures. A frame that does not fill its picture is seen in its own middle (see `square_of`)."""

    width: int
    height: int

    def at(self, time: Fraction | float) -> Framing:
        """Implements the method of `View`, which is documented there."""
        return middle(self.width, self.height)


def square_of(frame: Frame, view: View) -> Framing:
    """Returns where to look in a frame."""
    if frame.place is None or not isinstance(view, MiddleView):
        return view.at(frame.time)
    left, top, width, height = frame.place
    inner = middle(width, height)
    return Framing(left + inner.center_x, top + inner.center_y, inner.side)


def shows_face(view: View, time: Fraction | float) -> bool:
    """Says whether the shot at `time` seconds has a face. A view that looks for none takes every picture for one."""
    return not isinstance(view, VideoFraming) or view.shot(time) is not None


def view_still(image: np.ndarray, finder: FaceFinder | None, where: str, warn: Warn) -> Framing:
    """Returns the face's square with a finder, and the middle without one. Raises InputError when there is no face."""
    return middle(image.shape[1], image.shape[0]) if finder is None else frame_still(image, finder, where, warn)


def view_video(
    reader: VideoReader, finder: FaceFinder | None, warn: Warn, progress: Progress, stage: str
) -> tuple[View, FramingReport | None]:
    """Makes one pass over the video to find the face's square. Returns the view and what the pass saw.

    Without a finder it returns the middle and reads nothing. Raises InputError when there is no face.
    """
    if finder is None:
        return MiddleView(reader.width, reader.height), None
    framing = frame_video(cast(VideoReader, _Watched(reader, progress, stage)), finder, warn)
    return framing, framing.report


def read_view(reader: VideoReader, view: View, size: int) -> Iterator[tuple[Frame, np.ndarray]]:
    """Makes one pass over the video and yields each frame and its view, uint8 size x size x 3."""
    for frame in reader:
        yield frame, crop(frame.image, square_of(frame, view), size)


def read_ahead(reader: VideoReader, view: View, size: int) -> Generator[tuple[Frame, np.ndarray]]:
    """Does as `read_view` in a thread of its own, a few frames ahead. A frame's image is its view, so that the whole picture is freed."""
    return ahead(((replace(frame, image=picture), picture) for frame, picture in read_view(reader, view, size)), _FRAMES_AHEAD)


class _Watched:
    """A reader that tells `progress` how far its passes are."""

    def __init__(self, reader: VideoReader, progress: Progress, stage: str) -> None:
        self._reader, self._progress, self._stage = reader, progress, stage

    def frames(self, step: int = 1, max_side: int | None = None) -> Iterator[Frame]:
        for frame in ahead(self._reader.frames(step, max_side)):
            yield frame
            self._progress(self._stage, frame.index + 1, self._reader.frame_count)
        self._progress(self._stage, self._reader.frames_read, self._reader.frames_read)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)
