"""Epochs: every clip once, whoever takes which, and nothing lost or repeated where a run is resumed, by more or fewer processes too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dagan.data.batches import BatchSource
from dagan.data.config import NO_AUGMENT, DataConfig, PairConfig, TripletConfig
from dagan.data.sampling import EpochOrder, PairSampler, TripletSampler
from dagan.data.shards import WINDOW
from dagan.data.store import ClipDataset, open_dataset
from dagan.errors import InputError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(clips_folder: Path) -> ClipDataset:
    return open_dataset(DataConfig(train=clips_folder, size=32, hold_out=0, order="epochs", balance="clip"))


class Noting:
    """A sampler that notes which clips were drawn."""

    def __init__(self, data: ClipDataset) -> None:
        self.data, self.sampler = data, PairSampler(data, "train", "clip", PairConfig(), epochs=3)
        self.drawn: list[int] = []

    def draw(self, rng: np.random.Generator, count: int, first: int = 0):
        drawn = self.sampler.draw(rng, count, first)
        owner = np.searchsorted(self.data.start, drawn.numbers, side="right") - 1
        assert (owner[:, 0] == owner[:, 1]).all()
        self.drawn += owner[:, 0].tolist()
        return drawn


def _sources(data: ClipDataset, ranks: int) -> list[tuple[BatchSource, Noting]]:
    notings = [Noting(data) for _ in range(ranks)]
    return [
        (BatchSource(data, noting, NO_AUGMENT, batch_size=2, seed=3, device=CPU, rank=rank, ranks=ranks), noting)
        for rank, noting in enumerate(notings)
    ]


def test_two_processes_take_every_clip_once_an_epoch(data: ClipDataset) -> None:
    for epochs in (1, 3):
        sources = _sources(data, 2)
        for step in range(2 * epochs):
            for source, _ in sources:
                source.at(step)
        drawn = np.bincount([clip for _, noting in sources for clip in noting.drawn])
        assert drawn.tolist() == [epochs] * 8


def test_a_run_goes_on_within_an_epoch_with_another_number_of_processes(data: ClipDataset) -> None:
    pair, alone = _sources(data, 2), _sources(data, 1)[0]
    for source, _ in pair:
        source.at(0)  # Together they take four of the eight clips, and then a process is killed.
    alone[0].continue_from(1, 4)
    alone[0].at(1)
    alone[0].at(2)
    assert sorted([clip for _, noting in (*pair, alone) for clip in noting.drawn]) == list(range(8))


def test_epochs_differ_and_follow_from_the_seed() -> None:
    clips, shard = np.arange(0, 200, 2), np.repeat(np.arange(20), 5)
    order = EpochOrder(clips, shard, 0)
    first, second = order.at(np.arange(100)), order.at(np.arange(100, 200))
    assert sorted(first) == sorted(second) == clips.tolist()
    assert (first != second).any()
    again = EpochOrder(clips, shard, 0)
    assert again.at(np.asarray([150, 3])).tolist() == [second[50], first[3]]
    assert (EpochOrder(clips, shard, 1).at(np.arange(100)) != first).any()


def test_only_some_shards_are_needed_at_a_time() -> None:
    clips, shard = np.arange(100), np.repeat(np.arange(20), 5)
    order = EpochOrder(clips, shard, 0)
    for place in range(150):
        soon = order.shards_after(place)
        assert shard[order.at(np.asarray([place]))[0]] in soon[:WINDOW]
        assert len(soon) <= 2 * WINDOW
        # The last window of an epoch has four shards, of five clips each.
        assert set(shard[order.at(np.arange(place, place + 20))]) <= set(soon)


def test_triplets_of_an_epoch_try_several_of_the_same_clip(data: ClipDataset) -> None:
    sampler = TripletSampler(data, "train", "clip", TripletConfig(min_motion=0.5), epochs=0)
    numbers = sampler.draw(np.random.default_rng(0), 8, 8).numbers
    assert sorted(np.searchsorted(data.start, numbers[:, 0], side="right") - 1) == list(range(8))


def test_what_contradicts_epochs_is_refused(clips_folder: Path, data: ClipDataset) -> None:
    with pytest.raises(InputError, match="must be clip, because an epoch has every clip once"):
        DataConfig(train=clips_folder, order="epochs")
    with pytest.raises(InputError, match="draws some clips more often"):
        PairSampler(data, "train", "clip", PairConfig(lively=0.5), epochs=0)
