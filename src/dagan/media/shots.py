"""The shots of a video, with the face that is followed in each.

A shot begins at a hard cut, and where the face is suddenly elsewhere although no cut was seen (between two pictures that look
alike as a whole, or across a dissolve).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from dagan.media.cuts import CutFinder
from dagan.media.face_detector import overlap
from dagan.media.faces import FaceBox, FaceFinder
from dagan.media.reader import Frame, VideoReader

MOST_SAMPLES = 600  # pictures of a video that are searched, besides the first ones of each shot
_SAMPLES_A_SECOND = 6
_LONGEST_SIDE = 1280  # pictures are shrunk to this for finding faces
_PATIENT_SAMPLES = 20  # without a face so far, that are searched thoroughly; later every tenth
_PATIENT_IN_SHOT = 2  # of a later shot
_DETECT_EVERY = 6  # samples: once a second all faces are looked for; in between the one is followed, at a third of the cost
_SAME_OVERLAP = 0.1  # of two boxes in successive samples that show the same face
_UNSEEN_CUT = 4.0  # grey levels; a face that jumps where a frame changed less was moved, not cut
_CLOSE = 0.5  # seconds; over longer times a face may get anywhere


@dataclass
class FramingReport:
    """What the first pass saw. frames: pictures looked at; missing: those without a face; several: with more than one; shots."""

    frames: int = 0
    missing: int = 0
    several: int = 0
    shots: int = 0


@dataclass
class Shot:
    """The pictures of one shot in which the face was seen: `times` in seconds, `leans` in radians, `outlines` P x 2 pixels.

    start: seconds at which the shot begins. last: the latest face seen, in the pixels of the shrunk picture.
    """

    start: float
    times: list[float] = field(default_factory=list)
    leans: list[float] = field(default_factory=list)
    outlines: list[np.ndarray] = field(default_factory=list)
    last: FaceBox | None = None
    searched: int = 0
    lost: bool = False  # no face was found in the latest search
    crowd: bool = False  # several were

    def add(self, time: float, face: FaceBox, scale: float) -> None:
        """A face seen at `time`; scale: pixels of the video in one of the shrunk picture."""
        self.times.append(time)
        self.leans.append(face.lean)
        self.outlines.append((face.outline * scale).astype(np.float32))
        self.last = face

    def split(self, time: float) -> Shot:
        """Ends the shot before `time`; the shot that begins there, with what was seen from there on."""
        kept = sum(seen < time for seen in self.times)
        later = Shot(time, self.times[kept:], self.leans[kept:], self.outlines[kept:])
        later.last = self.last if later.times else None
        self.times, self.leans, self.outlines = self.times[:kept], self.leans[:kept], self.outlines[:kept]
        return later

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """times (n), leans (n), outlines (n x P x 2)."""
        return np.array(self.times), np.array(self.leans), np.array(self.outlines, dtype=np.float64)


def find_shots(reader: VideoReader, finder: FaceFinder, report: FramingReport) -> Iterator[Shot]:
    """Streams once through the video; its shots, each when it has ended. `report` is filled in the while."""
    step = max(1, round(reader.rate / _SAMPLES_A_SECOND), -(-reader.frame_count // MOST_SAMPLES))
    cuts = CutFinder(float(reader.rate))
    shot = Shot(0.0)
    due = 0
    changed = (0.0, 0.0)  # the largest change since the face was last seen, and its time
    for frame in reader.frames(max_side=_LONGEST_SIDE):
        time = float(frame.time)
        cut = cuts.add(frame.image, time)
        changed = max(changed, (cuts.change, time))
        if cut is not None and cut > shot.start:
            later = shot.split(cut)
            yield shot
            shot, due = later, frame.index
        if frame.index < due:
            continue
        due = frame.index + step
        was_lost = shot.lost
        face = _look(frame, finder, shot, report)
        if face is None:
            continue
        jumped = shot.last is not None and _overlap(face, shot.last) <= _SAME_OVERLAP and changed[1] > shot.times[-1]
        if jumped and (was_lost or (changed[0] >= _UNSEEN_CUT and time - shot.times[-1] <= _CLOSE)):
            yield shot
            shot = Shot(changed[1], crowd=shot.crowd)
        shot.add(time, face, reader.width / frame.image.shape[1])
        changed = (0.0, 0.0)
    for cut in cuts.rest():
        if cut > shot.start:
            later = shot.split(cut)
            yield shot
            shot = later
    yield shot


def _look(frame: Frame, finder: FaceFinder, shot: Shot, report: FramingReport) -> FaceBox | None:
    """The face in a frame of the shot: where it was, else in the whole picture."""
    face = None
    if shot.last is not None and not shot.lost and shot.searched % _DETECT_EVERY:
        face = finder.follow_face(frame.image, shot.last)
    if face is None:
        first = _PATIENT_SAMPLES if shot.start == 0 else _PATIENT_IN_SHOT
        patient = not shot.times and shot.searched < first
        faces = finder.find_faces(frame.image, thorough=patient or report.frames % 10 == 0)
        face = follow(faces, shot.last) if faces else None
        shot.crowd, shot.lost = len(faces) > 1, not faces
    shot.searched += 1
    report.frames += 1
    report.several += shot.crowd
    report.missing += face is None
    return face


def follow(faces: list[FaceBox], previous: FaceBox | None) -> FaceBox:
    """The face that continues `previous`; the largest where none does, or where that one has become small beside it."""
    if previous is None:
        return faces[0]
    shared = [_overlap(face, previous) for face in faces]
    best = int(np.argmax(shared))
    return faces[best] if shared[best] > _SAME_OVERLAP and faces[best].area > faces[0].area / 2 else faces[0]


def _overlap(face: FaceBox, other: FaceBox) -> float:
    return float(overlap(np.array(face.box), np.array([other.box]))[0])
