"""Batches as pure functions of the step: what was drawn before does not matter, so a resumed run sees the same pictures.

Legend: n samples, k frames, S side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dagan.data.augment import jitter_colours, reframe
from dagan.data.config import AugmentConfig, PairConfig
from dagan.data.sampling import Draw
from dagan.data.store import ClipDataset, DiskStore

_DRAW, _CHANGE = 0, 1


class Sampler(Protocol):
    """Draws frame numbers."""

    def draw(self, rng: np.random.Generator, count: int) -> Draw: ...


@dataclass(frozen=True)
class Batch:
    """plain: float n x k x 3 x S x S in [0, 1], mirrored and framed. jittered: the same with changed colours (or the same tensor)."""

    plain: Tensor
    jittered: Tensor


def generator_for(seed: int, step: int, rank: int, stream: int) -> np.random.Generator:
    """Independent random numbers for each combination."""
    return np.random.default_rng((seed, step, rank, stream))


class BatchSource:
    """Batches of one sampler. `at(step)` may be called for any step; in order is fastest when frames are read from disk."""

    def __init__(
        self, dataset: ClipDataset, sampler: Sampler, augment: AugmentConfig, *, batch_size: int, seed: int,
        device: torch.device, rank: int = 0, pairs: PairConfig | None = None, workers: int = 0,
    ) -> None:  # fmt: skip
        self.raw = _RawBatches(dataset, sampler, batch_size, seed, rank)
        self.augment, self.pairs = augment, pairs
        self.seed, self.rank, self.device = seed, rank, device
        self.workers = workers if isinstance(dataset.store, DiskStore) else 0
        self._ahead: Iterator[tuple[int, Tensor, Tensor]] | None = None
        self._next = -1

    def at(self, step: int) -> Batch:
        """The batch of this step, on the training device."""
        frames, still = self._fetch(step)
        numbers = generator_for(self.seed, step, self.rank, _CHANGE)
        generator = torch.Generator().manual_seed(int(numbers.integers(2**62)))
        pictures = frames.to(self.device, non_blocking=True).float().div_(255)
        plain = reframe(pictures, self.augment, generator, still, self.pairs)
        return Batch(plain, jitter_colours(plain, self.augment, generator))

    def _fetch(self, step: int) -> tuple[Tensor, Tensor]:
        if self.workers == 0:
            _, frames, still = self.raw[step]
            return frames, still
        if self._ahead is None or step != self._next:
            self._ahead = self._read_ahead(step)
        found, frames, still = next(self._ahead)
        assert found == step
        self._next = step + 1
        return frames, still

    def _read_ahead(self, start: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        steps = range(start, 2**62)
        # Fork is unsafe beside running threads, and not to be had on every system.
        loader: DataLoader[tuple[int, Tensor, Tensor]] = DataLoader(
            self.raw, batch_size=None, sampler=steps, num_workers=self.workers, multiprocessing_context="spawn",
            pin_memory=self.device.type == "cuda",
        )  # fmt: skip
        return iter(loader)


class _RawBatches(Dataset[tuple[int, Tensor, Tensor]]):
    """step -> (step, uint8 frames n x k x 3 x S x S, still n)."""

    def __init__(self, dataset: ClipDataset, sampler: Sampler, batch_size: int, seed: int, rank: int) -> None:
        self.dataset, self.sampler = dataset, sampler
        self.batch_size, self.seed, self.rank = batch_size, seed, rank

    def __getitem__(self, step: int) -> tuple[int, Tensor, Tensor]:
        draw = self.sampler.draw(generator_for(self.seed, step, self.rank, _DRAW), self.batch_size)
        frames = self.dataset.store.gather(draw.numbers.reshape(-1))
        return step, frames.unflatten(0, draw.numbers.shape), torch.from_numpy(draw.still)
