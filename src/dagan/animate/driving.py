"""What drives: a video, a folder of images, or a motion file; and the motion in a video's frames.

Legend: S side of the model's pictures.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from contextlib import closing
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np

from dagan.animate.missing import FaceWatch, OnMissing, fill
from dagan.animate.motion import MOTION_SUFFIXES, Motion, holds_motion
from dagan.errors import InputError
from dagan.inference.batches import batched
from dagan.inference.reference import check_reference, head_pose, nearest_layout, pose_distance
from dagan.inference.runner import Runner
from dagan.inference.workers import on_workers
from dagan.media.kinds import is_photo, is_picture, is_video
from dagan.media.landmarks import Face, FaceLandmarker
from dagan.media.reader import Frame, VideoReader
from dagan.media.shots import MOST_SAMPLES
from dagan.models.keypoints import Keypoints

# Pictures a second in which the face is looked at: a mouth opens and closes a few times a second.
_LOOKS_A_SECOND = 8
_FRAMED = 0.1  # of the side, by which the face of a well framed picture may be off its middle


def is_motion_file(path: Path) -> bool:
    """Whether a file holds a motion, whatever its name; or is no picture and no video, and is named like a motion file."""
    return holds_motion(path) or (path.suffix.lower() in MOTION_SUFFIXES and not is_picture(path) and not is_video(path))


def refuse_photo(path: Path) -> None:
    """Raises InputError when `path` is a photo, which cannot drive."""
    if is_photo(path):
        raise InputError(
            f"{path} is a photo, and nothing moves in it: give as DRIVING a video, a folder of images or a motion file "
            "(the photo to animate is SOURCE, named first)"
        )


class MotionReader:
    """Collects the motion of a video, frame by frame, and finds its reference frame.

    landmarker: tells head pose, expression, and which frames show a face, as long as the source picture shows one; without, the
    model's keypoints are compared and every frame drives. cropped: whether the views were framed round the face; then a frame in
    which the face is in the middle is preferred as reference. explicit: whether keypoints that stand on landmarks are put there, as
    long as the source picture shows a face. missing: after `read`, the number of frames without a face.
    """

    def __init__(
        self, engine: Runner, reader: VideoReader, landmarker: FaceLandmarker | None, cropped: bool = False, explicit: bool = False
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
    ) -> Motion:
        """The motion of frames with their views (S x S x 3).

        source: the view of the source picture. reference: the frame that is to have the source's pose, None finds the one whose pose
        is nearest; a faceless frame 0 stands for the first frame with a face. relative: see `Animator`; without, no frame is looked
        for. on_missing: see `AnimateOptions`. Raises InputError when no frame can be read, none shows a face, the reference does not
        exist or shows none, and when on_missing is error and a frame shows none.

        What is kept of a frame are its keypoints and time: some hundred bytes.
        """
        face = None if self._landmarker is None else next(iter(self._landmarker.detect(source, thorough=False)), None)
        explicit = self._explicit and face is not None
        watch = None if self._landmarker is None or face is None else FaceWatch(self._landmarker, 1 if explicit else self._step)
        wanted = head_pose(face) if face is not None and reference is None and relative else None
        best: tuple[bool, float, int] | None = None
        # One block each: thousands of small arrays between the workers' large ones would keep the memory of those from being used again.
        values, jacobians = array("f"), array("f")
        times: list[Fraction] = []
        end = Fraction(0)
        # Workers find keypoints while this thread looks at poses: the landmarker is not to be shared by threads.
        with closing(on_workers(self._engine, self._keypoints, batched(frames, self._engine.batch_size))) as found:
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
        return Motion(
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
        """Which frames show a face (N, bool), and their count. Raises InputError when none does."""
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
    """How far the face's middle is from the picture's, along the axis where it is farther, as a share of the side."""
    x0, y0, x1, y1 = face.box
    return max(abs(x0 + x1 - size), abs(y0 + y1 - size)) / 2 / size


def frame_spans(motion: Motion) -> Iterator[tuple[Fraction, Fraction]]:
    """(time, duration) of each frame, exact."""
    for start, end in pairwise(motion.times):
        yield start, end - start
