"""What drives: a video, a folder of images, or a motion file. The motion of a video's frames is read here.

Some frames show no face: a black leader, a title, an empty chair, half a face at the border. Their keypoints say nothing about a face and
would tear the result apart. They are found, and other motion takes their place.

Legend: N frames, S side of the model's pictures.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from contextlib import closing
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from dagan.engine.base import Engine
from dagan.errors import InputError
from dagan.media.container import Frame, VideoReader
from dagan.media.images import is_photo, is_picture, is_video
from dagan.media.landmarks import Face, FaceLandmarker, head_pose, pose_distance
from dagan.media.shots import MOST_SAMPLES
from dagan.models.keypoints import Keypoints
from dagan.motion.file import MOTION_SUFFIXES, DrivingMotion, check_reference, holds_motion, nearest_layout
from dagan.stream import batched, on_workers

OnMissing = Literal["hold", "rest", "error"]
_EASE = 0.5  # Seconds in which motion passes into rest, or from one held pose to the next.
_WHOLE = 0.9  # A face must have this share of its landmarks inside the picture. One that is cut off more cannot drive.
_JUMP = 10.0  # Grey levels. A frame that differs more on average from the one before may show something else.


def check_on_missing(value: str) -> OnMissing:
    """Returns the value. Raises InputError when it is none of hold, rest and error."""
    for known in get_args(OnMissing):
        if value == known:
            return known
    raise InputError(f"--on-missing is {value!r}: must be {', '.join(get_args(OnMissing))}")


class FaceWatch:
    """Follows the face through pictures that are given one by one, and tells which of them show one.

    Only every `step`-th picture is looked at, as long as the face is there and the picture does not change suddenly. Where that fails, the
    pictures between are looked at too. `present` has one byte for each picture judged so far, which is 1 where it shows a face.
    """

    def __init__(self, landmarker: FaceLandmarker, step: int = 1) -> None:
        self.present = bytearray()
        self._landmarker, self._step = landmarker, step
        self._face: Face | None = None
        self._waiting: list[np.ndarray] = []
        self._jumped = False
        self._thumbnail: np.ndarray | None = None

    def see(self, picture: np.ndarray) -> Face | None:
        """Takes the next picture, S x S x 3 uint8. Returns the face in it where this picture was looked at, else None."""
        thumbnail = picture[::8, ::8].astype(np.int16)
        if self._thumbnail is not None and np.abs(thumbnail - self._thumbnail).mean() > _JUMP:
            self._jumped = True
        self._thumbnail = thumbnail
        self._waiting.append(picture)
        if self.present and len(self._waiting) < self._step:
            return None
        return self.judge()

    def judge(self) -> Face | None:
        """Judges the pictures that wait. Returns the face in the latest, or None where there is none or no picture waits."""
        if not self._waiting:
            return None
        *between, latest = self._waiting
        before = self._face
        self._face = self._find(latest, before)
        if before is not None and self._face is not None and not self._jumped:
            self.present.extend(b"\1" * len(between))
        else:
            self.present.extend(self._find(picture, before or self._face) is not None for picture in between)
        self.present.append(self._face is not None)
        self._waiting.clear()
        self._jumped = False
        return self._face

    def _find(self, picture: np.ndarray, near: Face | None) -> Face | None:
        if near is not None:
            face = self._landmarker.track(picture, near)
        else:
            face = next(iter(self._landmarker.detect(picture, thorough=False)), None)
        if face is None:
            return None
        inside = ((face.landmarks[:, :2] >= 0) & (face.landmarks[:, :2] <= len(picture))).all(axis=1)
        return face if inside.mean() >= _WHOLE else None


def fill(values: np.ndarray, present: np.ndarray, times: np.ndarray, rest: np.ndarray | None = None) -> np.ndarray:
    """Replaces the values, N x ..., of frames that are not `present` (N, bool). `times` are the seconds of the frames.

    Without `rest`, the values of the nearest present frame are held, and pass into those of the next in the middle of a gap. With `rest`
    (one frame's values), they ease to rest at the start of a gap and back at its end. At least one frame must be present.
    """
    filled = values.copy()
    edges = np.flatnonzero(np.diff(np.concatenate(([True], present, [True])).astype(np.int8)))
    for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        gap = times[start:stop]
        before = values[start - 1] if start > 0 else None
        after = values[stop] if stop < len(values) else None
        begin = times[start - 1] if before is not None else gap[0]
        end = times[stop] if after is not None else gap[-1]
        shape = (-1, *([1] * (values.ndim - 1)))
        if rest is not None:
            ease = min(_EASE, (end - begin) / 2) or 1.0
            leaving = 1 - _smooth((gap - begin) / ease) if before is not None else np.zeros_like(gap)
            returning = 1 - _smooth((end - gap) / ease) if after is not None else np.zeros_like(gap)
            moved = np.broadcast_to(rest, filled[start:stop].shape).copy()
            for weight, other in ((leaving, before), (returning, after)):
                if other is not None:
                    moved += weight.reshape(shape) * (other - rest)
            filled[start:stop] = moved
        elif before is not None and after is not None:
            ease = min(_EASE, end - begin) or 1.0
            weight = _smooth((gap - (begin + end) / 2) / ease + 0.5).reshape(shape)
            filled[start:stop] = before + weight * (after - before)
        else:
            filled[start:stop] = after if before is None else before
    return filled


def _smooth(x: np.ndarray) -> np.ndarray:
    """Rises from 0 to 1 over [0, 1], and is level at both ends."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


_LOOKS_A_SECOND = 8  # The face is looked at in so many pictures a second, because a mouth opens and closes a few times a second.
_FRAMED = 0.1  # In a well framed picture the face is off the middle by at most this share of the side.


def is_motion_file(path: Path) -> bool:
    """Says whether a file holds a motion, whatever its name, or is named like a motion file and is no picture and no video."""
    return holds_motion(path) or (path.suffix.lower() in MOTION_SUFFIXES and not is_picture(path) and not is_video(path))


def refuse_photo(path: Path) -> None:
    """Raises InputError when `path` is a photo, which cannot drive."""
    if is_photo(path):
        raise InputError(
            f"{path} is a photo, and nothing moves in it: give as DRIVING a video, a folder of images or a motion file "
            "(the photo to animate is SOURCE, named first)"
        )


def check_fit(motion: DrivingMotion, engine: Engine, path: Path) -> str | None:
    """Returns None when the motion was found by the engine's own detector, and a warning when by another training of the same model.

    Raises InputError when it was found by another model, whose keypoints are different or of another number.
    """
    count = motion.value.shape[1]
    advice = f"make it again with --save-motion and --model {engine.name}, or use the model {motion.model}"
    if count != engine.keypoint_count:
        raise InputError(f"{path} has {count} keypoints a frame, model {engine.name!r} has {engine.keypoint_count}: {advice}")
    if motion.detector == engine.detector_digest:
        return None
    if motion.model != engine.name:
        raise InputError(f"{path} was made with model {motion.model!r}, whose keypoints are not those of {engine.name!r}: {advice}")
    return f"{path} was made with another training of {motion.model!r}: its keypoints may lie elsewhere on the face"


class MotionReader:
    """Collects the motion of a video, frame by frame, and finds its reference frame.

    Args:
        landmarker: As long as the source picture shows a face, it tells head pose and expression, and which frames show a face. Without
            it the model's keypoints are compared, and every frame drives.
        cropped: This says whether views were framed round the face. Then a reference frame with the face in its middle is preferred.
        explicit: This says whether keypoints that stand on landmarks are put there, as long as the source picture shows a face.

    After `read`, `missing` is the number of frames without a face.
    """

    def __init__(
        self, engine: Engine, reader: VideoReader, landmarker: FaceLandmarker | None, cropped: bool = False, explicit: bool = False
    ) -> None:  # fmt: skip
        self._engine, self._reader, self._landmarker, self._cropped = engine, reader, landmarker, cropped
        self._explicit = explicit
        self._step = max(1, round(reader.rate / _LOOKS_A_SECOND))
        self._candidates = self._step * max(1, -(-reader.frame_count // (self._step * MOST_SAMPLES)))
        self.missing = 0

    def read(
        self,
        frames: Iterable[tuple[Frame, np.ndarray]],
        source: np.ndarray,
        *,
        reference: int | None = None,
        relative: bool = True,
        on_missing: OnMissing = "hold",
    ) -> DrivingMotion:
        """Reads the motion of frames with their views, S x S x 3. Of a frame, some hundred bytes are kept: its keypoints and its time.

        Args:
            source: This is the view of the source picture.
            reference: This frame is to stand for the source's pose. None finds the frame with the nearest pose. Frame 0 stands for the
                first frame with a face.
            relative: See `Animator`. Without it no reference frame is looked for.
            on_missing: See `AnimateOptions`.

        Raises InputError when no frame can be read, when none shows a face, when the reference does not exist or shows none, and when
        on_missing is error and a frame shows none.
        """
        face = None if self._landmarker is None else next(iter(self._landmarker.detect(source, thorough=False)), None)
        explicit = self._explicit and face is not None
        watch = None if self._landmarker is None or face is None else FaceWatch(self._landmarker, 1 if explicit else self._step)
        wanted = head_pose(face) if face is not None and reference is None and relative else None
        best: tuple[bool, float, int] | None = None
        # Each is one block. Thousands of small arrays between the workers' large ones would keep memory from being used again.
        values, jacobians = array("f"), array("f")
        times: list[Fraction] = []
        end = Fraction(0)
        # Workers find keypoints while this thread looks at poses, because threads must not share the landmarker.
        with closing(on_workers(self._engine.workers, self._keypoints, batched(frames, self._engine.batch_size))) as found:
            for batch, keypoints in found:
                places = []
                for frame, picture in batch:
                    times.append(frame.time)
                    end = frame.time + frame.duration
                    seen = None if watch is None else watch.see(picture)
                    if explicit:
                        places.append(self._engine.face.places(seen, self._engine.size))
                    if watch is not None and on_missing == "error":
                        self._refuse_missing(watch, times)
                    if wanted is not None and seen is not None and frame.index % self._candidates == 0:
                        off = self._cropped and _off_centre(seen, len(picture)) > _FRAMED
                        candidate = (off, pose_distance(wanted, head_pose(seen)), frame.index)
                        best = candidate if best is None else min(best, candidate)
                if explicit:
                    keypoints = self._engine.face.put(keypoints, places)
                values.frombytes(keypoints.value.numpy().tobytes())
                jacobians.frombytes(keypoints.jacobian.numpy().tobytes())
        if not times:
            raise InputError(f"{self._reader.path}: no frame could be read: give another file")
        value = np.array(values, dtype=np.float32).reshape(len(times), -1, 2)
        jacobian = np.array(jacobians, dtype=np.float32).reshape(len(times), -1, 2, 2)
        if not (np.isfinite(value).all() and np.isfinite(jacobian).all()):
            raise InputError(f"model {self._engine.name!r} finds no finite keypoints in {self._reader.path}: try --precision float32")
        present = self._present(watch, times, on_missing)
        resting = self._engine.keypoints([source])
        if explicit:
            resting = self._engine.face.put(resting, [self._engine.face.places(face, self._engine.size)])
        chosen = self._reference(resting, value, present, reference, best) if relative or reference is not None else 0
        if not present.all():
            at_rest = (value[chosen], jacobian[chosen]) if relative else (resting.value[0].numpy(), resting.jacobian[0].numpy())
            seconds = np.array([float(time) for time in times])
            value, jacobian = (
                fill(found, present, seconds, rest if on_missing == "rest" else None)
                for found, rest in zip((value, jacobian), at_rest, strict=True)
            )
        return DrivingMotion(
            value=value,
            jacobian=jacobian,
            times=(*times, end),
            rate=self._reader.rate,
            time_base=self._reader.time_base,
            reference=chosen,
            model=self._engine.name,
            detector=self._engine.detector_digest,
            image_size=self._engine.size,
            explicit=explicit,
        )

    def _present(self, watch: FaceWatch | None, times: list[Fraction], on_missing: OnMissing) -> np.ndarray:
        """Returns which frames show a face (N, bool), and counts those that do not. Raises InputError when none does."""
        if watch is None:
            return np.ones(len(times), dtype=bool)
        watch.judge()
        if on_missing == "error":
            self._refuse_missing(watch, times)
        present = np.frombuffer(watch.present, dtype=np.uint8).astype(bool)
        self.missing = int((~present).sum())
        if not present.any():
            raise InputError(
                f"no face found in {self._reader.path}: none of its {len(times)} frames shows one: "
                "give a video with one visible face, not too small and not turned away"
            )
        return present

    def _refuse_missing(self, watch: FaceWatch, times: list[Fraction]) -> None:
        first = watch.present.find(0)
        if first >= 0:
            raise InputError(
                f"{self._reader.path} shows no face at {float(times[first]):.2f} s (frame {first}): "
                "cut such frames out, or go over them with --on-missing hold or rest"
            )

    def _reference(
        self, source: Keypoints, value: np.ndarray, present: np.ndarray, asked: int | None, best: tuple[bool, float, int] | None
    ) -> int:  # fmt: skip
        shown = np.flatnonzero(present)
        if asked is None:
            return best[2] if best is not None else int(shown[nearest_layout(source.value[0].numpy(), value[shown])])
        check_reference(asked, len(value))
        if asked == 0:
            return int(shown[0])
        if not present[asked]:
            near = int(shown[np.abs(shown - asked).argmin()])
            raise InputError(f"--reference {asked}: this frame of {self._reader.path} shows no face; the nearest that does is {near}")
        return asked

    def _keypoints(self, batch: list[tuple[Frame, np.ndarray]]) -> tuple[list[tuple[Frame, np.ndarray]], Keypoints]:
        return batch, self._engine.keypoints([picture for _, picture in batch])


def _off_centre(face: Face, size: int) -> float:
    """Returns how far the middle of the face is from the picture's, along the axis where it is farther, as a share of the side."""
    x0, y0, x1, y1 = face.box
    return max(abs(x0 + x1 - size), abs(y0 + y1 - size)) / 2 / size


def frame_spans(motion: DrivingMotion) -> Iterator[tuple[Fraction, Fraction]]:
    """Yields the exact time and duration of each frame."""
    for start, end in pairwise(motion.times):
        yield start, end - start
