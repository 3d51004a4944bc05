"""Landmarks for measuring: every picture on its own, because a face that is lost in one must be counted there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dagan.media.landmarker_file import find_landmarker_file
from dagan.media.landmarks import FaceLandmarker


class Landmarks:
    """uint8 H x W x 3 -> the largest face's mesh landmarks, 478 x 3 pixels, or None."""

    def __init__(self, file: Path) -> None:
        self.landmarker = FaceLandmarker(file)

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.floating] | None:
        faces = self.landmarker.detect(image, thorough=False)
        return faces[0].landmarks if faces else None


def open_landmarks(path: Path | None = None) -> Landmarks | None:
    """With the landmarker bundle at `path`, or where `find_landmarker_file` finds it; None where there is none."""
    file = find_landmarker_file(path)
    return Landmarks(file) if file else None
