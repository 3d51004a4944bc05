"""Batches of training samples. A batch depends only on its step and not on what was drawn before, so a resumed run sees the same.

Colour, mirroring and framing are random, with one draw per sample for all its frames. Frames are float n x k x 3 x H x W in [0, 1].
Numbers are drawn on the CPU, so that every device gets the same pictures.

Legend: n samples, k frames, H W or S S image.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor

from dagan.data.config import AugmentConfig, PairConfig
from dagan.data.landmark_tables import MIRRORED
from dagan.data.sampling import Draw
from dagan.data.store import ClipDataset
from dagan.geometry import ThinPlateTransform, coordinate_grid, inverse_2x2, resize_grid, sample

# Random motions are computed on a grid with this side.
COARSE = 33


def jitter_colours(frames: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Changes brightness, contrast, saturation and hue, in this order. Without changes the frames themselves are returned."""
    if not config.jitters:
        return frames
    from kornia import enhance

    count, k, _, height, width = frames.shape
    # All frames of a sample are put into one tall picture, so that they share the mean grey about which contrast changes.
    tall = frames.transpose(1, 2).reshape(count, 3, k * height, width)
    if config.brightness:
        tall = enhance.adjust_brightness_accumulative(tall, _factors(config.brightness, frames, generator))
    if config.contrast:
        tall = enhance.adjust_contrast_with_mean_subtraction(tall, _factors(config.contrast, frames, generator))
    if config.saturation:
        tall = enhance.adjust_saturation_with_gray_subtraction(tall, _factors(config.saturation, frames, generator))
    if config.hue:
        turns = (_factors(config.hue, frames, generator) - 1) * (2 * torch.pi)
        tall = enhance.adjust_hue(tall, turns)
    return cast(Tensor, tall).reshape(count, 3, k, height, width).transpose(1, 2).clamp(0, 1)


def reframe(
    frames: Tensor,
    config: AugmentConfig,
    generator: torch.Generator,
    still: Tensor | None = None,
    pairs: PairConfig | None = None,
    points: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Mirrors, zooms, shifts and rotates samples. Those marked `still` (n, bool) also get a motion of their own in every frame.

    All changes are one look-up, so that pictures are interpolated only once. Without any framing they are mirrored exactly. `points` are
    landmarks, n x k x P x 2 (see `data.landmark_tables`). They are returned where they are then, and NaN in samples with motions of
    their own.
    """
    count, k, _, height, width = frames.shape
    mirror = torch.rand(count, generator=generator) < config.flip
    matrix = _affine(count, config, generator)
    moved = still is not None and pairs is not None and bool(still.any())
    if not config.moves and not moved:
        place = mirror.to(frames.device)[:, None, None, None, None]
        matrix = torch.eye(2, 3).repeat(count, 1, 1)
        matrix[:, :, 0] *= torch.where(mirror, -1.0, 1.0)[:, None]
        return torch.where(place, frames.flip(-1), frames) if config.flip else frames, _move_points(points, matrix, mirror, None)
    matrix[:, :, 0] *= torch.where(mirror, -1.0, 1.0)[:, None]
    points = _move_points(points, matrix, mirror, still if moved else None)
    grid = coordinate_grid(height, width, device=frames.device).reshape(1, 1, -1, 2).expand(count, k, -1, -1)
    if still is not None and pairs is not None and moved:
        grid = grid.clone()
        places = still.nonzero()[:, 0]
        shaken = _random_motion(len(places) * k, (height, width), pairs, generator)
        grid[places.to(frames.device)] = shaken.reshape(len(places), k, -1, 2).to(frames.device)
    matrix = matrix.to(frames.device)[:, None]
    grid = grid @ matrix[..., :2].transpose(-1, -2) + matrix[:, :, None, :, 2]
    grid = grid.reshape(count * k, height, width, 2)
    return sample(frames.flatten(0, 1), grid, align_corners=True, padding_mode="reflection").reshape(frames.shape), points


def _move_points(points: Tensor | None, matrix: Tensor, mirror: Tensor, lost: Tensor | None) -> Tensor | None:
    """Returns where points of the pictures are moved. `matrix` (n x 2 x 3, on the CPU) says where places of the results look."""
    if points is None:
        return None
    linear, offset = inverse_2x2(matrix[:, :, :2]), matrix[:, :, 2]
    moved = (points.cpu() - offset[:, None, None]) @ linear.transpose(1, 2)[:, None]
    moved = torch.where(mirror[:, None, None, None], moved[:, :, list(MIRRORED)], moved)
    if lost is not None:
        moved[lost.cpu()] = torch.nan
    return moved.to(points.device)


def _random_motion(count: int, size: tuple[int, int], pairs: PairConfig, generator: torch.Generator) -> Tensor:
    """Returns places, count x H x W x 2, after a random thin-plate motion. It is smooth, so it is computed coarsely and enlarged."""
    transform = ThinPlateTransform.random(count, pairs.affine_sigma, pairs.tps_sigma, generator=generator)
    coarse = coordinate_grid(COARSE, COARSE).reshape(1, -1, 2).expand(count, -1, -1)
    return resize_grid(transform.warp_coordinates(coarse).reshape(count, COARSE, COARSE, 2), size, align_corners=True)


def _affine(count: int, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Returns n x 2 x 3 matrices that say where a place of the result looks, in coordinates of [-1, 1]."""
    low, high = config.zoom
    scale = 1 / (low + (high - low) * torch.rand(count, generator=generator))
    angle = torch.deg2rad(config.rotate * _signed(count, generator))
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    # In coordinates, a shift by the whole side is 2.
    shift = 2 * config.shift * torch.stack([_signed(count, generator), _signed(count, generator)], dim=-1)
    turn = torch.stack([torch.stack([cosine, -sine], -1), torch.stack([sine, cosine], -1)], -2)
    return torch.cat([turn, shift[..., None]], dim=-1)


def _signed(count: int, generator: torch.Generator) -> Tensor:
    return 2 * torch.rand(count, generator=generator) - 1


def _factors(amount: float, frames: Tensor, generator: torch.Generator) -> Tensor:
    return (1 + amount * _signed(len(frames), generator)).to(frames.device)


_DRAW, _CHANGE = 0, 1
_Read = tuple[Tensor, Tensor, Tensor | None]


class Sampler(Protocol):
    """Draws numbers of frames."""

    def draw(self, rng: np.random.Generator, count: int, first: int = 0) -> Draw:
        """Draws so many samples. `first` is the number of the first of them within the run, which counts in epochs."""
        ...


@dataclass(frozen=True)
class Batch:
    """A batch of samples."""

    plain: Tensor
    """The frames, float n x k x 3 x S x S in [0, 1], mirrored and framed."""
    jittered: Tensor
    """The same with changed colours, or the same tensor where colours do not change."""
    landmarks: Tensor | None = None
    """n x k x P x 2 in [-1, 1] (see `data.landmark_tables`), NaN where unknown; None where the data set has none."""


def generator_for(seed: int, step: int, rank: int, stream: int) -> np.random.Generator:
    """Returns a generator whose random numbers are independent for each combination."""
    return np.random.default_rng((seed, step, rank, stream))


class BatchSource:
    """Gives the batches of one sampler. `at(step)` may be called for any step; in order, `workers` threads fetch frames ahead.

    Threads suffice, because decoders and colour conversion run outside the interpreter's lock.
    """

    def __init__(
        self, dataset: ClipDataset, sampler: Sampler, augment: AugmentConfig, *, batch_size: int, seed: int,
        device: torch.device, rank: int = 0, ranks: int = 1, pairs: PairConfig | None = None, workers: int = 0,
    ) -> None:  # fmt: skip
        self.dataset, self.sampler, self.augment, self.pairs = dataset, sampler, augment, pairs
        self.batch_size, self.seed, self.rank, self.ranks, self.device = batch_size, seed, rank, ranks, device
        self._origin = (0, 0)
        # Frames in memory need no reading ahead, which would only take a core from training.
        self.workers = workers if dataset.store.waits else 0
        self._pool: ThreadPoolExecutor | None = None
        self._ahead: deque[tuple[int, Future[_Read]]] = deque()

    def continue_from(self, step: int, samples: int) -> None:
        """Tells that all processes together have taken so many samples before this step. It matters where their number has changed."""
        self._origin = (step, samples)

    def at(self, step: int) -> Batch:
        """Returns the batch of this step, on the training device. Raises InputError when a file cannot be decoded."""
        frames, still, points = self._fetch(step)
        numbers = generator_for(self.seed, step, self.rank, _CHANGE)
        generator = torch.Generator().manual_seed(int(numbers.integers(2**62)))
        pictures = frames.to(self.device, non_blocking=True).float().div_(255)
        plain, points = reframe(pictures, self.augment, generator, still, self.pairs, points)
        return Batch(plain, jitter_colours(plain, self.augment, generator), points)

    def close(self) -> None:
        """Stops reading batches ahead."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
            self._ahead.clear()

    def _fetch(self, step: int) -> _Read:
        if self.workers == 0:
            return self._read(step)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.workers, "frames")
        if not self._ahead or self._ahead[0][0] != step:
            for _, waiting in self._ahead:
                waiting.cancel()
            self._ahead.clear()
        first = self._ahead[-1][0] + 1 if self._ahead else step
        for later in range(first, step + 2 * self.workers):
            self._ahead.append((later, self._pool.submit(self._read, later)))
        return self._ahead.popleft()[1].result()

    def _read(self, step: int) -> _Read:
        """Returns uint8 frames, n x k x 3 x S x S, which samples are still, n, and landmarks, n x k x P x 2, if known."""
        since, samples = self._origin
        first = samples + ((step - since) * self.ranks + self.rank) * self.batch_size
        draw = self.sampler.draw(generator_for(self.seed, step, self.rank, _DRAW), self.batch_size, first)
        frames = self.dataset.store.gather(draw.numbers.reshape(-1)).unflatten(0, draw.numbers.shape)
        if self.device.type == "cuda" and frames.device.type == "cpu":
            frames = frames.pin_memory()
        known = self.dataset.landmarks
        points = None if known is None else torch.from_numpy(known[draw.numbers]).to(self.device)
        return frames, torch.from_numpy(draw.still), points
