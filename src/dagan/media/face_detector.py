"""Rough face boxes from the short-range detector of the Face Landmarker bundle (BlazeFace, 128 x 128 pixels in).

The network answers for 896 anchors: two per cell of a 16 x 16 grid, then six per cell of an 8 x 8 grid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dagan.media.roi import Roi, cut

if TYPE_CHECKING:
    from dagan.media.tflite import Network

INPUT_SIDE = 128
MIN_SCORE = 0.5
_GRIDS = ((16, 2), (8, 6))  # cells a side, anchors a cell
_OVERLAP = 0.3  # boxes that share more of their union are the same face
_SMALLEST_TILE = 96
_MOST_TILES = 300


@dataclass(frozen=True, eq=False)
class Detection:
    """A face as the detector sees it, in image pixels. points: 6 x 2: right eye, left eye, nose, mouth, right ear, left ear."""

    box: tuple[float, float, float, float]
    points: np.ndarray
    score: float


def detect_in(network: Network, image: np.ndarray, region: Roi, min_score: float = MIN_SCORE) -> list[Detection]:
    """Faces that stand upright in a square region of the image, itself upright or turned, best first.

    A box is as large as the detector saw the face, and upright in the image whatever the region's angle.
    """
    pixels = cut(image, region, INPUT_SIDE).astype(np.float32) / 127.5 - 1
    outputs = network.run(pixels[None])
    raw, logits = outputs["regressors"][0], outputs["classificators"][0, :, 0]
    return [
        Detection(
            box=_placed(corners, region),
            points=region.to_image(points),
            score=score,
        )
        for corners, points, score in decode(raw, logits, min_score)
    ]


def _placed(corners: np.ndarray, region: Roi) -> tuple[float, float, float, float]:
    x, y = region.to_image(corners.reshape(2, 2)).mean(axis=0).tolist()
    half_x, half_y = ((corners[2:] - corners[:2]) * region.side / 2).tolist()
    return x - half_x, y - half_y, x + half_x, y + half_y


def decode(raw: np.ndarray, logits: np.ndarray, min_score: float) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Boxes (x0, y0, x1, y1), 6 x 2 points, both in [0, 1] of the input, and scores, from the network's answers.

    raw: 896 x 16: centre x, y, width, height, then 6 points, all in input pixels relative to the anchor. logits: 896.
    Overlapping boxes are merged: averaged, weighted by their scores.
    """
    scores = 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -100, 100)))
    kept = np.flatnonzero(scores >= min_score)
    kept = kept[np.argsort(-scores[kept])]
    values = raw[kept].astype(np.float64) / INPUT_SIDE
    centres = anchors()[kept]
    middle, half = values[:, :2] + centres, values[:, 2:4] / 2
    boxes = np.concatenate([middle - half, middle + half], axis=1)
    points = values[:, 4:].reshape(-1, 6, 2) + centres[:, None]
    scores = scores[kept]
    found = []
    while len(scores):
        same = overlap(boxes[0], boxes) > _OVERLAP
        same[0] = True
        weight = scores[same] / scores[same].sum()
        found.append((weight @ boxes[same], np.tensordot(weight, points[same], 1), float(scores[0])))
        boxes, points, scores = boxes[~same], points[~same], scores[~same]
    return found


def anchors() -> np.ndarray:
    """896 x 2 anchor centres (x, y) in [0, 1]; their size is always 1 and does not matter."""
    parts = []
    for cells, repeats in _GRIDS:
        rows, columns = np.divmod(np.arange(cells * cells), cells)
        centres = (np.stack([columns, rows], axis=1) + 0.5) / cells
        parts.append(np.repeat(centres, repeats, axis=0))
    return np.concatenate(parts)


def overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of one box (4) with each of N boxes (N x 4)."""
    corner0, corner1 = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.clip(corner1 - corner0, 0, None).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return shared / np.maximum((box[2:] - box[:2]).prod() + areas - shared, 1e-12)


def whole(image: np.ndarray) -> Roi:
    """The square that holds the whole image, centred."""
    height, width = image.shape[:2]
    return Roi(width / 2, height / 2, max(height, width))


def tiles(image: np.ndarray) -> Iterator[list[Roi]]:
    """Ever smaller overlapping squares that cover the image, one list for each size, for faces too small for the whole.

    The detector sees faces down to about a tenth of its input; tiles halve until `_SMALLEST_TILE` pixels or too many.
    """
    height, width = image.shape[:2]
    side = float(min(height, width))
    if max(height, width) < 1.2 * side:
        side /= 1.5
    while side >= _SMALLEST_TILE:
        xs, ys = _positions(width, side), _positions(height, side)
        if len(xs) * len(ys) > _MOST_TILES:
            return
        yield [Roi(x, y, side) for y in ys for x in xs]
        side /= 1.7


def _positions(length: int, side: float) -> list[float]:
    """Centres along one axis, at most half a side apart, from border to border."""
    if length <= side:
        return [length / 2]
    count = int(np.ceil((length - side) / (side / 2))) + 1
    return np.linspace(side / 2, length - side / 2, count).tolist()
