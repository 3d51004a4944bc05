"""Hard cuts in a video, found while it streams by.

At a cut the picture changes at once and stays changed. A flash changes back, a fade changes little at a time, and in quick
motion the neighbouring frames change as much: none of these counts.
"""

from __future__ import annotations

from collections import deque

import numpy as np

_SIZE = (64, 36)  # pixels to which frames are shrunk: motion of details vanishes, changes of the scene do not
_LEAST = 10.0  # grey levels, mean over the picture, by which a cut changes it
_RATIO = 3.0  # times the mean change of the frames around, by which a cut stands out
_STILL = 1.0  # grey levels; smaller changes are noise, or a frame that is shown twice
_BACK, _AHEAD = 0.35, 0.16  # seconds before and after a cut that are compared with it
_REVERTED = 0.5  # of the change; where the later picture is nearer than that to an earlier one, a flash begins or ends


class CutFinder:
    """Is shown every frame of a video and tells where cuts are, `_AHEAD` seconds late.

    rate: frames a second.
    """

    def __init__(self, rate: float) -> None:
        self._back, self._ahead = max(3, round(_BACK * rate)), max(2, round(_AHEAD * rate))
        self._thumbnails: deque[np.ndarray] = deque(maxlen=2 * self._ahead + 2)
        self._changes: deque[float] = deque(maxlen=self._back + 1 + self._ahead)
        self._times: deque[float] = deque(maxlen=self._ahead + 1)
        self.change = 0.0  # of the latest frame against the one before, in grey levels

    def add(self, image: np.ndarray, time: float) -> float | None:
        """Takes the next frame (H x W x 3 uint8); the time of an earlier one with which a new shot begins, or None."""
        thumbnail = _thumbnail(image)
        self.change = float(np.abs(thumbnail - self._thumbnails[-1]).mean()) if self._thumbnails else 0.0
        self._thumbnails.append(thumbnail)
        self._changes.append(self.change)
        self._times.append(time)
        return self._cut_at(self._ahead)

    def rest(self) -> list[float]:
        """At the video's end: times of cuts among the last frames."""
        found = [self._cut_at(later) for later in range(min(self._ahead, len(self._times)) - 1, -1, -1)]
        return [time for time in found if time is not None]

    def _cut_at(self, later: int) -> float | None:
        """The time of the frame that came `later` frames before the latest, where a shot begins with it."""
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
        self._changes[place] = 0.0  # the next shot may be short: this cut must not make its own look small
        return self._times[-1 - later]


def _thumbnail(image: np.ndarray) -> np.ndarray:
    from PIL import Image

    step = max(1, min(image.shape[1] // (4 * _SIZE[0]), image.shape[0] // (4 * _SIZE[1])))  # most pixels are left out, for speed
    few = Image.fromarray(np.ascontiguousarray(image[::step, ::step]))
    return np.asarray(few.resize(_SIZE, Image.Resampling.BOX)).astype(np.float32)
