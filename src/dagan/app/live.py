"""The live camera: the face in each picture drives a portrait at once, without knowing what comes next.

`Driver` does this for one picture after the other. `Newest` feeds it: pictures that come while it is busy take each other's place, so
that what is drawn is never old. Finding the face follows the picture before, so that is done in order; drawing is done by as many
threads as the engine can use, and handed over in order.

Legend: S side of the model's pictures.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, TypeVar

import numpy as np
import torch

from dagan.animate.animator import Animator
from dagan.engine.base import Engine
from dagan.media.framing import FaceFinder, Framing, bounds_of, crop, fit_box
from dagan.media.landmarks import OUTLINE, Face
from dagan.models.keypoints import Keypoints

_LOOSE = 0.10  # The square stays where it is as long as the face is off its middle by less than this share of its side.
_SIZE_LOOSE = 0.25  # It keeps its side as long as the side that fits differs by less than this share.
_FOLLOW = 0.35  # Seconds. Beyond that the square follows, and after so long about two thirds of the way are done.
_LOST = 0.5  # Seconds without a face after which the square is placed anew.
_WHOLE = 0.8  # A face must have this share of its landmarks inside the picture. One that is cut off more does not drive.


class SteadySquare:
    """Where to look in the camera's picture: a square that stands still, and follows when the face leaves its middle or changes size.

    It knows only pictures that have been. `media.view` knows a whole video, and does better there.
    """

    def __init__(self) -> None:
        self._square: Framing | None = None
        self._time = -math.inf

    def place(self, face: Face, width: int, height: int, now: float) -> Framing:
        """Returns the square for a face in a picture of that size, at `now` seconds."""
        box = bounds_of(face.landmarks[list(OUTLINE), :2])
        fitting = fit_box(box, box[3] - box[1], width, height)
        passed = now - self._time
        self._time = now
        if self._square is None or passed > _LOST:
            self._square = fitting
            return fitting
        square, share = self._square, 1 - math.exp(-passed / _FOLLOW)
        side = square.side * (1 + share * _beyond(fitting.side / square.side - 1, _SIZE_LOOSE))
        x, y = (
            at + share * square.side * _beyond((wanted - at) / square.side, _LOOSE)
            for at, wanted in ((square.center_x, fitting.center_x), (square.center_y, fitting.center_y))
        )
        self._square = Framing(x, y, side)
        return self._square

    def forget(self) -> None:
        """Places the square anew with the next face."""
        self._square = None


def _beyond(value: float, loose: float) -> float:
    """Returns by how much a value goes beyond what is left loose, with its sign."""
    return math.copysign(max(0.0, abs(value) - loose), value)


@dataclass(frozen=True, eq=False)
class Look:
    """What was found in one picture of the camera."""

    view: np.ndarray | None
    """The square round the face, S x S x 3 uint8; None where there is no face."""
    face: Face | None
    """The face, with its landmarks in the view."""
    animator: Animator
    """What draws, with the portrait that was chosen when the picture came."""
    recentre: bool
    """Whether this face is to stand for the portrait's own pose."""


class Driver:
    """Drives a portrait with pictures of a camera. `see` is called in order by one thread, `draw` by any.

    Args:
        animate: This makes the `Animator` that draws a portrait; it is given the portrait, H x W x 3 uint8.
    """

    def __init__(self, engine: Engine, portrait: np.ndarray, animate: Callable[[np.ndarray], Animator]) -> None:
        self._engine, self._animate = engine, animate
        self._finder = FaceFinder()
        self._square = SteadySquare()
        self._face: Face | None = None
        self._recentre = True
        self._reference: Keypoints | None = None
        self._referred = threading.Event()
        self._animator = animate(portrait)

    def choose(self, portrait: np.ndarray) -> None:
        """Draws another portrait from the next picture on. Raises InputError where it shows no face."""
        self.use(self._animate(portrait))

    def use(self, animator: Animator) -> None:
        """Draws with another animator from the next picture on. The pose that stands for the portrait's stays."""
        self._animator, self._recentre = animator, True

    def recentre(self) -> None:
        """Lets the next face stand for the portrait's own pose and expression."""
        self._recentre = True

    def see(self, picture: np.ndarray, now: float | None = None) -> Look:
        """Finds the face in a picture, H x W x 3 uint8, that was taken at `now` seconds."""
        landmarker = self._finder.landmarker
        if self._face is not None:
            face = landmarker.track(picture, self._face)
        else:
            face = next(iter(landmarker.detect(picture, thorough=False)), None)
        height, width = picture.shape[:2]
        if face is not None:
            inside = ((face.landmarks[:, :2] >= 0) & (face.landmarks[:, :2] <= (width, height))).all(axis=1)
            face = face if inside.mean() >= _WHOLE else None
        self._face = face
        animator = self._animator
        if face is None:
            return Look(None, None, animator, False)
        square = self._square.place(face, width, height, time.monotonic() if now is None else now)
        recentre, self._recentre = self._recentre, False
        view = crop(picture, square, self._engine.size)
        return Look(view, _moved(face, square, self._engine.size), animator, recentre)

    def draw(self, look: Look) -> np.ndarray | None:
        """Draws the portrait as the face that was seen, S x S x 3 uint8, or returns None where none was seen."""
        if look.view is None:
            return None
        keypoints = look.animator.keypoints_of(look.view, look.face)
        if look.recentre:
            look.animator.set_reference(keypoints)
        return look.animator.drive(keypoints)[0]


def _moved(face: Face, square: Framing, size: int) -> Face:
    """Returns the face as it lies in the view of an upright square."""
    left, top, _, _ = square.bounds
    scale = size / square.side
    landmarks = (face.landmarks - np.array([left, top, 0], np.float32)) * np.float32(scale)
    x0, y0, x1, y1 = face.box
    box = ((x0 - left) * scale, (y0 - top) * scale, (x1 - left) * scale, (y1 - top) * scale)
    return replace(face, box=box, landmarks=landmarks.astype(np.float32))


A = TypeVar("A")


@dataclass(frozen=True, eq=False)
class Answer(Generic[A]):
    """What became of one picture of the camera."""

    tag: A
    """What was handed in with the picture."""
    picture: np.ndarray | None
    """The portrait as the face was, S x S x 3 uint8; None where there was no face."""
    error: Exception | None
    """What went wrong, where something did."""
    seconds: float
    """How long it took from handing in to handing over."""
    dropped: int
    """How many pictures before were left out, since the beginning."""
    rate: float
    """How many pictures a second were answered lately."""


class Newest(Generic[A]):
    """Feeds a driver with the newest picture, and hands over each answer, in order, from threads of its own.

    Args:
        workers: So many threads draw. One picture more may be looked at meanwhile.
        decode: This makes a picture of what is handed in.
        deliver: This is called with each answer.
    """

    def __init__(
        self, driver: Driver, workers: int, decode: Callable[[bytes], np.ndarray] | None, deliver: Callable[[Answer[A]], None]
    ) -> None:  # fmt: skip
        self.driver, self.dropped = driver, 0
        self._decode, self._deliver, self._workers = decode, deliver, max(1, workers)
        self._condition = threading.Condition()
        self._slot: tuple[bytes | np.ndarray, A, float] | None = None
        self._open = True
        self._busy = 0
        self._times: deque[float] = deque(maxlen=20)
        self._drawn: deque[tuple[Future[np.ndarray | None], A, float]] = deque()
        setup = partial(torch.set_num_threads, 1) if self._workers > 1 else None
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="dagan-live", initializer=setup)
        self._threads = [threading.Thread(target=loop, name="dagan-live", daemon=True) for loop in (self._look, self._hand_over)]
        for thread in self._threads:
            thread.start()

    def offer(self, picture: bytes | np.ndarray, tag: A) -> None:
        """Hands in a picture. One that still waits gives way to it."""
        with self._condition:
            if self._slot is not None:
                self.dropped += 1
            self._slot = (picture, tag, time.monotonic())
            self._condition.notify_all()

    def close(self) -> None:
        """Ends the threads. What has not been drawn by then is left out."""
        with self._condition:
            self._open = False
            self._condition.notify_all()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def drain(self) -> None:
        """Waits until everything that was handed in has been answered."""
        with self._condition:
            self._condition.wait_for(lambda: (self._slot is None and not self._busy) or not self._open)

    def _look(self) -> None:
        while True:
            with self._condition:  # One picture is looked at while others are drawn, so that a thread that draws never waits for a look.
                self._condition.wait_for(lambda: not self._open or (self._slot is not None and self._busy <= self._workers))
                if not self._open:
                    return
                assert self._slot is not None
                (given, tag, came), self._slot = self._slot, None
                self._busy += 1
            work: Future[np.ndarray | None] = Future()
            try:
                picture = given if isinstance(given, np.ndarray) else self._decode(given) if self._decode is not None else None
                assert picture is not None
                look = self.driver.see(picture)
                if look.recentre:  # What is drawn next counts from this picture, so it is drawn before others.
                    work.set_result(self.driver.draw(look))
                else:
                    work = self._pool.submit(self.driver.draw, look)
            except Exception as error:
                work.set_exception(error)
            with self._condition:
                self._drawn.append((work, tag, came))
                self._condition.notify_all()

    def _hand_over(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: not self._open or self._drawn)
                if not self._open:
                    return
                work, tag, came = self._drawn.popleft()
            try:
                picture, error = work.result(), None
            except Exception as problem:
                picture, error = None, problem
            now = time.monotonic()
            self._times.append(now)
            span = now - self._times[0]
            rate = (len(self._times) - 1) / span if span > 0 else 0.0
            try:
                self._deliver(Answer(tag, picture, error, now - came, self.dropped, rate))
            finally:
                with self._condition:
                    self._busy -= 1
                    self._condition.notify_all()
