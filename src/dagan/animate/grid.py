"""Many photos that one motion moves, shown as tiles of one picture.

Legend: N frames, P photos, T side of the results.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dagan.animate.animator import Animator
from dagan.errors import InputError
from dagan.media.framing import to_square
from dagan.media.images import image_files
from dagan.models.keypoints import Keypoints

MOST_PHOTOS = 64  # Each is drawn in every frame, and the tiles of more would make a video that nothing plays.


def photos_of(source: Path, also: Sequence[Path], grid: bool) -> list[Path]:
    """Returns the photos to animate: the source alone, or with `grid` the photos of a folder (or the source) and those of `also`.

    Raises InputError for a folder without images, for `also` without `grid`, and for more than 64 photos.
    """
    if not grid:
        if also:
            raise InputError("--also is for --grid, which shows several photos: ask for it, or leave --also out")
        return [source]
    photos = [*(image_files(source) if source.is_dir() else [source]), *also]
    if not photos:
        raise InputError(f"{source} holds no images: name a folder of photos")
    if len(photos) > MOST_PHOTOS:
        raise InputError(f"there are {len(photos)} photos: a grid shows at most {MOST_PHOTOS}")
    return photos


class Cast:
    """Animators of several photos that are driven together. `drive` is used as that of one `Animator` is."""

    def __init__(self, animators: Sequence[Animator]) -> None:
        self._animators = animators

    def drive(self, keypoints: Keypoints) -> np.ndarray:
        """Draws N x P x T x T x 3 uint8 for N sets of driving keypoints."""
        return np.stack([animator.drive(keypoints) for animator in self._animators], axis=1)


class Tiles:
    """The layout of a cast: its results row by row, before them the driving frame where that is wanted. Places that are left are black.

    Results are N x P x T x T x 3, or x 4, in which case places that are left are transparent.
    """

    def __init__(self, photos: int, side: int, driving: bool) -> None:
        self._side, self.wants_driving = side, driving
        count = photos + driving
        self._columns = math.ceil(math.sqrt(count))
        self._rows = math.ceil(count / self._columns)
        self.width, self.height = self._columns * side, self._rows * side

    def compose(self, results: np.ndarray, driving: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """See Layout."""
        for i, tiles in enumerate(results):
            shown = [to_square(driving[i], self._side), *tiles] if self.wants_driving else list(tiles)
            frame = np.zeros((self.height, self.width, tiles.shape[-1]), np.uint8)
            for place, tile in enumerate(shown):
                row, column = divmod(place, self._columns)
                frame[row * self._side : (row + 1) * self._side, column * self._side : (column + 1) * self._side] = tile
            yield frame
