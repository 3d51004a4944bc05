"""Driving frames without a face: which they are, and the motion that takes their place.

A black leader, a title, an empty chair or half a face at the border says nothing about a face; its keypoints would only tear the
result apart.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from dagan.errors import InputError
from dagan.media.landmarks import Face, FaceLandmarker

OnMissing = Literal["hold", "rest", "error"]
_EASE = 0.5  # seconds in which motion goes over to rest, or from one held pose to the next
_WHOLE = 0.9  # share of the landmarks inside the picture; a face that is cut off farther, on its way out, drives as little as none
_JUMP = 10.0  # grey levels, mean over the picture, by which a frame differs from the one before when it may show something else


def check_on_missing(value: str) -> OnMissing:
    """The value. Raises InputError when it is none of hold, rest and error."""
    for known in get_args(OnMissing):
        if value == known:
            return known
    raise InputError(f"--on-missing is {value!r}: must be {', '.join(get_args(OnMissing))}")


class FaceWatch:
    """Follows the face through pictures given one by one, and tells which of them show one.

    Only every `step`-th picture is looked at as long as the face is there and the picture does not change at once; pictures
    between are looked at where that fails. present: one byte for each picture judged so far, 1 where it shows a face.
    """

    def __init__(self, landmarker: FaceLandmarker, step: int = 1) -> None:
        self.present = bytearray()
        self._landmarker, self._step = landmarker, step
        self._face: Face | None = None
        self._waiting: list[np.ndarray] = []
        self._jumped = False
        self._thumbnail: np.ndarray | None = None

    def see(self, picture: np.ndarray) -> Face | None:
        """Takes the next picture (S x S x 3 uint8). The face in it where this picture was looked at, else None."""
        thumbnail = picture[::8, ::8].astype(np.int16)
        if self._thumbnail is not None and np.abs(thumbnail - self._thumbnail).mean() > _JUMP:
            self._jumped = True
        self._thumbnail = thumbnail
        self._waiting.append(picture)
        if self.present and len(self._waiting) < self._step:
            return None
        return self.judge()

    def judge(self) -> Face | None:
        """Judges the pictures that wait; the face in the latest, None where there is none or no picture waits."""
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
    """Values (N x ...) of frames at `times` (N, seconds) with those of frames that are not `present` (N, bool) replaced.

    Without `rest` the nearest present frame's values are held, and go over to the next one's in the middle of a gap. With it
    (one frame's values) they ease to rest at the gap's start and back at its end. At least one frame must be present.
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
    """Rises from 0 to 1 over [0, 1], level at both ends."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)
