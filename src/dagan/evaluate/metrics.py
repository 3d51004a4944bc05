"""Metrics between images, between landmarks and between depth maps; and over time, flicker and steadiness of the background.

Images are in [0, 1], so every data range is 1 unless a caller repeats old figures. Metrics over time take pictures, uint8 H x W x 3.

Depth that was learnt from video is known up to scale, and a network's disparity up to a factor and an offset. It is therefore aligned
before it is measured, by least squares on inverse depth inside the face. The factor may not be negative, because a hollow face must not
pass for a face.

Legend: B batch, H W image, N landmarks, n pixels of the face. True depth is in metres along the camera's z.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity
from skimage.registration import optical_flow_ilk
from skimage.transform import resize, warp
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure, peak_signal_noise_ratio

Image = NDArray[np.uint8]
Grey = NDArray[np.float32]
Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]

MS_SSIM_SMALLEST = 176  # Pixels. For smaller images the coarsest scale of `ms_ssim` is smaller than its window.


def l1(a: Tensor, b: Tensor) -> Tensor:
    """Returns the mean absolute difference of each image, B values in [0, 1]. Lower is better."""
    return (a - b).abs().mean((1, 2, 3))


def psnr(a: Tensor, b: Tensor, data_range: float = 1.0) -> Tensor:
    """Returns the peak signal to noise ratio of each image in dB. Higher is better.

    A data_range of 2 gives 6.02 dB more, as some published figures do.
    """
    return peak_signal_noise_ratio(a, b, data_range=data_range, reduction="none", dim=(1, 2, 3))


def ssim(a: Tensor, b: Tensor, data_range: float = 1.0) -> Tensor:
    """Returns the structural similarity of each image (11 x 11 Gaussian, sigma 1.5), at most 1. Higher is better. data_range 2 flatters."""
    settings = {"data_range": data_range, "channel_axis": 0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    images = ((x.cpu().double().numpy(), y.cpu().double().numpy()) for x, y in zip(a, b, strict=True))
    return torch.tensor([structural_similarity(x, y, **settings) for x, y in images])


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Returns the multi-scale structural similarity of each image (Wang et al. 2003: five scales), data range 1. Higher is better.

    It lies in 0 to 1. Sides must measure at least `MS_SSIM_SMALLEST` pixels.
    """
    return multiscale_structural_similarity_index_measure(a, b, data_range=1.0, reduction="none")


def landmark_distance(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Returns the mean distance of corresponding landmarks (N x >= 2) in the plane, in their unit (pixels)."""
    return float(np.linalg.norm(a[:, :2] - b[:, :2], axis=1).mean())


def depth_rank_correlation(disparity: NDArray[np.floating], landmarks: NDArray[np.floating]) -> float:
    """Returns the Spearman correlation, in [-1, 1], of a disparity map with -z of mesh landmarks.

    The map is H x W, and near is large. The landmarks are N x 3, in pixels, and z grows away from the camera. Those outside the image are
    left out.
    """
    height, width = disparity.shape
    x, y = np.rint(landmarks[:, 0]).astype(int), np.rint(landmarks[:, 1]).astype(int)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return float(spearmanr(disparity[y[inside], x[inside]], -landmarks[inside, 2]).statistic)


# Degrees. Surfaces that are seen at a flatter angle have no usable normals at the width of a pixel.
STEEPEST = 80.0
# The face's own range of depth lies between these percentiles of its depth.
RANGE = (1, 99)
# `DepthScores.delta` is the share of pixels whose depth is right within this factor, which is the usual one.
FACTOR = 1.25


@dataclass(frozen=True)
class DepthScores:
    """The figures of one frame. For spearman and delta more is better, for the others less."""

    spearman: float
    """The rank correlation of disparity with inverse depth, in [-1, 1]."""
    relief: float
    """The root mean square error of the aligned depth over the face's own range of depth."""
    normals: float
    """The mean angle to the true normals, in degrees."""
    abs_rel: float
    """The mean of |depth / true - 1| after scaling by the median alone."""
    delta: float
    """The share of pixels within FACTOR after scaling by the median alone."""


def depth_scores(
    disparity: Floats, depth: Floats, truth: Floats, face: Mask, focal: tuple[float, float], principal: tuple[float, float]
) -> DepthScores:  # fmt: skip
    """Measures one frame.

    Args:
        disparity: This is the network's disparity, H x W; near is large. It is known up to a factor and an offset.
        depth: This is the network's own depth, H x W, known up to scale.
        truth: This is the true depth, H x W, in metres.
        face: These are the pixels to measure, H x W. There must be at least two.
        focal, principal: These describe the true camera in pixels.
    """
    aligned = align_depth(disparity, truth, face)
    seen, true = depth[face], truth[face]
    ratio = seen / true
    ratio = ratio / np.median(ratio)
    # A constant has no ranks, so it correlates with nothing.
    ranked = 0.0 if np.ptp(disparity[face]) == 0 else float(spearmanr(disparity[face], 1 / true).statistic)
    return DepthScores(
        spearman=ranked,
        relief=relief_error(aligned, truth, face),
        normals=normal_error(aligned, truth, face, focal, principal),
        abs_rel=float(np.abs(ratio - 1).mean()),
        delta=float((np.maximum(ratio, 1 / ratio) < FACTOR).mean()),
    )


def flat_depth_scores(truth: Floats, face: Mask, focal: tuple[float, float], principal: tuple[float, float]) -> DepthScores:
    """Measures a flat disc that faces the camera. Its figures are those to beat."""
    flat = np.ones_like(truth)
    return depth_scores(flat, flat, truth, face, focal, principal)


def align_depth(disparity: Floats, truth: Floats, face: Mask) -> Floats:
    """Returns depth in metres, H x W: 1 / (a disparity + b) with a >= 0, fitted to the truth's inverse inside the face."""
    seen, wanted = disparity[face].astype(np.float64), 1 / truth[face].astype(np.float64)
    centred = seen - seen.mean()
    spread = float(np.square(centred).sum())
    slope = max(0.0, float((centred * wanted).sum()) / spread) if spread > 0 else 0.0
    inverse = wanted.mean() + slope * (disparity - seen.mean())
    # Outside the face the fit may cross zero, but it must stay finite there.
    return 1 / np.maximum(inverse, 0.1 * wanted.min())


def relief_error(depth: Floats, truth: Floats, face: Mask) -> float:
    """Returns the root mean square error in the face over the face's own range of depth."""
    low, high = np.percentile(truth[face], RANGE)
    return float(np.sqrt(np.square(depth[face] - truth[face]).mean()) / (high - low))


def normal_error(depth: Floats, truth: Floats, face: Mask, focal: tuple[float, float], principal: tuple[float, float]) -> float:
    """Returns the mean angle in degrees between the normals of two depth maps.

    Pixels count that lie inside the face's edge and where the surface is not steeper than STEEPEST. It is nan where none is left.
    """
    true, seen = (surface_normals(z, focal, principal) for z in (truth, depth))
    inside = binary_erosion(face, np.ones((3, 3), bool)) & (-true[..., 2] > np.cos(np.radians(STEEPEST)))
    cosine = (true[inside] * seen[inside]).sum(-1)
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean()) if inside.any() else float("nan")


def surface_normals(depth: Floats, focal: tuple[float, float], principal: tuple[float, float]) -> Floats:
    """Returns H x W x 3 unit normals towards the camera, from central differences of the back-projected points."""
    height, width = depth.shape
    rows, columns = np.mgrid[0:height, 0:width]
    rays = np.stack([(columns - principal[0]) / focal[0], (rows - principal[1]) / focal[1], np.ones(depth.shape)], -1)
    points = rays * depth[..., None].astype(np.float64)
    normal = np.cross(np.gradient(points, axis=0), np.gradient(points, axis=1))
    return normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)


def rotation_between(first: Floats, second: Floats) -> Floats:
    """Returns the 3 x 3 turn, in camera coordinates, from pose `first` to pose `second` of a head (3 x 3, head to camera)."""
    return second @ first.T


def angle_between(first: Floats, second: Floats) -> float:
    """Returns the degrees between two rotations."""
    return float(np.degrees(np.arccos(np.clip((np.trace(first.T @ second) - 1) / 2, -1, 1))))


FLOW_SIDE = 128  # Optical flow is computed at this size: it takes a tenth of the time at 256, and heads still move by pixels.
_HEAD = 1.8  # The head with hair and ears is this many times as large as the box of the mesh (forehead to chin).
_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)


def grey(image: Image, side: int = FLOW_SIDE) -> Grey:
    """Returns luma, side x side, from 0 to 255."""
    luma = image.astype(np.float32) @ _WEIGHTS
    return luma if luma.shape == (side, side) else resize(luma, (side, side), order=1, anti_aliasing=True).astype(np.float32)


def flow(before: Grey, after: Grey) -> NDArray[np.float32]:
    """Returns 2 x H x W (rows, columns): where each place of `after` was in `before`, relative to itself."""
    return np.stack(optical_flow_ilk(after / 255, before / 255, radius=7)).astype(np.float32)


def warp_error(before: Grey, after: Grey, motion: NDArray[np.float32]) -> float:
    """Returns the mean absolute difference, 0 to 255, between `after` and `before` moved along `motion`."""
    rows, columns = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in before.shape), indexing="ij")
    moved = warp(before, np.stack([rows, columns]) + motion, order=1, mode="edge", preserve_range=True)
    return float(np.abs(moved - after).mean())


@dataclass(frozen=True)
class Step:
    """What happened between two consecutive frames."""

    motion: NDArray[np.float32]
    """The optical flow between them."""
    error: float
    """Their warp error along that flow."""


def step(before: Image, after: Image, motion: NDArray[np.float32] | None = None) -> Step:
    """Measures the step between two pictures along `motion`, or along their own flow where it is None."""
    a, b = grey(before), grey(after)
    motion = flow(a, b) if motion is None else motion
    return Step(motion, warp_error(a, b, motion))


class Background:
    """Keeps the running mean and variance (Welford) of every pixel's luma over the frames in which it lies outside the head."""

    def __init__(self, side: int) -> None:
        self.count = np.zeros((side, side), np.int32)
        self._mean = np.zeros((side, side), np.float64)
        self._squares = np.zeros((side, side), np.float64)
        self.frames = 0

    def add(self, picture: Image, faces: Iterable[NDArray[np.floating]]) -> None:
        """Adds one frame, with the landmarks (N x >= 2, in pixels) of every face whose head is to be left out."""
        luma = picture.astype(np.float64) @ _WEIGHTS
        outside = np.ones(luma.shape, bool)
        for landmarks in faces:
            outside &= ~head_region(landmarks, luma.shape)
        self.frames += 1
        self.count += outside
        step = np.where(outside, luma - self._mean, 0)
        self._mean += step / np.maximum(self.count, 1)
        self._squares += step * np.where(outside, luma - self._mean, 0)

    def deviation(self) -> float | None:
        """Returns the mean over pixels of the standard deviation over time, 0 to 127.5.

        Pixels count that lie outside heads in at least half of the frames. Returns None when fewer than 2 frames were seen or no pixel
        is left.
        """
        kept = self.count >= max(2, -(-self.frames // 2))
        if self.frames < 2 or not kept.any():
            return None
        return float(np.sqrt(self._squares[kept] / self.count[kept]).mean())


def head_region(landmarks: NDArray[np.floating], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Returns H x W, True where the head is.

    This is the face's box enlarged 1.8 times about its middle, and all rows below the chin, because neck and shoulders move with the head.
    """
    low, high = landmarks[:, :2].min(0), landmarks[:, :2].max(0)
    middle, half = (low + high) / 2, _HEAD * (high - low) / 2
    y, x = np.mgrid[: shape[0], : shape[1]]
    inside = (np.abs(x + 0.5 - middle[0]) <= half[0]) & (np.abs(y + 0.5 - middle[1]) <= half[1])
    return inside | (y + 0.5 > high[1])
