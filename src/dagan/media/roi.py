"""Squares on an image, upright or turned, that are cut out for a network and whose results are put back.

Image positions are continuous: the first pixel spans 0 to 1 and its centre is 0.5. Angles are in radians, clockwise as seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

MARGIN = 1.5  # of the face box; the mesh network was made for crops with this much room


@dataclass(frozen=True)
class Roi:
    """A square region: centre, side in pixels, and the angle by which the face in it leans."""

    x: float
    y: float
    side: float
    angle: float = 0.0

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """Maps N x 2 or N x 3 positions in the region, each in [0, 1], to image pixels; a third column (depth) is scaled only."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        x, y = (points[:, 0] - 0.5) * self.side, (points[:, 1] - 0.5) * self.side
        placed = [self.x + cos * x - sin * y, self.y + sin * x + cos * y]
        if points.shape[1] == 3:
            placed.append(points[:, 2] * self.side)
        return np.stack(placed, axis=1)


def roi_around(box: tuple[float, float, float, float], right_eye: np.ndarray, left_eye: np.ndarray) -> Roi:
    """The region for the mesh: `MARGIN` times the longer side of a face box, turned such that the eyes lie level.

    right_eye, left_eye: (x, y) of the person's eyes; the right one is to the left in the image.
    """
    side = MARGIN * max(box[2] - box[0], box[3] - box[1])
    angle = math.atan2(float(left_eye[1] - right_eye[1]), float(left_eye[0] - right_eye[0]))
    return Roi((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, side, angle)


def cut(image: np.ndarray, roi: Roi, size: int, *, cubic: bool = False) -> np.ndarray:
    """The region as size x size x 3 uint8, bilinear or bicubic, averaged first where it shrinks; beyond the border pixels repeat."""
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
    """The pixels around a span of positions, with repeated border pixels where it leaves the image, and where they begin."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)
    inside = image[max(0, min(y0, height - 1)) : max(1, min(y1, height)), max(0, min(x0, width - 1)) : max(1, min(x1, width))]
    before = (max(0, -y0), max(0, -x0))
    after = (max(0, y1 - height), max(0, x1 - width))
    if any(before) or any(after):
        inside = np.pad(inside, ((before[0], after[0]), (before[1], after[1]), (0, 0)), mode="edge")
    return np.ascontiguousarray(inside), x0, y0
