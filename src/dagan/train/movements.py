"""How far validation results move the face, while training: the rulers of evaluation, on the samples that are validated anyway.

Legend: B batch, H W image.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from torch import Tensor

from dagan.media.expression import EXPRESSIONS, Points, expressions, followed
from dagan.media.landmarks import Face, FaceLandmarker


class MovementRuler:
    """Collects results beside their source and driving frames. One for each way of driving."""

    def __init__(self) -> None:
        self._driven: list[Points] = []
        self._drawn: list[Points] = []

    def add(self, source: Points, driving: Points, result: Points) -> None:
        """Expressions of B samples, B x E each, as `read` gives them; those of faces that were not found are left out."""
        seen = np.isfinite(source + driving + result).all(axis=1)
        self._driven.append((driving - source)[seen])
        self._drawn.append((result - source)[seen])

    def slopes(self, prefix: str) -> dict[str, float]:
        """Slope of each movement under its name with a prefix; what cannot be told is left out."""
        found = followed(np.concatenate(self._driven), np.concatenate(self._drawn)) if self._driven else {}
        return {f"{prefix}{key.removesuffix('_slope')}": value for key, value in found.items() if key.endswith("_slope")}


def read(images: Tensor, landmarker: FaceLandmarker) -> Points:
    """B x E numbers of `media.expression` of the largest face in images B x 3 x H x W in [0, 1]; NaN where there is none."""
    pictures = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    rows = np.full((len(pictures), len(EXPRESSIONS)), np.nan, np.float32)
    for row, picture in zip(rows, pictures, strict=True):
        faces = landmarker.detect(np.ascontiguousarray(picture), thorough=False)
        if faces:
            row[:] = expressions(partial(_place, faces[0]))[0]
    return rows


def _place(face: Face, point: int) -> Points:
    return face.landmarks[None, point, :2]
