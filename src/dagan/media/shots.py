"""Finds the shots of a video, with the face that is followed in each.

A shot begins at a hard cut. It also begins where the face is suddenly elsewhere although no cut was seen, as between two pictures that
look alike as a whole, or across a dissolve.

Cuts are found while the video is read. At a cut the picture changes at once and stays changed. Three other things do not count: a flash
changes back, a fade changes little at a time, and in quick motion the neighbouring frames change as much.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from dagan.media.container import Frame, VideoReader
from dagan.media.face_detector import overlap
from dagan.media.framing import FaceBox, FaceFinder

_SIZE = (64, 36)  # Frames are shrunk to so many pixels: motion of details vanishes, and changes of the scene do not.
_LEAST = 10.0  # A cut changes the picture by at least so many grey levels on average.
_RATIO = 3.0  # A cut changes the picture this many times as much as the frames around it do on average.
_STILL = 1.0  # Grey levels. Smaller changes are noise, or a frame that is shown twice.
_BACK, _AHEAD = 0.35, 0.16  # A cut is compared with so many seconds before and after it.
_REVERTED = 0.5  # A flash begins or ends where a later picture differs from an earlier one by less than this share of the change.


class CutFinder:
    """Is shown every frame of a video and tells where cuts are, `_AHEAD` seconds late. `rate` is the number of frames a second."""

    def __init__(self, rate: float) -> None:
        self._back, self._ahead = max(3, round(_BACK * rate)), max(2, round(_AHEAD * rate))
        self._thumbnails: deque[np.ndarray] = deque(maxlen=2 * self._ahead + 2)
        self._changes: deque[float] = deque(maxlen=self._back + 1 + self._ahead)
        self._times: deque[float] = deque(maxlen=self._ahead + 1)
        self.change = 0.0  # How much the latest frame differs from the one before, in grey levels.

    def add(self, image: np.ndarray, time: float) -> float | None:
        """Takes the next frame (H x W x 3 uint8). Returns the time of an earlier frame with which a new shot begins, or None."""
        thumbnail = _thumbnail(image)
        self.change = float(np.abs(thumbnail - self._thumbnails[-1]).mean()) if self._thumbnails else 0.0
        self._thumbnails.append(thumbnail)
        self._changes.append(self.change)
        self._times.append(time)
        return self._cut_at(self._ahead)

    def rest(self) -> list[float]:
        """Returns, at the video's end, the times of cuts among the last frames."""
        found = [self._cut_at(later) for later in range(min(self._ahead, len(self._times)) - 1, -1, -1)]
        return [time for time in found if time is not None]

    def _cut_at(self, later: int) -> float | None:
        """Returns the time of the frame that came `later` frames before the latest one, if a shot begins with it."""
        place = len(self._changes) - 1 - later
        if place < 1 or later + 2 > len(self._thumbnails):
            return None
        change = self._changes[place]
        if change < _LEAST:
            return None
        others = [other for i, other in enumerate(self._changes) if i != place and other > _STILL]
        if others and change < _RATIO * sum(others) / len(others):
            return None
        latest, first = self._thumbnails[-1], max(0, len(self._thumbnails) - 2 - later - self._ahead)
        before = list(self._thumbnails)[first : len(self._thumbnails) - 1 - later]
        if min(np.abs(latest - earlier).mean() for earlier in before) < _REVERTED * change:
            return None
        self._changes[place] = 0.0  # The next shot may be short, and this cut must not make its cut look small.
        return self._times[-1 - later]


def _thumbnail(image: np.ndarray) -> np.ndarray:
    from PIL import Image

    step = max(1, min(image.shape[1] // (4 * _SIZE[0]), image.shape[0] // (4 * _SIZE[1])))  # For speed, most pixels are left out.
    few = Image.fromarray(np.ascontiguousarray(image[::step, ::step]))
    return np.asarray(few.resize(_SIZE, Image.Resampling.BOX)).astype(np.float32)


MOST_SAMPLES = 600  # About so many pictures of a video are searched for faces, besides the first ones of each shot.
_SAMPLES_A_SECOND = 6  # At most about so many pictures a second are searched.
_MOST_CHANGES = 1000  # So many changes are kept while no face is seen.
_LONGEST_SIDE = 1280  # Pictures are shrunk to this longer side for finding faces.
_PATIENT_SAMPLES = 20  # As long as no face was seen, so many pictures are searched thoroughly; later every tenth is.
_PATIENT_AFTER_LOSS = 3  # After the face is lost, or a later shot begins, so many are searched thoroughly.
# In one of so many samples, which is once a second, all faces are looked for. In between the face is followed, at a third of the cost.
_DETECT_EVERY = 6
_SAME_OVERLAP = 0.1  # Two boxes in successive samples that overlap more show the same face.
_CLOSE = 0.5  # Seconds. Within a longer time a face may get anywhere.
_STANDS_OUT = 3.0  # Between two samples, a frame may be an unseen cut if it changes this many times as much as the others on average.


@dataclass
class FramingReport:
    """What the first pass over a video saw."""

    frames: int = 0
    """The number of pictures that were looked at."""
    missing: int = 0
    """The number of those without a face."""
    several: int = 0
    """The number of those with more than one face."""
    shots: int = 0
    """The number of shots."""


@dataclass
class Shot:
    """The pictures of one shot in which the face was seen."""

    start: float
    """The second at which the shot begins."""
    times: list[float] = field(default_factory=list)
    """The seconds at which the face was seen."""
    leans: list[float] = field(default_factory=list)
    """The angles by which it leant, in radians."""
    outlines: list[np.ndarray] = field(default_factory=list)
    """Its outlines, P x 2 pixels each."""
    last: FaceBox | None = None
    """The latest face, in pixels of the shrunk picture."""
    before: FaceBox | None = None
    """The face seen before that one."""
    searched: int = 0
    """The number of samples that were searched."""
    unseen: int = 0
    """The number of samples since the face was last seen."""
    lost: bool = False
    """Whether no face was found in the latest search."""
    crowd: bool = False
    """Whether several faces were found in the latest search."""

    def add(self, time: float, face: FaceBox, scale: float) -> None:
        """Adds a face seen at `time`. `scale` is the number of the video's pixels in one of the shrunk picture."""
        self.times.append(time)
        self.leans.append(face.lean)
        self.outlines.append((face.outline * scale).astype(np.float32))
        self.before, self.last = self.last, face

    def split(self, time: float) -> Shot:
        """Ends the shot before `time` and returns the shot that begins there, with what was seen from there on."""
        kept = sum(seen < time for seen in self.times)
        later = Shot(time, self.times[kept:], self.leans[kept:], self.outlines[kept:])
        later.last = self.last if later.times else None
        later.before = self.before if len(later.times) > 1 else None
        self.times, self.leans, self.outlines = self.times[:kept], self.leans[:kept], self.outlines[:kept]
        return later

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the times (n), leans (n) and outlines (n x P x 2)."""
        return np.array(self.times), np.array(self.leans), np.array(self.outlines, dtype=np.float64)


def find_shots(reader: VideoReader, finder: FaceFinder, report: FramingReport) -> Iterator[Shot]:
    """Reads the video once and yields each of its shots when it has ended. `report` is filled in the while."""
    step = max(1, round(reader.rate / _SAMPLES_A_SECOND), -(-reader.frame_count // MOST_SAMPLES))
    cuts = CutFinder(float(reader.rate))
    shot = Shot(0.0)
    due = 0
    changes: list[tuple[float, float]] = []  # How much each frame since the face was last seen changed, with its time.
    for frame in reader.frames(max_side=_LONGEST_SIDE):
        time = float(frame.time)
        cut = cuts.add(frame.image, time)
        changes = [*changes[-_MOST_CHANGES:], (cuts.change, time)]
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
        if shot.last is not None and _jumped(shot, face, time, was_lost, [change for change, _ in changes]):
            yield shot
            shot = Shot(max(changes)[1], crowd=shot.crowd)
        shot.add(time, face, reader.width / frame.image.shape[1])
        changes = []
    for cut in cuts.rest():
        if cut > shot.start:
            later = shot.split(cut)
            yield shot
            shot = later
    yield shot


def _jumped(shot: Shot, face: FaceBox, time: float, was_lost: bool, changes: list[float]) -> bool:
    """Says whether the face is so far from where it was, or would be if it moved on as before, that a cut must lie between."""
    assert shot.last is not None
    passed = time - shot.times[-1]
    if _overlap(face, shot.last) > _SAME_OVERLAP or (passed > _CLOSE and not was_lost):
        return False
    if was_lost:
        return True
    if shot.before is None:  # Its movement is not known yet, so one frame must have changed much more than the others.
        most, others = max(changes), sorted(changes)[:-1]
        return most > _STANDS_OUT * max(1.0, sum(others) / max(1, len(others)))
    x, y = (_centre(shot.last) - _centre(shot.before)) / (shot.times[-1] - shot.times[-2]) * passed
    x0, y0, x1, y1 = shot.last.box
    return _shared(face.box, (x0 + x, y0 + y, x1 + x, y1 + y)) <= _SAME_OVERLAP


def _centre(face: FaceBox) -> np.ndarray:
    return np.array([face.box[0] + face.box[2], face.box[1] + face.box[3]]) / 2


def _look(frame: Frame, finder: FaceFinder, shot: Shot, report: FramingReport) -> FaceBox | None:
    """Looks for the face of the shot where it was in the last picture, else in the whole picture."""
    face = None
    if shot.last is not None and not shot.lost and shot.searched % _DETECT_EVERY:
        face = finder.follow_face(frame.image, shot.last)
    if face is None:
        patient = shot.unseen < (_PATIENT_AFTER_LOSS if shot.times or shot.start > 0 else _PATIENT_SAMPLES)
        faces = finder.find_faces(frame.image, thorough=patient or report.frames % 10 == 0)
        face = follow(faces, shot.last) if faces else None
        shot.crowd, shot.lost = len(faces) > 1, not faces
    shot.searched += 1
    shot.unseen = 0 if face is not None else shot.unseen + 1
    report.frames += 1
    report.several += shot.crowd
    report.missing += face is None
    return face


def follow(faces: list[FaceBox], previous: FaceBox | None) -> FaceBox:
    """Returns the face that continues `previous`. It is the largest where none does, or where that one has become small beside it."""
    if previous is None:
        return faces[0]
    shared = [_overlap(face, previous) for face in faces]
    best = int(np.argmax(shared))
    return faces[best] if shared[best] > _SAME_OVERLAP and faces[best].area > faces[0].area / 2 else faces[0]


def _overlap(face: FaceBox, other: FaceBox) -> float:
    return _shared(face.box, other.box)


def _shared(box: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> float:
    return float(overlap(np.array(box), np.array([other]))[0])
