"""A video as source: its own motion goes on, and expression or mouth comes from what drives (docs/method.md#a-video-as-source).

Every frame of the source video is encoded, because each shows its own pose, light and background, and is drawn with its own keypoints, of
which those of the face are exchanged. The result lasts as long as the driving motion; a shorter source video begins again. Results can
have the video's own detail and be pasted back into its whole pictures, each of which is finished as a photo is.

Legend: S side of the model's pictures, T side of the results.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from dagan.animate.driving import MotionReader
from dagan.animate.finish import Finish, Finisher
from dagan.animate.layout import Layout, PasteBack, Plain
from dagan.animate.posing import measure_relief
from dagan.engine.base import EncodedSource, Engine, finite_source
from dagan.errors import InputError
from dagan.media.container import Frame
from dagan.media.framing import FaceFinder, Framing, crop, middle
from dagan.media.images import shrunk
from dagan.media.landmarks import FaceLandmarker
from dagan.media.video import VideoReader
from dagan.media.view import read_ahead, shows_face, square_of, view_video
from dagan.models.keypoints import Keypoints
from dagan.motion.file import DrivingMotion
from dagan.motion.head import check_move, parts_of
from dagan.motion.openings import FaceKeypoints
from dagan.motion.transfer import transfer
from dagan.progress import Progress, Warn, counted
from dagan.stream import ahead

LOOK, READ = "finding the source's face", "reading the source's motion"


def part_of_video(move: str) -> str:
    """Returns what of the driving motion reaches a source that is a video: all stands for expression, because its head moves already.

    Raises InputError for pose, and for a choice that there is not.
    """
    if check_move(move) == "pose":
        raise InputError("--move pose: the head of a source that is a video moves as it does there: use expression, mouth or eyes")
    return "expression" if move == "all" else move


@dataclass(frozen=True, eq=False)
class _Shown:
    """A frame of the source video."""

    index: int
    """Its number."""
    picture: np.ndarray
    """Its view, S x S x 3 uint8."""
    whole: np.ndarray
    """The whole picture, no larger than it is to be in the result, where that is needed; otherwise the view again."""
    framing: Framing
    """Where in the whole picture the view lies."""
    face: bool
    """Whether there is a face in its shot."""


class SourceVideo:
    """A source video, whose motion is read when this is made.

    Raises InputError where no face is found, and for a size of `finish` that cannot be.

    Args:
        crop: Whether the face is found and framed; otherwise the middle of the video is taken.
        keypoints: See `Animator`.
        move: See `part_of_video`.
        strength: See `Animator`.
        finish: This says how drawings become pictures. With held borders they are pasted back into the video's whole pictures.
    """

    def __init__(
        self, engine: Engine, reader: VideoReader, landmarker: FaceLandmarker, crop: bool, keypoints: str, move: str, strength: float,
        finish: Finish, progress: Progress, warn: Warn,
    ) -> None:  # fmt: skip
        self._engine, self._reader, self._finish = engine, reader, finish
        finish.side(middle(reader.width, reader.height), engine.size)  # This refuses a size before the video is searched.
        self._view, _ = view_video(reader, FaceFinder(landmarker) if crop else None, warn, progress, LOOK)
        collected = MotionReader(engine, reader, landmarker, crop, engine.face.explicit(keypoints, engine.name))
        with closing(counted(read_ahead(reader, self._view, engine.size), progress, READ, reader.frame_count)) as frames:
            own = collected.read(frames, self._frame(0).picture, reference=0)
        self._own = own.with_reference(_calmest(own, engine.face))
        resting = self._frame(self._own.reference)
        self.rest = resting.picture
        """The view, S x S x 3, of the frame in which the face is most at rest."""
        self._side = finish.side(resting.framing, engine.size)
        self._pasted = PasteBack(resting.whole, resting.framing) if finish.hold_border else None
        if self._pasted is not None and max(reader.width, reader.height) > finish.longest:
            warn(
                f"{reader.path} has pictures of {reader.width} x {reader.height} pixels: "
                f"the video is made at {self._pasted.width} x {self._pasted.height} (--max-side {finish.longest})"
            )
        face = next(iter(landmarker.detect(self.rest)), None)
        self._home = self._own.keypoints(slice(self._own.reference, self._own.reference + 1))
        self._parts = parts_of(part_of_video(move), strength, engine.face, measure_relief(engine, self.rest, face, self._home))

    @property
    def layout(self) -> PasteBack | Plain:
        """How results become frames of the output. What is pasted back follows the video's pictures."""
        return Plain(self._side) if self._pasted is None else self._pasted

    def frames(self, driving: DrivingMotion, adapt_scale: bool, layout: Layout, chosen: Sequence[int]) -> Generator[np.ndarray]:
        """Yields the output's frames for the frames of the driving motion that have the chosen numbers.

        `layout` is that of this source, or one that has something added.
        """
        engine, own = self._engine, self._own
        reference = driving.keypoints(slice(driving.reference, driving.reference + 1))
        count = len(engine.face.landmarks) if own.explicit else 0
        with closing(self._again_and_again()) as shown:
            frame = next(shown)
            for i in chosen:
                wanted = self._at(driving.times[i])
                while frame.index != wanted:
                    frame = next(shown)
                now = own.keypoints(slice(wanted, wanted + 1))
                driven = transfer(self._home, driving.keypoints(slice(i, i + 1)), reference, True, adapt_scale, False, engine.face)
                encoded = finite_source(engine, frame.picture, now.value[0, :count].numpy() if count else None)
                yield from layout.compose(self._drawn(frame, encoded, self._parts.exchanged(self._home, now, driven)), ())

    def _drawn(self, frame: _Shown, encoded: EncodedSource, keypoints: Keypoints) -> np.ndarray:
        """Draws one frame, 1 x T x T x 3 uint8, and lets the layout know where it belongs."""
        if self._finish.is_plain:
            return self._engine.render(encoded, keypoints)
        side = self._side
        if self._pasted is not None:
            side = self._finish.side(frame.framing, self._engine.size)
            self._pasted.follow(frame.whole, frame.framing if frame.face else None)
        square = crop(frame.whole, frame.framing, side)
        height, width = frame.whole.shape[:2]
        finish = replace(self._finish, size=side)
        return Finisher(self._engine, encoded, square, finish, frame.framing, (width, height))(self._engine.draw(encoded, keypoints))

    def _at(self, time: Fraction) -> int:
        """Returns which frame is shown at a time of the result. After its end the video begins again."""
        length = self._own.times[-1]
        return min(len(self._own) - 1, bisect_right(self._own.times, time - length * (time // length)) - 1)

    def _again_and_again(self) -> Generator[_Shown]:
        while True:
            yield from self._pictures()

    def _pictures(self) -> Iterator[_Shown]:
        size = self._engine.size
        if self._finish.is_plain:
            with closing(read_ahead(self._reader, self._view, size)) as frames:
                for index, (frame, picture) in enumerate(frames):
                    yield _Shown(index, picture, picture, square_of(frame, self._view), True)
            return
        with closing(ahead(self._whole(frame) for frame in self._reader)) as wholes:
            for index, shown in enumerate(wholes):
                yield replace(shown, index=index)

    def _whole(self, frame: Frame) -> _Shown:
        """Returns a frame with its whole picture, which is made smaller where it will be pasted into."""
        framing = square_of(frame, self._view)
        picture = crop(frame.image, framing, self._engine.size)
        whole = shrunk(frame.image, self._finish.longest if self._finish.hold_border else None)
        scale = len(whole) / len(frame.image)
        framing = Framing(framing.center_x * scale, framing.center_y * scale, framing.side * scale, framing.angle)
        return _Shown(0, picture, whole, framing, shows_face(self._view, frame.time))

    def _frame(self, wanted: int) -> _Shown:
        for shown in self._pictures():
            if shown.index == wanted:
                return shown
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
