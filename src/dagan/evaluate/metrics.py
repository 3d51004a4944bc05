"""Metrics between images, landmarks, depth maps. Images are in [0, 1], so every data range is 1 unless a caller repeats old figures.

Legend: B batch, H W image, N landmarks.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure, peak_signal_noise_ratio

MS_SSIM_SMALLEST = 176


def l1(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference per image, B values in [0, 1]; lower is better."""
    return (a - b).abs().mean((1, 2, 3))


def psnr(a: Tensor, b: Tensor, data_range: float = 1.0) -> Tensor:
    """Peak signal to noise ratio per image in dB; higher is better. data_range 2 gives 6.02 dB more, as some published figures do."""
    return peak_signal_noise_ratio(a, b, data_range=data_range, reduction="none", dim=(1, 2, 3))


def ssim(a: Tensor, b: Tensor, data_range: float = 1.0) -> Tensor:
    """Structural similarity per image (11 x 11 Gaussian, sigma 1.5), at most 1; higher is better. data_range 2 flatters."""
    settings = {"data_range": data_range, "channel_axis": 0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    images = ((x.cpu().double().numpy(), y.cpu().double().numpy()) for x, y in zip(a, b, strict=True))
    return torch.tensor([structural_similarity(x, y, **settings) for x, y in images])


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Multi-scale structural similarity per image (Wang et al. 2003: five scales), data range 1, 0 to 1; higher is better.

    Sides must measure at least `MS_SSIM_SMALLEST` pixels, or the coarsest scale is smaller than the window.
    """
    return multiscale_structural_similarity_index_measure(a, b, data_range=1.0, reduction="none")


def landmark_distance(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Mean distance of corresponding landmarks (N x >= 2) in the plane, in their unit (pixels)."""
    return float(np.linalg.norm(a[:, :2] - b[:, :2], axis=1).mean())


def depth_rank_correlation(disparity: NDArray[np.floating], landmarks: NDArray[np.floating]) -> float:
    """Spearman correlation, in [-1, 1], of disparity (H x W, near = large) at mesh landmarks (N x 3, pixels; z grows away
    from the camera) with -z. Landmarks outside the image are left out."""
    height, width = disparity.shape
    x, y = np.rint(landmarks[:, 0]).astype(int), np.rint(landmarks[:, 1]).astype(int)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return float(spearmanr(disparity[y[inside], x[inside]], -landmarks[inside, 2]).statistic)
