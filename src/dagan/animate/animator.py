"""The Python interface for animation. It is given a source and driving frames, and gives frames of the source in their poses.

    animator = Animator(dagan.load())
    animator.set_source(portrait)
    result = animator.animate(frame)            # uint8 H x W x 3 in, uint8 T x T x 3 out
    result = animator.pose(yaw=20, smile=0.5)   # set by hand
    for result in animator.video("driving.mp4"): ...

Legend: S side of the model's pictures, T side of the results (S unless another is asked for), N frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from dagan.animate.driving import FaceWatch, check_on_missing
from dagan.animate.finish import Finish, Finisher, find_matte
from dagan.animate.posing import PosedSource
from dagan.engine.base import EncodedSource, Engine, finite_source
from dagan.engine.open import open_engine
from dagan.errors import InputError
from dagan.media.framing import FaceFinder, Framing, to_square
from dagan.media.framing import crop as cut
from dagan.media.landmarks import Face
from dagan.media.video import open_video
from dagan.media.view import read_ahead, view_still, view_video
from dagan.models.dagan import DaGAN
from dagan.models.keypoints import Keypoints
from dagan.motion.file import nearest_layout
from dagan.motion.head import Parts, changes, check_parts, parts_of
from dagan.motion.pose import Pose
from dagan.motion.transfer import Steadier, limit, transfer
from dagan.progress import silent, to_stderr
from dagan.stream import batched, on_workers


@dataclass(frozen=True, eq=False)
class _Seen:
    """What is seen of a driving frame: its view, S x S x 3, and the face in it, where one was looked for and found."""

    picture: np.ndarray
    face: Face | None


class Animator:
    """Drives one source picture with the motion of other pictures (docs/method.md#motion-transfer).

    Pictures are uint8 H x W x 3 RGB of any size. The largest square in their middle is resized to the model's size.

    Args:
        model: This is a model, or an engine around one.
        relative: The source moves as the driving face moves away from a reference frame, which keeps the source's own proportions. The
            reference is the first animated frame unless `set_reference` names another. Otherwise the driving keypoints are taken as
            they are.
        adapt_scale: With `relative`, the size of movements is fitted to the size of the source's face.
        batch_size: So many frames are computed at once. None chooses for the device.
        face_finder: It finds faces. None opens one when it is needed.
        on_missing: This says what a driving frame without a face gives: hold (the latest frame with a face drives on), rest (the source's
            own pose) or error (InputError). Before the first face the source rests. Frames are judged only where the source picture
            itself shows a face.
        limit_motion: Motion is damped that goes farther from the source than a model can draw (see `motion.transfer.limit`).
        keypoints: This says what drives: landmarks (found in every frame, in place of the keypoints that stand on them), learnt (the
            model's own keypoints alone), or auto, which is landmarks where the model's keypoints stand on some. Where the source shows
            no face, landmarks are left out.
        move: This says what moves: all, expression (the head stays as in the source), pose (the face stays), mouth or eyes (all else
            stays). Mouth and eyes need a model whose keypoints stand on landmarks.
        strength: So much of what moves reaches the source, from 0 to 2; 1 is as driven.
        finish: This says how results become pictures: in which size, with what held still, or cut out. None leaves them as they are drawn.
        smooth: Noise of keypoints is taken out as frames come in, from 0 (they are taken as they are) to 1 (steadiest). Frames are
            taken to come 25 times a second. `drive` does not smooth.

    Raises InputError for choices that there are not, and for a `move` that the model cannot tell apart.
    """

    def __init__(
        self,
        model: DaGAN | Engine,
        relative: bool = True,
        adapt_scale: bool = True,
        batch_size: int | None = None,
        face_finder: FaceFinder | None = None,
        on_missing: str = "hold",
        limit_motion: bool = True,
        keypoints: str = "auto",
        move: str = "all",
        strength: float = 1.0,
        finish: Finish | None = None,
        smooth: float = 0.0,
    ) -> None:
        self.engine: Engine = open_engine(model, batch_size=batch_size) if isinstance(model, DaGAN) else model
        self.relative = relative
        self.adapt_scale = adapt_scale
        self.limit_motion = limit_motion
        self.move, self.strength = move, strength
        self._steadier = Steadier(smooth)
        self._smooth = smooth
        self._apart = changes(move, strength)
        check_parts(move, self.engine.face, self.engine.name)
        self._finish = finish or Finish()
        self._finisher: Finisher | None = None
        self._source: EncodedSource | None = None
        self._posed: PosedSource | None = None
        self._parts: Parts | None = None
        self._reference: Keypoints | None = None
        self._finder = face_finder
        self._on_missing = check_on_missing(on_missing)
        self._wants_landmarks = self.engine.face.explicit(keypoints, self.engine.name)
        self._by_landmarks = self._wants_landmarks  # A source without a face leaves them out.
        self._face: np.ndarray = np.zeros(0)  # What was encoded.
        self._portrait: np.ndarray | None = None  # The source's view is kept until it is known whether it shows a face.
        self._watch: FaceWatch | None = None
        self._shown: _Seen | None = None

    def set_source(self, image: np.ndarray, crop: bool = False, framing: Framing | None = None) -> None:
        """Encodes the source once and forgets the reference frame, so that movements count from a new one.

        `crop` cuts out the face as in training, and `framing` a square that is known already. Raises InputError when no face is found
        where one is needed.
        """
        _check_picture(image)
        framing = framing or view_still(image, self._face_finder() if crop else None, "the source picture", to_stderr)
        face = cut(image, framing, self.engine.size)
        shown = self._face_in(face) if self._wants_landmarks else None
        self._by_landmarks = shown is not None
        self._source = finite_source(self.engine, face, self.engine.face.places(shown, self.engine.size) if self._by_landmarks else None)
        self._finisher = None if self._finish.is_plain else self._finisher_for(image, framing, face, shown)
        self._reference, self._face, self._posed, self._parts = None, face, None, None
        self._steadier = Steadier(self._smooth)
        self._watch = FaceWatch(self._face_finder().landmarker) if self._by_landmarks else None
        self._portrait, self._shown = None if self._wants_landmarks else face, None

    def set_reference(self, frame: np.ndarray | Keypoints) -> None:
        """Takes a driving frame, or its keypoints, as the one that stands for the source's pose and expression."""
        if isinstance(frame, Keypoints):
            self._reference = frame
        else:
            picture = self._picture(frame)
            self._reference = self._keypoints([_Seen(picture, self._face_in(picture) if self._by_landmarks else None)])

    def reset(self) -> None:
        """Forgets the reference frame. The next animated frame that shows a face becomes it, and the source stays."""
        self._reference = None
        self._shown = None
        self._steadier = Steadier(self._smooth)

    def animate(self, frame: np.ndarray) -> np.ndarray:
        """Draws the source in the pose of one driving frame: T x T x 3 uint8, or x 4 cut out. Raises InputError before `set_source`."""
        return self.animate_batch([frame])[0]

    def animate_batch(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        """Draws N x T x T x 3 uint8 for N driving frames. Raises InputError before `set_source` and for no frames."""
        if not len(frames):
            raise InputError("there are no driving frames: give at least one")
        return self._animated(self._judged([self._picture(frame) for frame in frames]))

    def pose(
        self, *, yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0, zoom: float = 1.0, shift: tuple[float, float] = (0.0, 0.0),
        mouth: float = 0.0, smile: float = 0.0, lids: float = 0.0, gaze: tuple[float, float] = (0.0, 0.0),
    ) -> np.ndarray:  # fmt: skip
        """Draws the source in a pose that is set by hand, S x S x 3 uint8 (docs/method.md#poses-by-hand).

        Everything is a change of the photo's own pose and expression; the defaults change nothing.

        Args:
            yaw: The head turns by so many degrees to the right side of the picture.
            pitch: It looks up by so many degrees.
            roll: It leans by so many degrees clockwise.
            zoom: It becomes so many times as large, from 0.5 to 2.
            shift: It moves to the right and upwards by these shares of the picture's side, each from -0.5 to 0.5.
            mouth: -1 closes the mouth, 1 opens it wide.
            smile: 1 is a broad smile, -1 the opposite.
            lids: -1 closes the eyes, 1 opens them wider.
            gaze: The eyes look to the right and up by these shares of how far eyes go, each from -1 to 1.

        Turns beyond what the model can draw are held back; a line on the error stream says so. Neither `move` nor `strength` play a part.
        Raises InputError before `set_source`, for values out of range, and for mouth, smile, lids and gaze with models whose keypoints
        stand on no landmarks.
        """
        pose = Pose(
            yaw=yaw, pitch=pitch, roll=roll, zoom=zoom, shift_x=shift[0], shift_y=shift[1], mouth=mouth, smile=smile, lids=lids,
            gaze_x=gaze[0], gaze_y=gaze[1],
        )  # fmt: skip
        for sentence in self.posed.damped(pose):
            to_stderr(sentence)
        return self.pose_batch([pose])[0]

    def pose_batch(self, poses: Sequence[Pose]) -> np.ndarray:
        """Draws N x S x S x 3 uint8 for N poses, as `pose` does. Raises InputError as it does."""
        return self._drawn(self.posed.transferred(self.posed.keypoints(poses)))

    @property
    def by_landmarks(self) -> bool:
        """Whether the landmarks of the source take the place of the keypoints that stand on them."""
        return self._by_landmarks

    @property
    def posed(self) -> PosedSource:
        """The source as one that is posed by hand. Raises InputError before `set_source`."""
        source = self._encoded()
        if self._posed is None:
            finder = self._face_finder()
            face = self._face_in(self._face)
            self._posed = PosedSource(self.engine, source, self._face, face, finder.landmarker)
        return self._posed

    def share_left(self, keypoints: Keypoints) -> np.ndarray:
        """Returns, for each of N sets of driving keypoints, the share that the limit leaves of the part that it damps most.

        The share is in (0, 1]; it is 1 for sets that are not changed.
        """
        judged = self.engine.face.rigid(keypoints.value.shape[1])
        return limit(self._encoded().keypoints, self._moved(keypoints, limit_motion=False), judged)[1].numpy()

    def nearest(self, value: np.ndarray) -> int:
        """Returns which of N sets of driving keypoints, N x K x 2, lies most like the source's. Raises InputError before `set_source`."""
        return nearest_layout(self._encoded().keypoints.value[0].numpy(), value)

    def keypoints_of(self, picture: np.ndarray, face: Face | None) -> Keypoints:
        """Finds the keypoints with which a view drives, S x S x 3 uint8. `face` is the face in it, where somebody has found it already."""
        return self._keypoints([_Seen(picture, face)])

    def drive(self, keypoints: Keypoints) -> np.ndarray:
        """Draws N x T x T x 3 uint8 for N sets of driving keypoints, as `engine.keypoints` or a motion file gives them."""
        return self._drawn(self._moved(keypoints, self.limit_motion))

    def _drawn(self, keypoints: Keypoints) -> np.ndarray:
        if self._finisher is None:
            return self.engine.render(self._encoded(), keypoints)
        return self._finisher(self.engine.draw(self._encoded(), keypoints))

    def _moved(self, keypoints: Keypoints, limit_motion: bool) -> Keypoints:
        source = self._encoded().keypoints
        if self._reference is None:
            self._reference = keypoints[:1]
        if self._apart and self._parts is None:
            self._parts = parts_of(self.move, self.strength, self.engine.face, self.posed.relief)
        return transfer(
            source, keypoints, self._reference, self.relative, self.adapt_scale, limit_motion, self.engine.face, self._parts
        )  # fmt: skip

    def _encoded(self) -> EncodedSource:
        if self._source is None:
            raise InputError("there is no source picture yet: call set_source first")
        return self._source

    def video(self, path: Path | str, crop: bool = False, rate: Fraction | int = 25) -> Iterator[np.ndarray]:
        """Yields the result of every frame of a video (or of a folder of images, `rate` a second), one after the other.

        Frames are read and computed a batch at a time, so that memory does not grow with length. With `crop` the video is first searched
        for the face, which is then framed steadily. Raises InputError when `path` cannot be read, or shows no face to crop.
        """
        with open_video(path, rate) as reader:
            view, _ = view_video(reader, self._face_finder() if crop else None, to_stderr, silent, "")
            batches = batched((picture for _, picture in read_ahead(reader, view, self.engine.size)), self.engine.batch_size)
            workers = 1 if self._smooth else self.engine.workers  # Smoothing needs the frames in their order.
            # Both steps of a batch are done in one thread, because pools for each would compete for the same cores and caches.
            with closing(on_workers(workers, self._animated, self._referred(batches))) as drawn:
                for results in drawn:
                    yield from results

    def _animated(self, pictures: list[_Seen | None]) -> np.ndarray:
        """Returns the results for pictures that drive. Where there is None, it is the source at rest."""
        if self._source is None:
            raise InputError("there is no source picture yet: call set_source first")
        driving = [picture for picture in pictures if picture is not None]
        moved = iter(self.drive(self._steadier(self._keypoints(driving)))) if driving else iter(())
        if len(driving) == len(pictures):
            return np.stack(list(moved))
        rest = self._drawn(self._source.keypoints)[0]
        return np.stack([rest if picture is None else next(moved) for picture in pictures])

    def _referred(self, batches: Iterator[list[np.ndarray]]) -> Iterator[list[_Seen | None]]:
        """Yields what drives of each batch. Where there is no reference, the first frame becomes it, whichever batch is drawn first."""
        for batch in batches:
            judged = self._judged(batch)
            driving = [picture for picture in judged if picture is not None]
            if self._reference is None and driving:
                self._reference = self._keypoints(driving[:1])
            yield judged

    def _keypoints(self, seen: list[_Seen]) -> Keypoints:
        found = self.engine.keypoints([one.picture for one in seen])
        if not self._by_landmarks:
            return found
        return self.engine.face.put(found, [self.engine.face.places(one.face, self.engine.size) for one in seen])

    def _judged(self, pictures: list[np.ndarray]) -> list[_Seen | None]:
        """Returns what drives in place of each picture: itself where it shows a face, else what `on_missing` says; None is the source."""
        if self._portrait is not None:  # This is done only when frames are judged, because keypoints alone drive without it.
            self._watch = FaceWatch(self._face_finder().landmarker) if self._face_in(self._portrait) is not None else None
            self._portrait = None
        if self._watch is None:
            return [_Seen(picture, None) for picture in pictures]
        return [self._stand_in(self._watch, picture) for picture in pictures]

    def _stand_in(self, watch: FaceWatch, picture: np.ndarray) -> _Seen | None:
        face = watch.see(picture)
        if face is not None:
            self._shown = _Seen(picture, face)
            return self._shown
        if self._on_missing == "error":
            raise InputError("a driving frame shows no face: leave it out, or set on_missing to hold or rest")
        return self._shown if self._on_missing == "hold" else None

    def _finisher_for(self, image: np.ndarray, framing: Framing, face: np.ndarray, shown: Face | None) -> Finisher:
        """Returns what finishes drawings of a source, `image`, whose square `face` shows the face `shown`, if one was looked for."""
        matte = None
        if self._finish.needs_matte:
            disparity = self.engine.disparity([face])[0] if self.engine.has_depth else None
            matte = find_matte(face, disparity, shown or self._face_in(face))
        picture = cut(image, framing, self._finish.side(framing, self.engine.size))
        whole = (image.shape[1], image.shape[0])
        return Finisher(self.engine, self._encoded(), picture, self._finish, framing, whole, matte)

    def _face_in(self, picture: np.ndarray) -> Face | None:
        return next(iter(self._face_finder().landmarker.detect(picture, thorough=False)), None)

    def _face_finder(self) -> FaceFinder:
        if self._finder is None:
            self._finder = FaceFinder()
        return self._finder

    def _picture(self, image: np.ndarray) -> np.ndarray:
        _check_picture(image)
        return to_square(image, self.engine.size)


def _check_picture(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputError(f"a picture is {image.dtype} {image.shape}: must be uint8 H x W x 3")
