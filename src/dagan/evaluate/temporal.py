"""Metrics over time: flicker between consecutive frames, and how still the background stays.

Legend: H W picture. Pictures are uint8 H x W x 3.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.registration import optical_flow_ilk
from skimage.transform import resize, warp

Image = NDArray[np.uint8]
Grey = NDArray[np.float32]

FLOW_SIDE = 128  # optical flow at this size: ten times quicker than at 256, and heads move by pixels
_HEAD = 1.8  # the head with hair and ears, in boxes of the mesh (forehead to chin)
_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)


def grey(image: Image, side: int = FLOW_SIDE) -> Grey:
    """side x side luma, 0 to 255."""
    luma = image.astype(np.float32) @ _WEIGHTS
    return luma if luma.shape == (side, side) else resize(luma, (side, side), order=1, anti_aliasing=True).astype(np.float32)


def flow(before: Grey, after: Grey) -> NDArray[np.float32]:
    """2 x H x W (rows, columns): where each place of `after` was in `before`, relative to itself."""
    return np.stack(optical_flow_ilk(after / 255, before / 255, radius=7)).astype(np.float32)


def warp_error(before: Grey, after: Grey, motion: NDArray[np.float32]) -> float:
    """Mean absolute difference, 0 to 255, of `after` and `before` moved along `motion`."""
    rows, columns = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in before.shape), indexing="ij")
    moved = warp(before, np.stack([rows, columns]) + motion, order=1, mode="edge", preserve_range=True)
    return float(np.abs(moved - after).mean())


@dataclass(frozen=True)
class Step:
    """Between two consecutive frames: their flow, and their warp error along it."""

    motion: NDArray[np.float32]
    error: float


def step(before: Image, after: Image, motion: NDArray[np.float32] | None = None) -> Step:
    """Of two pictures along `motion`; along their own flow for None."""
    a, b = grey(before), grey(after)
    motion = flow(a, b) if motion is None else motion
    return Step(motion, warp_error(a, b, motion))


class Background:
    """Running mean and variance (Welford) of every pixel's luma over the frames in which it lies outside the head."""

    def __init__(self, side: int) -> None:
        self.count = np.zeros((side, side), np.int32)
        self._mean = np.zeros((side, side), np.float64)
        self._squares = np.zeros((side, side), np.float64)
        self.frames = 0

    def add(self, picture: Image, faces: Iterable[NDArray[np.floating]]) -> None:
        """One frame, with the landmarks (N x >= 2 pixels) of every face whose head is to be left out."""
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
        """Mean over pixels of the standard deviation over time, 0 to 127.5, of pixels outside in at least half of the frames.

        None when fewer than 2 frames were seen or no pixel is left.
        """
        kept = self.count >= max(2, -(-self.frames // 2))
        if self.frames < 2 or not kept.any():
            return None
        return float(np.sqrt(self._squares[kept] / self.count[kept]).mean())


def head_region(landmarks: NDArray[np.floating], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """H x W, True in the face's box enlarged 1.8 times about its middle, and in all rows below the chin (neck and
    shoulders move with the head)."""
    low, high = landmarks[:, :2].min(0), landmarks[:, :2].max(0)
    middle, half = (low + high) / 2, _HEAD * (high - low) / 2
    y, x = np.mgrid[: shape[0], : shape[1]]
    inside = (np.abs(x + 0.5 - middle[0]) <= half[0]) & (np.abs(y + 0.5 - middle[1]) <= half[1])
    return inside | (y + 0.5 > high[1])
