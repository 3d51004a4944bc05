"""Finds rough face boxes with the short-range detector of the Face Landmarker bundle (BlazeFace, which takes 128 x 128 pixels).

The detector answers for 896 anchors: two in each cell of a 16 x 16 grid, then six in each cell of an 8 x 8 grid. `Network` runs it, and
any other TensorFlow Lite network, with ai-edge-litert. A `Roi` is a square on an image, upright or turned. It is cut out for a network,
and what the network finds in it is put back onto the image.

Image positions are continuous: the first pixel spans 0 to 1 and its centre is 0.5. Angles are in radians, clockwise as seen.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

# The error stream belongs to the process. Threads that redirected it at the same time would restore each other's, and lose it for good.
_TURNING = threading.Lock()


class Network:
    """One network, from the bytes of its file. Threads must not share it. Raises ImportError without ai-edge-litert."""

    def __init__(self, content: bytes, num_threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter

        with _quiet():
            self._interpreter = Interpreter(model_content=content, num_threads=num_threads)
            self._interpreter.allocate_tensors()
        details = self._interpreter.get_input_details()[0]
        self._input = details["index"]
        self.input_shape: tuple[int, ...] = tuple(int(n) for n in details["shape"])
        self._outputs = {detail["name"]: detail["index"] for detail in self._interpreter.get_output_details()}

    @property
    def outputs(self) -> list[str]:
        """The names of the output tensors."""
        return list(self._outputs)

    def run(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Runs the network on float32 `values` of `input_shape` and returns copies of all outputs by their names."""
        self._interpreter.set_tensor(self._input, np.ascontiguousarray(values, dtype=np.float32))
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides what the library writes to the process's error stream, past Python. It only names its delegate."""
    with _TURNING:
        try:
            saved = os.dup(2)
        except OSError:  # The process has no error stream.
            yield
            return
        sink = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(sink, 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(sink)
            os.close(saved)


MARGIN = 1.5  # The region is this many times as large as the face box. The mesh network was made for crops with this much room.


@dataclass(frozen=True)
class Roi:
    """A square region of an image."""

    x: float
    """The centre's position from left to right, in pixels."""
    y: float
    """The centre's position from top to bottom, in pixels."""
    side: float
    """The side, in pixels."""
    angle: float = 0.0
    """The angle by which the region is turned clockwise, as the face in it leans."""

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """Maps positions in the region, N x 2 or N x 3, each in [0, 1], to image pixels. A third column, depth, is only scaled."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        x, y = (points[:, 0] - 0.5) * self.side, (points[:, 1] - 0.5) * self.side
        placed = [self.x + cos * x - sin * y, self.y + sin * x + cos * y]
        if points.shape[1] == 3:
            placed.append(points[:, 2] * self.side)
        return np.stack(placed, axis=1)


def roi_around(box: tuple[float, float, float, float], right_eye: np.ndarray, left_eye: np.ndarray) -> Roi:
    """Returns the region for the mesh network: `MARGIN` times the longer side of a face box, turned such that the eyes are level.

    right_eye and left_eye are (x, y) of the person's eyes. The right one is to the left in the image.
    """
    side = MARGIN * max(box[2] - box[0], box[3] - box[1])
    angle = math.atan2(float(left_eye[1] - right_eye[1]), float(left_eye[0] - right_eye[0]))
    return Roi((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, side, angle)


def cut(image: np.ndarray, roi: Roi, size: int, *, cubic: bool = False) -> np.ndarray:
    """Cuts out a region as size x size x 3 uint8, bilinear or bicubic. Where it shrinks, pixels are averaged first.

    Beyond the image's border its pixels are repeated.
    """
    from PIL import Image

    resampling = Image.Resampling.BICUBIC if cubic else Image.Resampling.BILINEAR

    cos, sin = math.cos(roi.angle), math.sin(roi.angle)
    reach = roi.side / 2 * (abs(cos) + abs(sin)) + 2
    pixels, left, top = patch(image, roi.x - reach, roi.y - reach, roi.x + reach, roi.y + reach)
    shrink = max(1, int(roi.side / size))
    source = Image.fromarray(pixels)
    if shrink > 1:
        source = source.reduce(shrink)
    step = roi.side / size / shrink
    x, y = (roi.x - left) / shrink, (roi.y - top) / shrink
    half = size / 2
    matrix = (
        cos * step, -sin * step, x - half * step * (cos - sin),
        sin * step, cos * step, y - half * step * (sin + cos),
    )  # fmt: skip
    return np.asarray(source.transform((size, size), Image.Transform.AFFINE, matrix, resampling))


def patch(image: np.ndarray, left: float, top: float, right: float, bottom: float) -> tuple[np.ndarray, int, int]:
    """Returns the pixels around a span of positions, and x and y at which they begin. Beyond the border pixels are repeated."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)
    inside = image[max(0, min(y0, height - 1)) : max(1, min(y1, height)), max(0, min(x0, width - 1)) : max(1, min(x1, width))]
    before = (max(0, -y0), max(0, -x0))
    after = (max(0, y1 - height), max(0, x1 - width))
    if any(before) or any(after):
        inside = np.pad(inside, ((before[0], after[0]), (before[1], after[1]), (0, 0)), mode="edge")
    return np.ascontiguousarray(inside), x0, y0


INPUT_SIDE = 128  # The side of the detector's input, in pixels.
MIN_SCORE = 0.5  # Faces with a lower score are left out.
_GRIDS = ((16, 2), (8, 6))  # The cells a side and the anchors a cell of each grid.
_OVERLAP = 0.3  # Boxes that share more than this of their union are the same face.
_SMALLEST_TILE = 96  # Pixels. In smaller tiles a face would be too small to be of use.
_MOST_TILES = 300  # With more tiles the search would take too long.


@dataclass(frozen=True, eq=False)
class Detection:
    """A face as the detector sees it, in image pixels."""

    box: tuple[float, float, float, float]
    """Left, top, right and bottom."""
    points: np.ndarray
    """6 x 2 positions: right eye, left eye, nose, mouth, right ear, left ear."""
    score: float
    """How sure the detector is, from 0 to 1."""


def detect_in(network: Network, image: np.ndarray, region: Roi, min_score: float = MIN_SCORE) -> list[Detection]:
    """Finds faces that stand upright in a square region of the image, best first. The region itself may be turned.

    A box is as large as the detector saw the face. It is upright in the image, whatever the region's angle.
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
    """Turns the network's answers into boxes (x0, y0, x1, y1) and 6 x 2 points, in [0, 1] of the input, and scores.

    `raw` is 896 x 16: the centre's x and y, width, height, then 6 points, all in input pixels relative to the anchor. `logits` has 896
    numbers. Overlapping boxes are merged by averaging them, weighted by their scores.
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
    """Returns the 896 x 2 centres (x, y) of the anchors, in [0, 1]. Their size is always 1 and does not matter."""
    parts = []
    for cells, repeats in _GRIDS:
        rows, columns = np.divmod(np.arange(cells * cells), cells)
        centres = (np.stack([columns, rows], axis=1) + 0.5) / cells
        parts.append(np.repeat(centres, repeats, axis=0))
    return np.concatenate(parts)


def overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Returns the intersection over the union of one box (4) with each of N boxes (N x 4)."""
    corner0, corner1 = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.clip(corner1 - corner0, 0, None).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return shared / np.maximum((box[2:] - box[:2]).prod() + areas - shared, 1e-12)


def whole(image: np.ndarray) -> Roi:
    """Returns the square that holds the whole image, with the same centre."""
    height, width = image.shape[:2]
    return Roi(width / 2, height / 2, max(height, width))


def tiles(image: np.ndarray) -> Iterator[list[Roi]]:
    """Yields ever smaller overlapping squares that cover the image, as one list for each size. They show faces too small for the whole.

    The detector sees faces down to about a tenth of its input. Tiles shrink until they are smaller than `_SMALLEST_TILE` pixels, or too
    many.
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
    """Returns centres along one axis, from border to border, at most half a side apart."""
    if length <= side:
        return [length / 2]
    count = int(np.ceil((length - side) / (side / 2))) + 1
    return np.linspace(side / 2, length - side / 2, count).tolist()
