"""Batches as pure functions of the step: what was drawn before does not matter, so a resumed run sees the same pictures.

Legend: n samples, k frames, S side.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dagan.data.augment import jitter_colours, reframe
from dagan.data.config import AugmentConfig, PairConfig
from dagan.data.sampling import Draw
from dagan.data.store import ClipDataset, DiskStore

_DRAW, _CHANGE = 0, 1
_Read = tuple[Tensor, Tensor, Tensor | None]


class Sampler(Protocol):
    """Draws frame numbers."""

    def draw(self, rng: np.random.Generator, count: int) -> Draw: ...


@dataclass(frozen=True)
class Batch:
    """plain: float n x k x 3 x S x S in [0, 1], mirrored and framed. jittered: the same with changed colours (or the same tensor).

    landmarks: n x k x P x 2 in [-1, 1] (`data.landmarks`), NaN where unknown; None where the data set has none.
    """

    plain: Tensor
    jittered: Tensor
    landmarks: Tensor | None = None


def generator_for(seed: int, step: int, rank: int, stream: int) -> np.random.Generator:
    """Independent random numbers for each combination."""
    return np.random.default_rng((seed, step, rank, stream))


class BatchSource:
    """Batches of one sampler. `at(step)` may be called for any step; in order, `workers` threads fetch frames ahead.

    Threads suffice, because decoders and colour conversion run outside the interpreter's lock.
    """

    def __init__(
        self, dataset: ClipDataset, sampler: Sampler, augment: AugmentConfig, *, batch_size: int, seed: int,
        device: torch.device, rank: int = 0, pairs: PairConfig | None = None, workers: int = 0,
    ) -> None:  # fmt: skip
        self.dataset, self.sampler, self.augment, self.pairs = dataset, sampler, augment, pairs
        self.batch_size, self.seed, self.rank, self.device = batch_size, seed, rank, device
        # Frames in memory are at hand at once: reading ahead would only take a core from training.
        self.workers = workers if isinstance(dataset.store, DiskStore) else 0
        self._pool: ThreadPoolExecutor | None = None
        self._ahead: deque[tuple[int, Future[_Read]]] = deque()

    def at(self, step: int) -> Batch:
        """The batch of this step, on the training device. Raises InputError when a file cannot be decoded."""
        frames, still, points = self._fetch(step)
        numbers = generator_for(self.seed, step, self.rank, _CHANGE)
        generator = torch.Generator().manual_seed(int(numbers.integers(2**62)))
        pictures = frames.to(self.device, non_blocking=True).float().div_(255)
        plain, points = reframe(pictures, self.augment, generator, still, self.pairs, points)
        return Batch(plain, jitter_colours(plain, self.augment, generator), points)

    def close(self) -> None:
        """Ends reading ahead."""
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
        """uint8 frames n x k x 3 x S x S, which samples are still, n, and landmarks, if known, n x k x P x 2."""
        draw = self.sampler.draw(generator_for(self.seed, step, self.rank, _DRAW), self.batch_size)
        frames = self.dataset.store.gather(draw.numbers.reshape(-1)).unflatten(0, draw.numbers.shape)
        if self.device.type == "cuda" and frames.device.type == "cpu":
            frames = frames.pin_memory()
        known = self.dataset.landmarks
        points = None if known is None else torch.from_numpy(known[draw.numbers]).to(self.device)
        return frames, torch.from_numpy(draw.still), points
