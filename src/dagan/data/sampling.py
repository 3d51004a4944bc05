"""Draws numbers of frames: triplets for stage 1, pairs for stage 2. Equal generators give equal draws.

Clips are drawn with repetition, or in epochs. Which clip comes at which place of an epoch depends on the seed and the place alone.
Processes that take different places therefore repeat and lose nothing, and a run that is resumed goes on within an epoch.

Legend: n samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from dagan.data.config import Balance, PairConfig, TripletConfig
from dagan.data.landmark_tables import Points, measured, spread_of
from dagan.data.shards import WINDOW, ShardStore
from dagan.data.store import ClipDataset, Numbers
from dagan.errors import InputError

# So many triplets are tried before the liveliest of them is taken, and from so many driving frames an expressive pair takes one.
ATTEMPTS = 8
_EPOCH = 30  # This numbers a stream of random numbers; it differs from those of `data.batches` and `train.labels`.


@dataclass(frozen=True)
class Draw:
    """What was drawn."""

    numbers: Numbers
    """n x k numbers of frames."""
    still: NDArray[np.bool_]
    """Which of the n samples are one picture that is to be moved at random."""


class EpochOrder:
    """Puts clips into an order in which each comes once an epoch.

    Clips of `data.shards.WINDOW` shards are mixed before those of the next ones come, so that shards can be fetched one after the other.
    The order of shards differs from epoch to epoch.
    """

    def __init__(self, clips: Numbers, shard: Numbers, seed: int) -> None:
        """`clips` are numbers of clips, and `shard` says in which shard each of them is."""
        self.clips, self.seed = clips, seed
        order = np.argsort(shard, kind="stable")
        self._shards, begin = np.unique(shard[order], return_index=True)
        self._groups = np.split(clips[order], begin[1:])
        self._latest: dict[int, tuple[Numbers, Numbers, Numbers]] = {}

    def at(self, places: Numbers) -> Numbers:
        """Returns the clips at these places, counted from the first of the first epoch on."""
        epochs, within = np.divmod(places, len(self.clips))
        return np.asarray([self._epoch(e)[0][w] for e, w in zip(epochs.tolist(), within.tolist(), strict=True)], np.int64)

    def shards_after(self, place: int) -> list[int]:
        """Returns the shards of the window at a place and of the one after it, in the order in which they are needed."""
        epoch, within = divmod(place, len(self.clips))
        _, shards, begin = self._epoch(epoch)
        window = int(np.searchsorted(begin, within, side="right")) - 1
        wanted = shards[window * WINDOW : (window + 2) * WINDOW]
        if len(wanted) < 2 * WINDOW:
            wanted = np.concatenate([wanted, self._epoch(epoch + 1)[1][: 2 * WINDOW - len(wanted)]])
        return list(dict.fromkeys(wanted.tolist()))

    def _epoch(self, epoch: int) -> tuple[Numbers, Numbers, Numbers]:
        """Returns the clips of an epoch, its shards, and the place at which each window of shards begins."""
        found = self._latest.get(epoch)
        if found is None:
            rng = np.random.default_rng((self.seed, epoch, _EPOCH))
            groups = rng.permutation(len(self._groups))
            windows = [np.concatenate([self._groups[g] for g in groups[i : i + WINDOW]]) for i in range(0, len(groups), WINDOW)]
            begin = np.cumsum([0, *(len(window) for window in windows)])[:-1]
            found = np.concatenate([rng.permutation(window) for window in windows]), self._shards[groups], begin
            # Other threads may read meanwhile, so the table is replaced and not changed.
            self._latest = {**dict(list(self._latest.items())[-2:]), epoch: found}
        return found


class ClipChooser:
    """Draws clips of a split that have at least `shortest` frames, evenly by identity, clip or second, or in epochs."""

    def __init__(
        self, dataset: ClipDataset, split: str, balance: Balance, shortest: int, weight_of: NDArray[np.float64] | None = None,
        epochs: int | None = None,
    ) -> None:  # fmt: skip
        """`weight_of` says how often each clip of the dataset is drawn, relative to the balance. `epochs` is the seed of epochs."""
        members = dataset.members(split)
        self.members = members[dataset.count[members] >= shortest]
        if not len(self.members):
            raise InputError(f"no {split} clip has {shortest} frames or more: add longer clips, or set data.hold_out to 0")
        weight = self._weights(dataset, balance) * (1.0 if weight_of is None else weight_of[self.members])
        self.cumulative = np.cumsum(weight) / weight.sum()
        self.store = dataset.store
        shard = np.zeros(len(self.members), np.int64) if dataset.shard is None else dataset.shard[self.members]
        self.order = None if epochs is None else EpochOrder(self.members, shard, epochs)

    def _weights(self, dataset: ClipDataset, balance: Balance) -> NDArray[np.float64]:
        if balance == "clip":
            return np.ones(len(self.members))
        seconds = dataset.count[self.members] / dataset.rate[self.members]
        if balance == "seconds":
            return seconds
        names = np.asarray([dataset.clips[i].identity for i in self.members])
        _, owner = np.unique(names, return_inverse=True)
        return seconds / np.bincount(owner, weights=seconds)[owner]

    def draw(self, rng: np.random.Generator, count: int, first: int = 0) -> Numbers:
        """Draws numbers of clips, with repetition. In epochs it takes those at the places from `first` on."""
        if self.order is not None:
            if isinstance(self.store, ShardStore):
                self.store.expect(self.order.shards_after(first))
            return self.order.at(np.arange(first, first + count))
        places = np.searchsorted(self.cumulative, rng.random(count), side="right")
        return self.members[np.minimum(places, len(self.members) - 1)]


class TripletSampler:
    """Draws frames (t - g, t, t + g) of one clip, n x 3."""

    def __init__(self, dataset: ClipDataset, split: str, balance: Balance, config: TripletConfig, epochs: int | None = None) -> None:
        """`epochs` is the seed of epochs; None draws with repetition."""
        self.dataset, self.config = dataset, config
        self.chooser = ClipChooser(dataset, split, balance, 3, epochs=epochs)
        if config.min_motion > 0 and dataset.thumbnails is None:
            raise InputError("sampling.min_motion needs decoded clips: set data.storage to memory or device, or min_motion to 0")

    def draw(self, rng: np.random.Generator, count: int, first: int = 0) -> Draw:
        """Draws `count` triplets. With min_motion each is the first of several tried ones in which both neighbours moved enough.

        Those that are tried are of any clips, or in epochs of the same clip.
        """
        attempts = ATTEMPTS if self.config.min_motion > 0 else 1
        if self.chooser.order is None:
            clips = self.chooser.draw(rng, count * attempts)
        else:
            clips = np.repeat(self.chooser.draw(rng, count, first), attempts)
        numbers = self._triplets(rng, clips)
        if attempts > 1:
            motion = self._motion(numbers).reshape(count, attempts)
            enough = motion >= self.config.min_motion
            choice = np.where(enough.any(1), enough.argmax(1), motion.argmax(1))
            numbers = numbers.reshape(count, attempts, 3)[np.arange(count), choice]
        return Draw(numbers, np.zeros(count, bool))

    def _triplets(self, rng: np.random.Generator, clips: Numbers) -> Numbers:
        length = self.dataset.count[clips]
        gap = np.minimum(rng.integers(self.config.gap[0], self.config.gap[1] + 1, len(clips)), (length - 1) // 2)
        middle = self.dataset.start[clips] + gap + rng.integers(0, length - 2 * gap)
        return np.stack([middle - gap, middle, middle + gap], axis=1)

    def _motion(self, numbers: Numbers) -> NDArray[np.float64]:
        """Returns the smaller of the two mean absolute differences to the middle frame, from 0 to 1."""
        assert self.dataset.thumbnails is not None
        pictures = self.dataset.thumbnails[numbers].astype(np.float32) / 255
        difference = np.abs(pictures[:, [0, 2]] - pictures[:, 1:2]).mean((2, 3))
        return difference.min(1).astype(np.float64)


class PairSampler:
    """Draws (source, driving) frames, n x 2: two frames of one clip, or twice the same picture for a still pair."""

    def __init__(self, dataset: ClipDataset, split: str, balance: Balance, config: PairConfig, epochs: int | None = None) -> None:
        """`epochs` is the seed of epochs; None draws with repetition."""
        self.dataset, self.config = dataset, config
        self.chooser = ClipChooser(dataset, split, balance, 2, epochs=epochs)
        self.portraits = dataset.members(split, still=True)
        self.deviation: Points | None = None
        self.lively: ClipChooser | None = None
        if epochs is not None and config.lively > 0:
            raise InputError("sampling.lively draws some clips more often than others: set it to 0, or data.order to random")
        for name in ("expressive", "lively"):
            if getattr(config, name) > 0 and dataset.landmarks is None:
                raise InputError(f"sampling.{name} needs landmarks: set data.landmarks to true, or sampling.{name} to 0")
        if dataset.landmarks is not None and (config.expressive > 0 or config.lively > 0):
            spread = dataset.spread
            if spread is None:  # Clips that gave fewer frames than they have numbers leave gaps at their ends.
                spread = spread_of(cast(Points, dataset.landmarks), np.diff(dataset.start, append=len(dataset.landmarks)).tolist())
            self.deviation = spread.deviation
            if config.lively > 0:
                # A clip is drawn by the mean over its expressions of how much they vary, and almost never if its face does not move.
                lively = np.maximum((spread.clips / spread.deviation).mean(1, dtype=np.float64), 1e-6)
                self.lively = ClipChooser(dataset, split, balance, 2, lively)

    def draw(self, rng: np.random.Generator, count: int, first: int = 0) -> Draw:
        """Draws `count` pairs. In epochs they are of the clips at the places from `first` on."""
        clips = self.chooser.draw(rng, count, first)
        if self.lively is not None:
            clips = np.where(rng.random(count) < self.config.lively, self.lively.draw(rng, count), clips)
        length = self.dataset.count[clips]
        source = rng.integers(0, length)
        # The driving frame is any other frame; all are equally likely.
        driving = (source + 1 + rng.integers(0, length - 1)) % length
        if self.deviation is not None and self.config.expressive > 0:
            driving = self._expressive(rng, clips, source, driving, self.deviation)
        numbers = self.dataset.start[clips][:, None] + np.stack([source, driving], axis=1)
        still = rng.random(count) < self.config.still
        from_portraits = still & (rng.random(count) < self.config.portrait)
        if len(self.portraits):
            chosen = self.portraits[rng.integers(0, len(self.portraits), count)]
            numbers[from_portraits, 0] = self.dataset.start[chosen][from_portraits]
        numbers[still, 1] = numbers[still, 0]
        return Draw(numbers, still)

    def _expressive(self, rng: np.random.Generator, clips: Numbers, source: Numbers, driving: Numbers, deviation: Points) -> Numbers:
        """Returns the driving frames (n), some replaced by ones that differ more from the source's (see `PairConfig.expressive`)."""
        assert self.dataset.landmarks is not None
        count, length, start = len(clips), self.dataset.count[clips], self.dataset.start[clips]
        tried = (source[:, None] + 1 + rng.integers(0, (length - 1)[:, None], (count, ATTEMPTS))) % length[:, None]
        seen = start[:, None] + np.concatenate([source[:, None], tried], axis=1)
        points = self.dataset.landmarks[seen.reshape(-1)]
        measures = np.nan_to_num(measured(points) / deviation).reshape(count, 1 + ATTEMPTS, -1)
        chosen = measures[np.arange(count), :, rng.integers(0, measures.shape[2], count)]
        best = tried[np.arange(count), np.abs(chosen[:, 1:] - chosen[:, :1]).argmax(1)]
        return np.where(rng.random(count) < self.config.expressive, best, driving)
