"""One steady framing for a whole driving video, from a first pass that keeps boxes only.

A fixed square round everywhere the face goes is best: background and shoulders stand still. Only where the head moves so
far that the face would become small in it, or that it would reach far beyond the picture, the square follows the head,
slowly and with constant side.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from dagan.errors import InputError
from dagan.media.faces import FaceBox, FaceFinder
from dagan.media.framing import Framing, fit_box, fit_side, keep_inside
from dagan.media.notices import Warn, to_stderr
from dagan.media.reader import VideoReader

_LEAST_SHARE = 0.3  # of the side; with a smaller face in the fixed square, the square moves
_MOST_PADDED = 1.04  # times the picture's shorter side; a larger fixed square gives way to a moving one too
_SAMPLES_A_SECOND = 6
MOST_SAMPLES = 600
_LONGEST_SIDE = 1280  # pictures are shrunk to this for finding faces
_PATIENT_SAMPLES = 20  # without a face so far, that are searched thoroughly; later every tenth
_DETECT_EVERY = 6  # samples: once a second all faces are looked for; in between the one is followed, at a third of the cost
_OUTLIERS = 2  # per cent of the boxes at either end that do not count for the union
_SMOOTHING = 0.4  # seconds, standard deviation of the low-pass filter of a moving centre
_SAME_OVERLAP = 0.1  # of two boxes in successive samples that show the same face


@dataclass(frozen=True)
class FramingReport:
    """What the first pass saw. frames: pictures looked at; missing: those without a face; several: with more than one."""

    frames: int
    missing: int
    several: int


@dataclass(frozen=True, eq=False)
class VideoFraming:
    """The framing of a video at any time. moving: whether the square follows the head.

    times: n, seconds; centers: n x 2, pixels, smoothed; face_height: median, pixels.
    """

    times: np.ndarray
    centers: np.ndarray
    side: float
    moving: bool
    face_height: float
    report: FramingReport

    def at(self, time: Fraction | float) -> Framing:
        """The square for the frame at `time` seconds."""
        x, y = (float(np.interp(float(time), self.times, self.centers[:, axis])) for axis in (0, 1))
        return Framing(x, y, self.side)


def frame_video(reader: VideoReader, finder: FaceFinder, warn: Warn = to_stderr) -> VideoFraming:
    """Streams once through the video, looks for the face a few times a second, and settles on the framing.

    Pictures without a face count with the last one's. `warn` hears of them, of several faces (the largest is taken, and then
    followed) and of a file that is cut off. Raises InputError when there is no face at all.
    """
    times, boxes, report = _collect(reader, finder)
    if (problem := reader.problem()) is not None:
        warn(problem)
    if not boxes:
        raise InputError(
            f"no face found in {reader.path}: none of the {report.frames} pictures looked at shows one: "
            "give a video with one visible face, not too small and not turned away"
        )
    if report.missing:
        warn(f"{reader.path}: no face in {report.missing} of {report.frames} pictures looked at: the framing is held there")
    if report.several:
        warn(f"{reader.path}: several faces in {report.several} of {report.frames} pictures looked at: the largest is followed")
    return settle(np.array(times), np.array(boxes), reader.width, reader.height, report)


def settle(times: np.ndarray, boxes: np.ndarray, width: int, height: int, report: FramingReport) -> VideoFraming:
    """The framing for face boxes (n x 4: x0, y0, x1, y1) seen at `times` (n) in width x height pictures."""
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
        return VideoFraming(times[:1], np.array([[fixed.center_x, fixed.center_y]]), fixed.side, False, usual, report)
    side = fit_side(float(np.percentile(heights, 90)), 0.0, width, height)
    if usual < _LEAST_SHARE * side:  # its size changes a lot too: the usual size decides
        side = alone
    centers = smooth(times, (boxes[:, :2] + boxes[:, 2:]) / 2)
    inside = [(keep_inside(x, side, width), keep_inside(y, side, height)) for x, y in centers]
    return VideoFraming(times, np.array(inside), side, True, usual, report)


def smooth(times: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Gaussian low-pass of n x 2 values at n times, without delay; memory stays small however many there are."""
    smoothed = np.empty_like(values, dtype=np.float64)
    first = np.searchsorted(times, times - 4 * _SMOOTHING)
    last = np.searchsorted(times, times + 4 * _SMOOTHING, side="right")
    for i, (start, stop) in enumerate(zip(first, last, strict=True)):
        weight = np.exp(-0.5 * ((times[start:stop] - times[i]) / _SMOOTHING) ** 2)
        smoothed[i] = weight @ values[start:stop] / weight.sum()
    return smoothed


def _collect(reader: VideoReader, finder: FaceFinder) -> tuple[list[float], list[tuple[float, float, float, float]], FramingReport]:
    """Times and boxes of the followed face, from the first picture that shows it on."""
    step = max(1, round(reader.rate / _SAMPLES_A_SECOND), -(-reader.frame_count // MOST_SAMPLES))
    times: list[float] = []
    boxes: list[tuple[float, float, float, float]] = []
    previous: FaceBox | None = None
    looked = missing = several = 0
    crowd = lost = False  # of the latest search: whether it found more than one face, or none
    for frame in reader.frames(step=step, max_side=_LONGEST_SIDE):
        face = None
        if previous is not None and not lost and looked % _DETECT_EVERY:
            face = finder.follow_face(frame.image, previous)
        if face is None:
            patient = looked < _PATIENT_SAMPLES if previous is None else False
            faces = finder.find_faces(frame.image, thorough=patient or looked % 10 == 0)
            crowd, lost = len(faces) > 1, not faces
            if faces:
                face = follow(faces, previous)
        looked += 1
        several += crowd
        missing += face is None
        previous = face or previous
        if previous is not None:
            scale = reader.width / frame.image.shape[1]
            x0, y0, x1, y1 = previous.box
            boxes.append((x0 * scale, y0 * scale, x1 * scale, y1 * scale))
            times.append(float(frame.time))
    return times, boxes, FramingReport(looked, missing, several)


def follow(faces: list[FaceBox], previous: FaceBox | None) -> FaceBox:
    """The face that continues `previous`; the largest where none does, or where that one has become small beside it."""
    if previous is None:
        return faces[0]
    shared = [_overlap(face, previous) for face in faces]
    best = int(np.argmax(shared))
    return faces[best] if shared[best] > _SAME_OVERLAP and faces[best].area > faces[0].area / 2 else faces[0]


def _overlap(face: FaceBox, other: FaceBox) -> float:
    from dagan.media.face_detector import overlap

    return float(overlap(np.array(face.box), np.array([other.box]))[0])
