"""Landmarks in the frames of a data set. Training guides keypoints to them, and they tell how frames differ in expression.

Legend: N frames, C clips, P points, E expressions.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dagan.checks import read_array
from dagan.data.clips import Clip
from dagan.media.decode import Frames, read_clip
from dagan.media.landmarks import BUNDLE, EXPRESSIONS, Face, FaceLandmarker, expressions
from dagan.media.output import atomic_output

# These mesh points are kept of every frame ("right" is the person's right). Keypoints may stand on any of them.
POINTS = (
    61, 291, 13, 14,  # right and left corner of the mouth, upper and lower inner lip
    159, 145, 386, 374,  # right upper and lower lid, left upper and lower lid
    468, 473,  # right and left iris
    0, 17, 105, 334, 152,  # upper and lower outer lip, right and left brow, chin
    33, 133, 362, 263,  # right eye's outer and inner corner, left eye's inner and outer corner
    10, 1, 234, 454,  # top of the forehead, tip of the nose, right and left cheek
)  # fmt: skip
# These pairs of points change places in a mirrored picture.
_TWINS = ((61, 291), (159, 386), (145, 374), (468, 473), (105, 334), (33, 263), (133, 362), (234, 454))
_TWIN = {**dict(_TWINS), **{b: a for a, b in _TWINS}}
# In a mirrored picture, each place of POINTS becomes this place.
MIRRORED = tuple(POINTS.index(_TWIN.get(point, point)) for point in POINTS)
# The difference of each of these pairs of mesh points is an expression: the mouth's opening, either eye's, and where an iris lies in its
# eye.
OPENINGS = ((13, 14), (159, 145), (386, 374), (468, 159), (473, 386))
# Frames of this side are searched, whatever size training has, because on 128 pixels an eye is only five pixels high.
SIDE = 256

Points = NDArray[np.float32]


def landmarks_of(clips: Sequence[Clip], count: Sequence[int], cache: Path | None, stamp: str, tracked: Callable[..., Any]) -> Points:
    """Returns the positions of POINTS in all frames of the clips, N x P x 2 in [-1, 1], NaN where no face is found.

    `count` gives the number of frames of each clip. `cache` is a folder in which the result is kept under `stamp`, which stands for the
    clips. `tracked` shows progress over an iterable.
    """
    key = hashlib.sha256(f"{stamp} {POINTS} {SIDE}".encode() + BUNDLE.read_bytes()).hexdigest()[:16]
    kept = None if cache is None else cache / f"landmarks-{key}.npy"
    if kept is not None and kept.is_file():
        return read_array(kept, "remove it, and the landmarks are found again")
    own = threading.local()

    def search(index: int) -> Points:
        if not hasattr(own, "landmarker"):
            own.landmarker = FaceLandmarker()
        return _search(own.landmarker, clips[index], count[index])

    with ThreadPoolExecutor() as pool:
        found = np.concatenate(list(tracked(pool.map(search, range(len(clips))), "Finding eyelids and lips", len(clips))))
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with atomic_output(kept, overwrite=True) as partial, partial.open("wb") as out:
            np.save(out, found)
    return found


@dataclass(frozen=True)
class Spread:
    """How the expressions of a data set vary, which sampling needs before any frame is drawn."""

    deviation: Points
    """The standard deviation of each of E expressions over all frames; 1 where no frame has it."""
    clips: Points
    """C x E, the standard deviation within each clip. Frames without a face count as 0."""


def measured(points: Points) -> Points:
    """Returns the expressions of frames with these landmarks, N x P x 2, as N x E. They are NaN where landmarks are."""
    return expressions(lambda mesh: points[:, POINTS.index(mesh)])


def sums_of(measures: Points) -> NDArray[np.float64]:
    """Returns 3 x E for frames with these expressions, N x E: how many have each, their sum, and the sum of their squares."""
    whole = np.nan_to_num(measures).astype(np.float64)
    return np.stack([np.isfinite(measures).sum(0), whole.sum(0), np.square(whole).sum(0)])


def deviation_of(sums: NDArray[np.float64]) -> Points:
    """Returns the standard deviation of each expression, from what `sums_of` gives or from the sum of several of them."""
    many = np.maximum(sums[0], 1)
    deviation = np.sqrt(np.maximum(sums[2] / many - np.square(sums[1] / many), 0))
    return np.where(sums[0] > 0, np.maximum(deviation, 1e-6), 1.0).astype(np.float32)


def spread_of(points: Points, count: Sequence[int]) -> Spread:
    """Measures the landmarks of all frames, N x P x 2. `count` gives the number of frames of each clip."""
    measures = measured(points)
    clips = [np.nan_to_num(own).std(0) if len(own) else np.zeros(len(EXPRESSIONS)) for own in np.split(measures, np.cumsum(count)[:-1])]
    return Spread(deviation_of(sums_of(measures)), np.asarray(clips, np.float32))


def _search(landmarker: FaceLandmarker, clip: Clip, count: int) -> Points:
    return find_points(landmarker, read_clip(clip, SIDE)[:count], count)


def find_points(landmarker: FaceLandmarker, frames: Frames, count: int) -> Points:
    """Returns the positions of POINTS in frames of one clip, n x 3 x S x S with S of SIDE, as count x P x 2. Frames may be missing."""
    found: Points = np.full((count, len(POINTS), 2), np.nan, np.float32)
    face: Face | None = None
    for i, frame in enumerate(frames):
        image = np.ascontiguousarray(frame.transpose(1, 2, 0))
        face = landmarker.track(image, face) if face is not None else next(iter(landmarker.detect(image, thorough=False)), None)
        if face is not None:
            found[i] = face.places(POINTS, SIDE)
    return found
