"""A video as source: its own motion goes on, and expression or mouth comes from what drives (docs/method.md#a-video-as-source).

Every frame of the source video is encoded, because each shows its own pose, light and background, and is drawn with its own keypoints, of
which those of the face are exchanged. The result lasts as long as the driving motion; a shorter source video begins again.

Legend: S side of the model's pictures.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from fractions import Fraction

import numpy as np

from dagan.animate.driving import MotionReader
from dagan.animate.layout import Layout
from dagan.animate.relief import measure_relief
from dagan.engine.base import Engine, finite_source
from dagan.errors import InputError
from dagan.media.faces import FaceFinder
from dagan.media.landmarks import FaceLandmarker
from dagan.media.video import VideoReader
from dagan.media.view import read_ahead, view_video
from dagan.motion.file import DrivingMotion
from dagan.motion.openings import FaceKeypoints
from dagan.motion.parts import check_move, parts_of
from dagan.motion.transfer import transfer
from dagan.progress import Progress, Warn, counted

LOOK, READ = "finding the source's face", "reading the source's motion"


def part_of_video(move: str) -> str:
    """Returns what of the driving motion reaches a source that is a video: all stands for expression, because its head moves already.

    Raises InputError for pose, and for a choice that there is not.
    """
    if check_move(move) == "pose":
        raise InputError("--move pose: the head of a source that is a video moves as it does there: use expression, mouth or eyes")
    return "expression" if move == "all" else move


class SourceVideo:
    """A source video, whose motion is read when this is made. Raises InputError where no face is found.

    Args:
        crop: Whether the face is found and framed; otherwise the middle of the video is taken.
        keypoints: See `Animator`.
        move: See `part_of_video`.
        strength: See `Animator`.
    """

    def __init__(
        self, engine: Engine, reader: VideoReader, landmarker: FaceLandmarker, crop: bool, keypoints: str, move: str, strength: float,
        progress: Progress, warn: Warn,
    ) -> None:  # fmt: skip
        self._engine, self._reader = engine, reader
        self._view, _ = view_video(reader, FaceFinder(landmarker) if crop else None, warn, progress, LOOK)
        collected = MotionReader(engine, reader, landmarker, crop, engine.face.explicit(keypoints, engine.name))
        with closing(counted(read_ahead(reader, self._view, engine.size), progress, READ, reader.frame_count)) as frames:
            own = collected.read(frames, self._picture(0), reference=0)
        self._own = own.with_reference(_calmest(own, engine.face))
        self.rest = self._picture(self._own.reference)
        """The view, S x S x 3, of the frame in which the face is most at rest."""
        face = next(iter(landmarker.detect(self.rest)), None)
        self._home = self._own.keypoints(slice(self._own.reference, self._own.reference + 1))
        self._parts = parts_of(part_of_video(move), strength, engine.face, measure_relief(engine, self.rest, face, self._home))

    def frames(self, driving: DrivingMotion, adapt_scale: bool, layout: Layout, chosen: Sequence[int]) -> Generator[np.ndarray]:
        """Yields the output's frames for the frames of the driving motion that have the chosen numbers."""
        engine, own = self._engine, self._own
        reference = driving.keypoints(slice(driving.reference, driving.reference + 1))
        count = len(engine.face.landmarks) if own.explicit else 0
        with closing(self._again_and_again()) as shown:
            index, picture = next(shown)
            for i in chosen:
                wanted = self._at(driving.times[i])
                while index != wanted:
                    index, picture = next(shown)
                now = own.keypoints(slice(wanted, wanted + 1))
                driven = transfer(self._home, driving.keypoints(slice(i, i + 1)), reference, True, adapt_scale, False, engine.face)
                encoded = finite_source(engine, picture, now.value[0, :count].numpy() if count else None)
                yield from layout.compose(engine.render(encoded, self._parts.exchanged(self._home, now, driven)), ())

    def _at(self, time: Fraction) -> int:
        """Returns which frame is shown at a time of the result. After its end the video begins again."""
        length = self._own.times[-1]
        return min(len(self._own) - 1, bisect_right(self._own.times, time - length * (time // length)) - 1)

    def _again_and_again(self) -> Generator[tuple[int, np.ndarray]]:
        while True:
            yield from self._pictures()

    def _pictures(self) -> Iterator[tuple[int, np.ndarray]]:
        with closing(read_ahead(self._reader, self._view, self._engine.size)) as frames:
            for index, (_, picture) in enumerate(frames):
                yield index, picture

    def _picture(self, wanted: int) -> np.ndarray:
        for index, picture in self._pictures():
            if index == wanted:
                return picture
        raise InputError(f"{self._reader.path}: no frame could be read: give another file")


def _calmest(motion: DrivingMotion, face: FaceKeypoints) -> int:
    """Returns the frame whose mouth is most closed while its eyes are open, or 0 for a model without keypoints on lips and lids."""
    index = {point: i for i, point in enumerate(face.landmarks)}
    if not {13, 14, 159, 145} <= set(index):
        return 0

    def gap(a: int, b: int) -> np.ndarray:
        return np.linalg.norm(motion.value[:, index[a]] - motion.value[:, index[b]], axis=1)

    mouth, eyes = gap(13, 14), gap(159, 145)
    return int((mouth + np.maximum(np.median(eyes) - eyes, 0)).argmin())
