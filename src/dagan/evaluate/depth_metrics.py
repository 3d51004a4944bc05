"""Depth against ground truth, inside a face. Legend: H W image, n pixels of the face. Depth is in metres along the camera's z.

Depth learnt from video is known up to scale, and a network's disparity up to an affine map, so it is aligned before it is measured:
least squares on inverse depth inside the face, with a slope that may not be negative (a hollow face must not pass for a face).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion
from scipy.stats import spearmanr

Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]

# Surfaces seen at a flatter angle than this have no normals to speak of at a pixel's width.
STEEPEST = 80.0
# Percentiles of the face's depth between which its own range lies.
RANGE = (1, 99)
# The usual bound of the share of pixels whose depth is right within a factor.
FACTOR = 1.25


@dataclass(frozen=True)
class Scores:
    """spearman: rank correlation of disparity with inverse depth, in [-1, 1]. relief: RMSE of the aligned depth over the face's own
    depth range. normals: mean angle to the true normals, degrees. abs_rel: mean |depth / true - 1|, delta: share of pixels within
    FACTOR, both after scaling by the median alone. For spearman and delta more is better, for the others less."""

    spearman: float
    relief: float
    normals: float
    abs_rel: float
    delta: float


def score(
    disparity: Floats, depth: Floats, truth: Floats, face: Mask, focal: tuple[float, float], principal: tuple[float, float]
) -> Scores:  # fmt: skip
    """Scores of one frame.

    Args:
        disparity: H x W, near = large, up to an affine map.
        depth: H x W, the network's own depth, up to scale.
        truth: H x W, metres.
        face: H x W, pixels to measure; at least two.
        focal, principal: of the true camera, pixels.
    """
    aligned = align(disparity, truth, face)
    seen, true = depth[face], truth[face]
    ratio = seen / true
    ratio = ratio / np.median(ratio)
    # A constant has no ranks: it correlates with nothing.
    ranked = 0.0 if np.ptp(disparity[face]) == 0 else float(spearmanr(disparity[face], 1 / true).statistic)
    return Scores(
        spearman=ranked,
        relief=relief_error(aligned, truth, face),
        normals=normal_error(aligned, truth, face, focal, principal),
        abs_rel=float(np.abs(ratio - 1).mean()),
        delta=float((np.maximum(ratio, 1 / ratio) < FACTOR).mean()),
    )


def flat_scores(truth: Floats, face: Mask, focal: tuple[float, float], principal: tuple[float, float]) -> Scores:
    """What a flat disc that faces the camera scores: the figures to beat."""
    flat = np.ones_like(truth)
    return score(flat, flat, truth, face, focal, principal)


def align(disparity: Floats, truth: Floats, face: Mask) -> Floats:
    """H x W depth in metres: 1 / (a disparity + b) with a >= 0, fitted to the truth's inverse inside the face."""
    seen, wanted = disparity[face].astype(np.float64), 1 / truth[face].astype(np.float64)
    centred = seen - seen.mean()
    spread = float(np.square(centred).sum())
    slope = max(0.0, float((centred * wanted).sum()) / spread) if spread > 0 else 0.0
    inverse = wanted.mean() + slope * (disparity - seen.mean())
    # Outside the face the fit may cross zero; there it only has to stay finite.
    return 1 / np.maximum(inverse, 0.1 * wanted.min())


def relief_error(depth: Floats, truth: Floats, face: Mask) -> float:
    """RMSE in the face over the face's own depth range."""
    low, high = np.percentile(truth[face], RANGE)
    return float(np.sqrt(np.square(depth[face] - truth[face]).mean()) / (high - low))


def normal_error(depth: Floats, truth: Floats, face: Mask, focal: tuple[float, float], principal: tuple[float, float]) -> float:
    """Mean angle in degrees between the normals of two depth maps, a pixel inside the face's edge and where the surface is not
    steeper than STEEPEST; nan where no pixel is left."""
    true, seen = (surface_normals(z, focal, principal) for z in (truth, depth))
    inside = binary_erosion(face, np.ones((3, 3), bool)) & (-true[..., 2] > np.cos(np.radians(STEEPEST)))
    cosine = (true[inside] * seen[inside]).sum(-1)
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean()) if inside.any() else float("nan")


def surface_normals(depth: Floats, focal: tuple[float, float], principal: tuple[float, float]) -> Floats:
    """H x W x 3 unit normals towards the camera, from central differences of the back-projected points."""
    height, width = depth.shape
    rows, columns = np.mgrid[0:height, 0:width]
    rays = np.stack([(columns - principal[0]) / focal[0], (rows - principal[1]) / focal[1], np.ones(depth.shape)], -1)
    points = rays * depth[..., None].astype(np.float64)
    normal = np.cross(np.gradient(points, axis=0), np.gradient(points, axis=1))
    return normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)


def rotation_between(first: Floats, second: Floats) -> Floats:
    """3 x 3: the turn, in camera coordinates, that carries a head from pose `first` (3 x 3, head to camera) to `second`."""
    return second @ first.T


def angle_between(first: Floats, second: Floats) -> float:
    """Degrees of the turn between two rotations."""
    return float(np.degrees(np.arccos(np.clip((np.trace(first.T @ second) - 1) / 2, -1, 1))))
