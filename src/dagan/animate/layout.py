"""Layouts: how results become frames of the output. They stand alone, beside what they came from, or in the whole source picture.

Legend: N frames, S side of the model's pictures, T side of the results.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from dagan.engine.base import Engine
from dagan.media.colour import colour_table, colourise, robust_range
from dagan.media.framing import Framing, paste, to_square


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
        """See Layout."""
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
        """See Layout."""
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
        """See Layout."""
        for result in results:
            yield self._image if self._framing is None else paste(self._image, result, self._framing)


class Marked:
    """Another layout, with a small mark in the lower right corner that says that an AI made the picture."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.width, self.height, self.wants_driving = layout.width, layout.height, layout.wants_driving
        self._mark = _drawn_mark(self.width, self.height)

    def compose(self, results: np.ndarray, driving: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """See Layout."""
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
