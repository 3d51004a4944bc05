"""Draws numbers of frames: triplets for stage 1, pairs for stage 2. Equal generators give equal draws. Legend: n samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dagan.data.config import Balance, PairConfig, TripletConfig
from dagan.data.landmark_tables import POINTS
from dagan.data.store import ClipDataset, Numbers
from dagan.errors import InputError
from dagan.media.expression import expressions

# So many triplets are tried before the liveliest of them is taken, and from so many driving frames an expressive pair takes one.
ATTEMPTS = 8


@dataclass(frozen=True)
class Draw:
    """What was drawn."""

    numbers: Numbers
    """n x k numbers of frames."""
    still: NDArray[np.bool_]
    """Which of the n samples are one picture that is to be moved at random."""


class ClipChooser:
    """Draws clips of a split that have at least `shortest` frames, evenly by identity, clip or second."""

    def __init__(
        self, dataset: ClipDataset, split: str, balance: Balance, shortest: int, weight_of: NDArray[np.float64] | None = None
    ) -> None:
        """`weight_of` says how often each clip of the dataset is drawn, relative to the balance."""
        members = dataset.members(split)
        self.members = members[dataset.count[members] >= shortest]
        if not len(self.members):
            raise InputError(f"no {split} clip has {shortest} frames or more: add longer clips, or set data.hold_out to 0")
        weight = self._weights(dataset, balance) * (1.0 if weight_of is None else weight_of[self.members])
        self.cumulative = np.cumsum(weight) / weight.sum()

    def _weights(self, dataset: ClipDataset, balance: Balance) -> NDArray[np.float64]:
        if balance == "clip":
            return np.ones(len(self.members))
        seconds = dataset.count[self.members] / dataset.rate[self.members]
        if balance == "seconds":
            return seconds
        names = np.asarray([dataset.clips[i].identity for i in self.members])
        _, owner = np.unique(names, return_inverse=True)
        return seconds / np.bincount(owner, weights=seconds)[owner]

    def draw(self, rng: np.random.Generator, count: int) -> Numbers:
        """Draws numbers of clips, with repetition."""
        places = np.searchsorted(self.cumulative, rng.random(count), side="right")
        return self.members[np.minimum(places, len(self.members) - 1)]


class TripletSampler:
    """Draws frames (t - g, t, t + g) of one clip, n x 3."""

    def __init__(self, dataset: ClipDataset, split: str, balance: Balance, config: TripletConfig) -> None:
        self.dataset, self.config = dataset, config
        self.chooser = ClipChooser(dataset, split, balance, 3)
        if config.min_motion > 0 and dataset.thumbnails is None:
            raise InputError("sampling.min_motion needs decoded clips: set data.storage to memory or device, or min_motion to 0")

    def draw(self, rng: np.random.Generator, count: int) -> Draw:
        """Draws `count` triplets. With min_motion each is the first of several tried ones in which both neighbours moved enough."""
        attempts = ATTEMPTS if self.config.min_motion > 0 else 1
        numbers = self._triplets(rng, count * attempts)
        if attempts > 1:
            motion = self._motion(numbers).reshape(count, attempts)
            enough = motion >= self.config.min_motion
            choice = np.where(enough.any(1), enough.argmax(1), motion.argmax(1))
            numbers = numbers.reshape(count, attempts, 3)[np.arange(count), choice]
        return Draw(numbers, np.zeros(count, bool))

    def _triplets(self, rng: np.random.Generator, count: int) -> Numbers:
        clips = self.chooser.draw(rng, count)
        length = self.dataset.count[clips]
        gap = np.minimum(rng.integers(self.config.gap[0], self.config.gap[1] + 1, count), (length - 1) // 2)
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

    def __init__(self, dataset: ClipDataset, split: str, balance: Balance, config: PairConfig) -> None:
        self.dataset, self.config = dataset, config
        self.chooser = ClipChooser(dataset, split, balance, 2)
        self.portraits = dataset.members(split, still=True)
        self.expressions: NDArray[np.float32] | None = None
        self.lively: ClipChooser | None = None
        for name in ("expressive", "lively"):
            if getattr(config, name) > 0 and dataset.landmarks is None:
                raise InputError(f"sampling.{name} needs landmarks: set data.landmarks to true, or sampling.{name} to 0")
        if dataset.landmarks is not None and (config.expressive > 0 or config.lively > 0):
            points = dataset.landmarks
            measures = expressions(lambda mesh: points[:, POINTS.index(mesh)])
            deviation = np.nanstd(measures, axis=0) if np.isfinite(measures).any() else np.ones(measures.shape[1], np.float32)
            self.expressions = np.nan_to_num(measures / np.maximum(deviation, 1e-6))
            if config.lively > 0:
                self.lively = ClipChooser(dataset, split, balance, 2, self._liveliness(self.expressions))

    def draw(self, rng: np.random.Generator, count: int) -> Draw:
        """Draws `count` pairs."""
        clips = self.chooser.draw(rng, count)
        if self.lively is not None:
            clips = np.where(rng.random(count) < self.config.lively, self.lively.draw(rng, count), clips)
        length = self.dataset.count[clips]
        first = rng.integers(0, length)
        # The driving frame is any other frame; all are equally likely.
        second = (first + 1 + rng.integers(0, length - 1)) % length
        if self.expressions is not None and self.config.expressive > 0:
            second = self._expressive(rng, clips, first, second)
        numbers = self.dataset.start[clips][:, None] + np.stack([first, second], axis=1)
        still = rng.random(count) < self.config.still
        from_portraits = still & (rng.random(count) < self.config.portrait)
        if len(self.portraits):
            chosen = self.portraits[rng.integers(0, len(self.portraits), count)]
            numbers[from_portraits, 0] = self.dataset.start[chosen][from_portraits]
        numbers[still, 1] = numbers[still, 0]
        return Draw(numbers, still)

    def _liveliness(self, expressions: NDArray[np.float32]) -> NDArray[np.float64]:
        """Returns how much each clip's face moves: the mean over measures of their standard deviation, and almost 0 for single frames."""
        start, count = self.dataset.start, self.dataset.count
        spread = [expressions[s : s + n].std(0).mean() if n > 1 else 0.0 for s, n in zip(start, count, strict=True)]
        return np.maximum(np.asarray(spread, np.float64), 1e-6)

    def _expressive(self, rng: np.random.Generator, clips: Numbers, first: Numbers, second: Numbers) -> Numbers:
        """Returns the driving frames (n), some replaced by ones that differ more from the source's (see `PairConfig.expressive`)."""
        assert self.expressions is not None
        count, length, start = len(clips), self.dataset.count[clips], self.dataset.start[clips]
        tried = (first[:, None] + 1 + rng.integers(0, (length - 1)[:, None], (count, ATTEMPTS))) % length[:, None]
        measure = rng.integers(0, self.expressions.shape[1], count)
        source = self.expressions[start + first, measure]
        differs = np.abs(self.expressions[start[:, None] + tried, measure[:, None]] - source[:, None])
        best = tried[np.arange(count), differs.argmax(1)]
        return np.where(rng.random(count) < self.config.expressive, best, second)
