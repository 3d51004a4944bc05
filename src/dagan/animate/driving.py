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

from dagan.animate.motion import MOTION_SUFFIXES, Motion, holds_motion
from dagan.errors import InputError
from dagan.inference.batches import batched
from dagan.inference.reference import HeadPose, head_pose, nearest_layout, pose_distance
from dagan.inference.runner import Runner
from dagan.inference.workers import on_workers
from dagan.media.faces import FaceFinder, LandmarkFinder
from dagan.media.kinds import is_photo, is_picture, is_video
from dagan.media.landmarks import Face
from dagan.media.reader import Frame, VideoReader
from dagan.models.keypoints import Keypoints

# Pictures a second in which the reference frame is looked for: a mouth opens and closes a few times a second.
_CANDIDATES_A_SECOND = 8


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

    finder: one that has landmarks tells head pose and expression; without, the model's keypoints are compared.
    """

    def __init__(self, engine: Runner, reader: VideoReader, finder: FaceFinder | None) -> None:
        self._engine, self._reader = engine, reader
        self._landmarker = finder.landmarker if isinstance(finder, LandmarkFinder) else None
        most = finder.most_samples if finder is not None else 1
        self._face: Face | None = None
        self._step = max(1, round(reader.rate / _CANDIDATES_A_SECOND), -(-reader.frame_count // most))

    def read(self, frames: Iterable[tuple[Frame, np.ndarray]], source: np.ndarray | None) -> Motion:
        """The motion of frames with their views (S x S x 3). source: picture whose pose the reference is to have; None: frame 0.

        What is kept of a frame are its keypoints and time: some hundred bytes.
        """
        wanted = None if source is None else self._pose(source)
        self._face = None  # of another person: nothing to follow
        nearest: tuple[float, int] | None = None
        # One block each: thousands of small arrays between the workers' large ones would keep the memory of those from being used again.
        values, jacobians = array("f"), array("f")
        times: list[Fraction] = []
        end = Fraction(0)
        # Workers find keypoints while this thread looks at poses: the landmarker is not to be shared by threads.
        with closing(on_workers(self._engine, self._keypoints, batched(frames, self._engine.batch_size))) as found:
            for batch, keypoints in found:
                values.frombytes(keypoints.value.numpy().tobytes())
                jacobians.frombytes(keypoints.jacobian.numpy().tobytes())
                for frame, picture in batch:
                    times.append(frame.time)
                    end = frame.time + frame.duration
                    if wanted is not None and frame.index % self._step == 0 and (pose := self._pose(picture)) is not None:
                        candidate = (pose_distance(wanted, pose), frame.index)
                        nearest = candidate if nearest is None else min(nearest, candidate)
        if not times:
            raise InputError(f"{self._reader.path}: no frame could be read: give another file")
        value = np.array(values, dtype=np.float32).reshape(len(times), -1, 2)
        jacobian = np.array(jacobians, dtype=np.float32).reshape(len(times), -1, 2, 2)
        if not (np.isfinite(value).all() and np.isfinite(jacobian).all()):
            raise InputError(f"model {self._engine.name!r} finds no finite keypoints in {self._reader.path}: try --precision float32")
        reference = 0
        if source is not None:
            reference = nearest_keypoints(self._engine, source, value) if nearest is None else nearest[1]
        return Motion(
            value=value,
            jacobian=jacobian,
            times=(*times, end),
            rate=self._reader.rate,
            time_base=self._reader.time_base,
            reference=reference,
            model=self._engine.name,
            detector=self._engine.detector_digest,
            image_size=self._engine.size,
        )

    def _keypoints(self, batch: list[tuple[Frame, np.ndarray]]) -> tuple[list[tuple[Frame, np.ndarray]], Keypoints]:
        return batch, self._engine.keypoints([picture for _, picture in batch])

    def _pose(self, picture: np.ndarray) -> HeadPose | None:
        """The pose of the face that was seen last, where it still is: following costs a third of detecting."""
        if self._landmarker is None:
            return None
        if self._face is None:
            self._face = next(iter(self._landmarker.detect(picture, thorough=False)), None)
        else:
            self._face = self._landmarker.track(picture, self._face)
        return None if self._face is None else head_pose(self._face)


def nearest_keypoints(engine: Runner, source: np.ndarray, value: np.ndarray) -> int:
    """The frame whose keypoints (N x K x 2) lie most like those of the source picture."""
    return nearest_layout(engine.keypoints([source]).value[0].numpy(), value)


def frame_spans(motion: Motion) -> Iterator[tuple[Fraction, Fraction]]:
    """(time, duration) of each frame, exact."""
    for start, end in pairwise(motion.times):
        yield start, end - start
