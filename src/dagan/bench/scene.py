"""What speed is measured on: a portrait that sways, made from the astronaut that comes with scikit-image."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np

from dagan.media.framing import Framing, crop

RATE = 25


def swaying(size: int = 256) -> Iterator[np.ndarray]:
    """Frames size x size x 3 uint8 without end: the portrait cut out along a slow circle, one turn in four seconds."""
    from skimage.data import astronaut

    picture = astronaut()
    i = 0
    while True:
        turn = 2 * np.pi * i / (4 * RATE)
        yield crop(picture, Framing(226 + 12 * np.cos(turn), 150 + 12 * np.sin(turn), 280), size)
        i += 1


def write_clip(path: Path, frames: int, size: int = 256) -> Path:
    """A video of so many frames, `RATE` a second."""
    from dagan.media.video import VideoWriter

    with VideoWriter(path, size, size, rate=RATE) as writer:
        for i, picture in enumerate(islice(swaying(size), frames)):
            writer.write(picture, Fraction(i, RATE))
    return path
