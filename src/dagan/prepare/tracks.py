"""The first pass over a raw video: its shots, and the faces that are followed in them.

PySceneDetect's adaptive detector finds hard cuts. A flash divides a shot, which loses no more than a few frames. Where a face jumps a new
track begins too, so that dissolves and cuts that were missed do no harm either.

Legend: a sample is a frame that is searched for faces, about eight a second.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from dagan.media.container import Frame, VideoReader
from dagan.media.face_detector import overlap
from dagan.media.framing import lean
from dagan.media.landmarks import BLENDSHAPE_NAMES, OUTLINE, Face, FaceLandmarker, expressions, head_pose

SAMPLES_A_SECOND = 8
# These mesh points are kept of every sample: the rim of the face and its nose, then corners of the eyes and of the mouth.
KEPT = (*OUTLINE, 33, 133, 362, 263, 61, 291)
_LONGEST_SIDE = 960  # Pictures are shrunk to this longer side for finding faces.
_CUT_SIDE = 256  # For finding cuts pictures are shrunk to about so many pixels.
_LEAST_CHANGE = 27.0  # A cut changes HSV values by so much on average. Of joined clips all cuts had 35 or more, and quick heads at most 22.
_DETECT_EVERY = 4  # In one of so many samples all faces are looked for. In between, known ones are followed, at a third of the cost.
_SAME = 0.3  # Boxes of successive samples that share more than this of their union show the same face.
_UNCHANGED = 1.0  # Grey levels. Where a picture without a face changes less, it is not searched again.
# As long as no face is seen, these samples of a shot are searched patiently, which takes up to a second, and then each `_PATIENT`-th.
_PATIENT_FIRST = (0, 1, 2, 4, 8, 16, 32)
_PATIENT = 64
# Points at either side of the head, whose difference points from the person's right to the left.
_SIDES = ((33, 263), (133, 362), (127, 356), (234, 454))


@dataclass(frozen=True, eq=False)
class Sample:
    """One face in one frame."""

    index: int
    """The number of the frame."""
    time: Fraction
    """When it is shown, in seconds."""
    points: np.ndarray
    """The places of KEPT, K x 2 float32, in pixels of the raw video."""
    score: float
    """How sure the landmarker is that this is a face, from 0 to 1."""
    lean: float
    """The angle by which the face leans, in radians."""
    yaw: float
    """The degrees by which the head is turned to the side, either way."""
    gap: float
    """The gap between the inner lips, in heights of the face."""
    blink: float
    """How far the eyes are closed, from 0 to 1."""
    gaze: tuple[float, float]
    """How far the eyes look to the person's left, and up, each from -1 to 1."""
    expression: np.ndarray
    """The seven numbers of `media.landmarks.expressions`."""

    @property
    def outline(self) -> np.ndarray:
        """The places of OUTLINE, P x 2."""
        return self.points[: len(OUTLINE)]


@dataclass(eq=False)
class Track:
    """One face, from sample to sample."""

    samples: list[Sample] = field(default_factory=list)
    """What was seen of it."""
    last: Face | None = None
    """The face as it was seen last, in pixels of the shrunk picture; None where the track has ended before its shot."""


@dataclass(eq=False)
class Shot:
    """The pictures between two cuts."""

    first: int
    """The number of its first frame."""
    start: Fraction
    """The second at which it begins."""
    end: Fraction
    """The second at which it ends."""
    stop: int = 0
    """The number of the frame after its last one."""
    brightest: float = 0.0
    """The mean grey level of its brightest sample."""
    tracks: list[Track] = field(default_factory=list)
    """The faces in it, in the order in which they appeared."""


class Finder:
    """Finds shots and tracks. Threads must not share one."""

    def __init__(self) -> None:
        self.landmarker = FaceLandmarker()

    def shots(self, reader: VideoReader, spans: Sequence[tuple[float, float]] | None = None) -> Iterator[Shot]:
        """Reads the video once and yields each of its shots when it has ended.

        Faces are looked for in spans of time, from second to second, and everywhere for None. The video is read to the last span's end.
        """
        step = max(1, round(reader.rate / SAMPLES_A_SECOND))
        shot, search, due = None, _Search(self.landmarker), 0
        for frame, small, cut in _with_cuts(reader):
            if spans is not None and all(float(frame.time) > end for _, end in spans):
                break
            if shot is None or cut:
                if shot is not None:
                    yield shot
                shot, search, due = Shot(frame.index, frame.time, frame.time), _Search(self.landmarker), frame.index
            shot.stop, shot.end = frame.index + 1, frame.time + frame.duration
            if frame.index >= due and (spans is None or any(begin <= float(frame.time) <= end for begin, end in spans)):
                due = frame.index + step
                shot.brightest = max(shot.brightest, float(small.mean()))
                search.look(frame, small, shot, reader.width / frame.image.shape[1])
        if shot is not None:
            yield shot


def _with_cuts(reader: VideoReader) -> Iterator[tuple[Frame, np.ndarray, bool]]:
    """Yields each frame, shrunk, with a still smaller copy of its picture, and whether a shot begins with it."""
    from scenedetect import FrameTimecode
    from scenedetect.detectors import AdaptiveDetector

    detector, rate = AdaptiveDetector(min_scene_len=1, min_content_val=_LEAST_CHANGE), float(reader.rate)
    waiting: deque[tuple[Frame, np.ndarray]] = deque()
    cuts: set[int] = set()
    for frame in reader.frames(max_side=_LONGEST_SIDE):
        small = _small(frame.image)
        found = detector.process_frame(FrameTimecode(frame.index, rate), np.ascontiguousarray(small[..., ::-1]))
        cuts.update(cut.frame_num for cut in found)
        waiting.append((frame, small))
        if len(waiting) > detector.event_buffer_length:
            ready, thumbnail = waiting.popleft()
            yield ready, thumbnail, ready.index in cuts
            cuts.discard(ready.index)
    for ready, thumbnail in waiting:
        yield ready, thumbnail, ready.index in cuts


def _small(image: np.ndarray) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(image).reduce(max(1, max(image.shape[:2]) // _CUT_SIDE)))


class _Search:
    """Looks for the faces of one shot."""

    def __init__(self, landmarker: FaceLandmarker) -> None:
        self._landmarker = landmarker
        self._count = 0
        self._empty = 0  # So many samples since a face was last seen.
        self._before: np.ndarray | None = None  # This picture, searched last, showed no face.

    def look(self, frame: Frame, small: np.ndarray, shot: Shot, scale: float) -> None:
        """Follows the faces of the shot into this frame, and looks for others. `scale` is the size of its pixels in the raw video's."""
        active = [track for track in shot.tracks if track.last is not None]
        seen: list[Face] = []
        for track in active:
            assert track.last is not None
            face = self._landmarker.look_at(frame.image, track.last.landmarks)
            if face is None or _shared(face, track.last) <= _SAME or any(_shared(face, other) > _SAME for other in seen):
                track.last = None
                continue
            seen.append(face)
            _extend(track, frame, face, scale)
        if len(seen) < len(active) or not seen or self._count % _DETECT_EVERY == 0:
            for face in self._detect(frame.image, small, patient=not seen):
                if all(_shared(face, other) <= _SAME / 2 for other in seen):
                    seen.append(face)
                    shot.tracks.append(Track())
                    _extend(shot.tracks[-1], frame, face, scale)
        self._count += 1
        self._empty = 0 if seen else self._empty + 1

    def _detect(self, image: np.ndarray, small: np.ndarray, patient: bool) -> list[Face]:
        before = self._before
        if before is not None and before.shape == small.shape and np.abs(small.astype(np.int16) - before).mean() < _UNCHANGED:
            return []
        patient = patient and (self._empty in _PATIENT_FIRST or self._empty % _PATIENT == 0)
        faces = self._landmarker.detect(image, thorough=patient)
        self._before = small.astype(np.int16) if patient and not faces else None
        return faces


def _shared(face: Face, other: Face) -> float:
    return float(overlap(np.array(face.box), np.array([other.box]))[0])


def _extend(track: Track, frame: Frame, face: Face, scale: float) -> None:
    marks = face.landmarks
    pose = head_pose(face)
    shapes = dict(zip(BLENDSHAPE_NAMES[1:], pose.expression.tolist(), strict=True))
    left, right = ({way: shapes[f"eyeLook{way}{side}"] for way in ("In", "Out", "Up", "Down")} for side in ("Left", "Right"))
    across = (left["Out"] - left["In"] + right["In"] - right["Out"]) / 2
    up = (left["Up"] - left["Down"] + right["Up"] - right["Down"]) / 2
    axis = sum((marks[b] - marks[a] for a, b in _SIDES), np.zeros(3))
    track.last = face
    track.samples.append(
        Sample(
            index=frame.index, time=frame.time, points=(marks[list(KEPT), :2] * scale).astype(np.float32), score=face.score,
            lean=lean(marks),
            yaw=float(np.degrees(np.arctan2(abs(axis[2]), np.hypot(axis[0], axis[1])))), gap=pose.gap, blink=pose.blink,
            gaze=(across, up), expression=expressions(lambda point: marks[point, :2]),
        )
    )  # fmt: skip
