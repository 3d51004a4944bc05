"""Depth of training frames, found from many frames of their clips (`train.views`), for the depth network to learn from.

Legend: N labelled frames, n samples, S side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dagan.config import STRICT
from dagan.data.augment import jitter_colours, reframe
from dagan.data.batches import generator_for
from dagan.data.config import AugmentConfig
from dagan.data.sampling import ClipChooser
from dagan.data.store import ClipDataset, Numbers
from dagan.errors import InputError
from dagan.media.output import atomic_output
from dagan.train.depth import LabelledBatch
from dagan.train.views import LEAST_VIEWS, depth_from_views

# Frames whose depth is found together: with their views they take some 0.2 GB at 128 x 128.
TOGETHER = 8
# Streams of random numbers, apart from those of `data.batches`.
_CHOOSE, _DRAW, _CHANGE = 10, 11, 12
# Of frames and of a neighbour of each (n x 3 x S x S): inverse depth n x 1 x S x S; focal and principal of the camera, both n x 2.
Guess = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """The second part of stage 1: learning from depth that many frames of a clip agree on.

    rounds: how often it is found anew, with the averaged network of that moment; 0 leaves this part out.
    start: share of training after which the first round begins; the others follow evenly.
    frames: how many frames get depth in a round, in each process. More take longer, fewer are learnt by heart.
    step, reach: views are step, 2 step, ... reach step frames away, in both directions.
    """

    __pydantic_config__ = STRICT
    rounds: int = 0
    start: float = 0.4
    frames: int = 1000
    step: int = 4
    reach: int = 24

    def __post_init__(self) -> None:
        for name in ("frames", "step", "reach"):
            if getattr(self, name) < 1:
                raise InputError(f"views {name} is {getattr(self, name)}: must be at least 1")
        if self.rounds < 0:
            raise InputError(f"views rounds is {self.rounds}: must not be negative")
        if not 0 <= self.start < 1:
            raise InputError(f"views start is {self.start}: must be at least 0 and below 1")

    def round_of(self, step: int, max_steps: int) -> tuple[int, bool]:
        """Round to which a step belongs, from 0 up, -1 before the first; and whether it is the round's first step."""
        bounds = [round(max_steps * (self.start + (1 - self.start) * r / self.rounds)) for r in range(self.rounds)]
        current = sum(step >= bound for bound in bounds) - 1
        return current, step in bounds


@dataclass(frozen=True)
class Labels:
    """round: which. numbers: N frame numbers. inverse: float16 N x 1 x S x S, relative inverse depth (`train.views`), on the CPU."""

    round: int
    numbers: Numbers
    inverse: Tensor

    def save(self, path: Path) -> None:
        """Writes beside and renames."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_output(path, overwrite=True) as partial, partial.open("wb") as out:
            np.savez(out, round=self.round, numbers=self.numbers, inverse=self.inverse.numpy())

    @classmethod
    def load(cls, path: Path) -> Labels | None:
        """None where there is no file."""
        if not path.is_file():
            return None
        with np.load(path) as file:
            return cls(int(file["round"]), file["numbers"], torch.from_numpy(file["inverse"]))


def find_labels(
    dataset: ClipDataset, chooser: ClipChooser, config: ViewsConfig, round_: int, guess: Guess,
    *, seed: int, rank: int, device: torch.device,
) -> Labels:  # fmt: skip
    """Labels of `config.frames` training frames, fewer where clips turn too little. Raises InputError where none turns enough."""
    rng = generator_for(seed, round_, rank, _CHOOSE)
    clips = chooser.draw(rng, config.frames)
    places = rng.integers(0, dataset.count[clips])
    offsets = config.step * np.arange(1, config.reach + 1)
    offsets = np.concatenate([offsets, -offsets])
    numbers, maps = [], []
    for first in range(0, config.frames, TOGETHER):
        clip, place = clips[first : first + TOGETHER], places[first : first + TOGETHER]
        beside = place[:, None] + offsets
        last = dataset.count[clip] - 1
        present = (beside >= 0) & (beside <= last[:, None])
        start = dataset.start[clip]
        wanted = start[:, None] + np.clip(np.concatenate([place[:, None], beside], axis=1), 0, last[:, None])
        pictures = _pictures(dataset, wanted.reshape(-1), device).unflatten(0, wanted.shape)
        frame, views = pictures[:, 0], pictures[:, 1:]
        found = depth_from_views(frame, views, torch.from_numpy(present).to(device), *guess(frame, views[:, 0]))
        usable = found.usable.cpu()
        numbers.append((start + place)[usable.numpy()])
        maps.append(found.inverse.cpu()[usable].half())
    kept = np.concatenate(numbers)
    if not len(kept):
        raise InputError(
            f"no training clip has {LEAST_VIEWS} frames whose head has turned by 3 to 18 degrees from another: set views.rounds to 0, "
            "or add clips in which heads turn"
        )
    return Labels(round_, kept, torch.cat(maps))


def labelled_batch(
    labels: Labels, dataset: ClipDataset, augment: AugmentConfig, count: int, *, seed: int, step: int, rank: int, device: torch.device
) -> LabelledBatch:
    """A batch as a function of its numbers, mirrored, framed and coloured as `augment` says."""
    chosen = generator_for(seed, step, rank, _DRAW).integers(0, len(labels.numbers), count)
    frames = _pictures(dataset, labels.numbers[chosen], device)
    maps = labels.inverse[torch.from_numpy(chosen)].to(device).float()
    generator = torch.Generator().manual_seed(int(generator_for(seed, step, rank, _CHANGE).integers(2**62)))
    # The map goes along as if it were a second frame.
    both, _ = reframe(torch.stack([frames, maps.expand_as(frames)], dim=1), augment, generator)
    seen = jitter_colours(both[:, :1], augment, generator)
    return LabelledBatch(seen[:, 0], both[:, 1, :1])


def _pictures(dataset: ClipDataset, numbers: Numbers, device: torch.device) -> Tensor:
    return dataset.store.gather(numbers).to(device, non_blocking=True).float().div_(255)
