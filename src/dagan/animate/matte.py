"""Tells the person in a source picture from what is behind: a soft matte from depth, landmarks and colours.

The learnt depth shows the head as a near, blurred blob, and the landmarks show the face and where the neck must be. Both give places that
surely belong to the person, and places that surely do not. Between them a random walk over similar colours decides, so that the matte's
edge follows the picture's.

Legend: S side of the model's images.
"""

from __future__ import annotations

import warnings

import numpy as np

from dagan.errors import InputError
from dagan.media.landmarks import OUTLINE, Face

_SIDE = 128  # The walk works at this size, where it takes a quarter of a second; four times as many places take ten times as long.
_EDGES = 300.0  # So strongly differences of colour keep the walk from crossing.
_HEAD = 0.72  # Shares of the way from the far depth to the face's: nearer than this is head,
_BEHIND = 0.25  # and farther than this is background, wherever it is.
_ASIDE = 0.6  # The share that still counts as background at a whole face's width beside the head.
_FACE_POINTS = len(OUTLINE) - 2  # The last two points of the outline are on the nose.
_PERSON, _BACKGROUND = 1, 2


def find_matte(picture: np.ndarray, disparity: np.ndarray | None, face: Face | None) -> np.ndarray:
    """Returns S x S float32 in [0, 1], 1 where the person is, for the source's square, S x S x 3 uint8.

    `disparity` is its S x S depth map, None for models without one. Raises InputError without a face, because then it is not known where
    the person is.
    """
    from PIL import Image
    from skimage.color import rgb2lab
    from skimage.segmentation import random_walker

    if face is None:
        raise InputError("no face found in the source picture, so the person cannot be told from the background: leave that option out")
    size = len(picture)
    small = np.asarray(Image.fromarray(picture).resize((_SIDE, _SIDE), Image.Resampling.BOX))
    near = None if disparity is None else np.asarray(Image.fromarray(disparity).resize((_SIDE, _SIDE), Image.Resampling.BOX))
    seeds = _seeds(face.landmarks[:, :2] * (_SIDE / size), near)
    if _BACKGROUND not in seeds:  # The person fills the picture.
        return np.ones((size, size), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Without further libraries the solver is not the fastest, and says so.
        shares = random_walker(rgb2lab(small) / 50, seeds, beta=_EDGES, mode="cg_j", channel_axis=-1, return_full_prob=True, prob_tol=1)
    # Half a chance is the edge. A steeper rise there leaves no veil over what the walk is unsure of.
    edge = np.clip((shares[0].astype(np.float32) - 0.25) / 0.5, 0, 1)
    edge = edge * edge * (3 - 2 * edge)
    return np.clip(np.asarray(Image.fromarray(edge).resize((size, size), Image.Resampling.BICUBIC)), 0, 1)


def _seeds(points: np.ndarray, near: np.ndarray | None) -> np.ndarray:
    """Returns _SIDE x _SIDE integers that mark sure places. `points` are the face's landmarks in pixels of that size."""
    from PIL import Image, ImageDraw
    from scipy.ndimage import binary_erosion, distance_transform_edt

    drawn = Image.new("L", (_SIDE, _SIDE))
    ImageDraw.Draw(drawn).polygon([tuple(point) for point in points[list(OUTLINE[:_FACE_POINTS])].tolist()], fill=1)
    face = np.asarray(drawn) > 0
    y, x = np.mgrid[:_SIDE, :_SIDE] + 0.5
    (left, top), (right, chin) = points.min(axis=0), points.max(axis=0)
    width, middle = right - left, (left + right) / 2
    if near is None or not face.any():
        nearness = np.where(face, 1.0, 0.0)
    else:
        far = np.percentile(near, 5)
        nearness = (near - far) / max(float(np.median(near[face]) - far), 1e-6)
    head = face | ((nearness > _HEAD) & (y < chin) & (np.abs(x - middle) < width))
    below = y - chin
    # The neck is under the chin, and shoulders spread from a third of a face's width below it.
    body = (below > -0.05 * (chin - top)) & (np.abs(x - middle) < 0.28 * width + 2 * np.maximum(below - 0.3 * width, 0))
    away = distance_transform_edt(~(head | body)) / max(width, 1.0)
    least = 0.25 if near is not None else 0.45  # Without depth nobody knows how far the hair goes.
    behind = (away > least) & (below < -0.1 * (chin - top)) & (nearness < _BEHIND + (_ASIDE - _BEHIND) * np.clip(away, 0, 1))
    seeds = np.zeros((_SIDE, _SIDE), np.int64)
    seeds[behind] = _BACKGROUND
    seeds[binary_erosion(head) | body] = _PERSON
    return seeds
