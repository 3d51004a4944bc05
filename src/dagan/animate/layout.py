"""Layouts: how results become frames of the output.

They stand alone, beside what they came from, or in the whole source picture. Of many photos that one motion moves (a cast), they are the
tiles of one picture.

Legend: N frames, P photos, S side of the model's pictures, T side of the results.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from dagan.animate.animator import Animator
from dagan.engine.base import Engine
from dagan.errors import InputError
from dagan.media.colour import colour_table, colourise, robust_range
from dagan.media.framing import Framing, paste, to_square
from dagan.media.images import image_files
from dagan.models.keypoints import Keypoints


class Layout(Protocol):
    """Makes frames of the output."""

    width: int
    """The width of the output's frames."""
    height: int
    """The height of the output's frames."""
    wants_driving: bool
    """Whether `compose` needs the driving pictures."""

    def compose(self, results: np.ndarray, driving: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields frames, height x width x 3 uint8, for N results, T x T x 3, and, where wanted, N driving pictures, S x S x 3."""


class Plain:
    """The result stands alone."""

    wants_driving = False

    def __init__(self, size: int) -> None:
        self.width = self.height = size

    def compose(self, results: np.ndarray, driving: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """Implements the method of `Layout`, which is documented there."""
        yield from results


class SideBySide:
    """Source, driving frame, its depth map in colours (for models that have depth) and result, from left to right.

    `source` is the source's square in the size of results, T x T x 3. Driving pictures and their depth are brought to that size.
    """

    wants_driving = True

    def __init__(self, source: np.ndarray, engine: Engine) -> None:
        self._source, self._engine = source, engine
        self._table = colour_table()
        self._range: tuple[float, float] | None = None
        side = len(source)
        self.width, self.height = side * (4 if engine.has_depth else 3), side

    def compose(self, results: np.ndarray, driving: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """Implements the method of `Layout`, which is documented there."""
        depth = self._depth(driving) if self._engine.has_depth else None
        for i, result in enumerate(results):
            shown = [driving[i]] if depth is None else [driving[i], depth[i]]
            yield np.concatenate([self._source, *(to_square(picture, self.height) for picture in shown), result], axis=1)

    def _depth(self, driving: Sequence[np.ndarray]) -> np.ndarray:
        disparity = self._engine.disparity(driving)
        if self._range is None:  # The whole video has one range, because colours that change would look like motion.
            self._range = robust_range(disparity)
        return colourise(disparity, *self._range, self._table)


class PasteBack:
    """The whole source picture, H x W x 3 uint8, with the result where the source's face was cut out."""

    wants_driving = False

    def __init__(self, image: np.ndarray, framing: Framing) -> None:
        self.follow(image, framing)
        self.height, self.width = image.shape[:2]

    def follow(self, image: np.ndarray, framing: Framing | None) -> None:
        """Pastes the next results into another picture of the same size; with None it is shown as it is, because nobody is there."""
        self._image, self._framing = image, framing

    def compose(self, results: np.ndarray, driving: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """Implements the method of `Layout`, which is documented there."""
        for result in results:
            yield self._image if self._framing is None else paste(self._image, result, self._framing)


class Marked:
    """Another layout, with a small mark in the lower right corner that says that an AI made the picture."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.width, self.height, self.wants_driving = layout.width, layout.height, layout.wants_driving
        self._mark = _drawn_mark(self.width, self.height)

    def compose(self, results: np.ndarray, driving: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """Implements the method of `Layout`, which is documented there."""
        height, width = self._mark.shape[:2]
        colours, weight = self._mark[..., :3].astype(np.float32), self._mark[..., 3:].astype(np.float32) / 255
        for frame in self._layout.compose(results, driving):
            marked = frame.copy()
            corner = marked[-height:, -width:]
            corner[..., :3] = np.rint(corner[..., :3] * (1 - weight) + colours * weight).astype(np.uint8)
            if corner.shape[2] == 4:  # The mark is seen where the person is not, too.
                corner[..., 3:] = np.maximum(corner[..., 3:], self._mark[..., 3:])
            yield marked


_MARK_TEXT = "AI-generated"
_MARK_SHARE = 0.035  # The letters are so high, as a share of the picture's shorter side,
_SMALLEST_LETTERS = 9  # and at least so many pixels.


def _drawn_mark(width: int, height: int) -> np.ndarray:
    """Returns the mark, h x w x 4 uint8: white letters on a veil of black, with how opaque they are."""
    from PIL import Image, ImageDraw, ImageFont

    letters = max(_SMALLEST_LETTERS, round(_MARK_SHARE * min(width, height)))
    font = ImageFont.load_default(letters)
    left, top, right, bottom = font.getbbox(_MARK_TEXT)
    margin = letters // 2
    size = (min(width, round(right - left) + 2 * margin), min(height, round(bottom - top) + 2 * margin))
    mark = Image.new("RGBA", size, (0, 0, 0, 110))
    ImageDraw.Draw(mark).text((margin - left, margin - top), _MARK_TEXT, fill=(255, 255, 255, 255), font=font)
    return np.asarray(mark)


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
        """Implements the method of `Layout`, which is documented there."""
        for i, tiles in enumerate(results):
            shown = [to_square(driving[i], self._side), *tiles] if self.wants_driving else list(tiles)
            frame = np.zeros((self.height, self.width, tiles.shape[-1]), np.uint8)
            for place, tile in enumerate(shown):
                row, column = divmod(place, self._columns)
                frame[row * self._side : (row + 1) * self._side, column * self._side : (column + 1) * self._side] = tile
            yield frame
