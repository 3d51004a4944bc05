"""Metrics between images, between landmarks and between depth maps; and over time, flicker and steadiness of the background.

Images are in [0, 1], so every data range is 1 unless a caller repeats old figures. Metrics over time take pictures, uint8 H x W x 3.
Legend: B batch, H W image, N landmarks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity
from skimage.registration import optical_flow_ilk
from skimage.transform import resize, warp
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure, peak_signal_noise_ratio

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


Image = NDArray[np.uint8]
Grey = NDArray[np.float32]

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
