"""A batch depends on seed, step and rank alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dagan.data.batches import Batch, BatchSource
from dagan.data.config import AugmentConfig, DataConfig, PairConfig
from dagan.data.sampling import PairSampler
from dagan.data.store import ClipDataset, open_dataset
from dagan.errors import InputError

CPU = torch.device("cpu")
AUGMENT = AugmentConfig(brightness=0.1, contrast=0.1, saturation=0.1, hue=0.1, zoom=(0.9, 1.1), shift=0.05, rotate=5)
PAIRS = PairConfig(still=0.3)


@pytest.fixture(scope="module")
def config(clips_folder: Path) -> DataConfig:
    return DataConfig(train=clips_folder, size=32, hold_out=0)


@pytest.fixture(scope="module")
def dataset(config: DataConfig) -> ClipDataset:
    return open_dataset(config)


def _source(dataset: ClipDataset, seed: int = 0, rank: int = 0, workers: int = 0) -> BatchSource:
    sampler = PairSampler(dataset, "train", "identity", PAIRS)
    return BatchSource(dataset, sampler, AUGMENT, batch_size=6, seed=seed, device=CPU, rank=rank, pairs=PAIRS, workers=workers)


def _same(first: Batch, second: Batch) -> bool:
    return torch.equal(first.plain, second.plain) and torch.equal(first.jittered, second.jittered)


def test_shape_and_range(dataset: ClipDataset) -> None:
    batch = _source(dataset).at(0)
    assert batch.plain.shape == batch.jittered.shape == (6, 2, 3, 32, 32)
    assert batch.plain.min() >= 0
    assert batch.plain.max() <= 1
    assert batch.plain.max() > 0.3
    assert not torch.equal(batch.plain, batch.jittered)


def test_only_the_step_matters(dataset: ClipDataset) -> None:
    forward = [_source(dataset).at(step) for step in range(4)]
    torch.manual_seed(99)  # the global generator plays no part
    source = _source(dataset)
    backward = [source.at(step) for step in (3, 2, 1, 0)][::-1]
    assert all(map(_same, forward, backward))
    assert not any(_same(forward[i], forward[j]) for i in range(4) for j in range(i))


def test_seeds_and_ranks_differ(dataset: ClipDataset) -> None:
    batches = [_source(dataset, seed, rank).at(5) for seed in (0, 1) for rank in (0, 1)]
    assert not any(_same(batches[i], batches[j]) for i in range(4) for j in range(i))


def test_reading_ahead_from_disk_gives_the_same_batches(config: DataConfig, dataset: ClipDataset) -> None:
    disk = _source(open_dataset(replace(config, storage="disk")), workers=2)
    memory = _source(dataset)
    try:
        # In order, then a jump as after a resume.
        assert all(_same(disk.at(step), memory.at(step)) for step in (0, 1, 2, 3, 10, 11, 4))
    finally:
        disk.close()


def test_errors_of_readers_arrive(config: DataConfig, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(config.train, tmp_path / "clips")
    disk = _source(open_dataset(replace(config, train=folder, storage="disk")), workers=1)
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(InputError, match="does not exist"):
        disk.at(0)
    disk.close()
