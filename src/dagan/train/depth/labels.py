"""Depth labels of training frames, from which the depth network learns. `train.depth.views` finds them from many frames of a clip.

Legend: N labelled frames, n samples, S side.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dagan.checks import read_arrays
from dagan.data.batches import generator_for, jitter_colours, reframe
from dagan.data.config import AugmentConfig
from dagan.data.sampling import ClipChooser
from dagan.data.store import ClipDataset, Numbers
from dagan.media.output import atomic_output
from dagan.train.depth.objective import LabelledBatch
from dagan.train.depth.views import depth_from_views
from dagan.train.recipe import ViewsConfig

# Depth is found for this many frames at once. They take some 1.5 GB at 128 x 128.
TOGETHER = 8
# These number the streams of random numbers; they differ from those of `data.batches`.
_CHOOSE, _DRAW, _CHANGE = 10, 11, 12
# A function that estimates depth and camera. It takes frames and one neighbour of each, both n x 3 x S x S, and returns inverse depth,
# n x 1 x S x S, and the camera's focal lengths and principal points, both n x 2.
Guess = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True)
class Labels:
    """Frames and what is known of their depth."""

    numbers: Numbers
    """The numbers of N frames in the store."""
    inverse: Tensor
    """Their relative inverse depth (see `train.depth.views`), float16, N x 1 x S x S, on the CPU."""


class LabelFiles:
    """Labels of a run's rounds, as files in the run's folder. A run that is resumed within a round learns from the same labels again.

    The labels of the last two rounds are kept, because the newest checkpoint may be older than the newest labels. `stamp` is stored with
    the labels; those that were made of other clips, or with other settings, have another stamp and are not read.
    """

    def __init__(self, folder: Path, rank: int, stamp: str) -> None:
        self.folder, self.rank, self.stamp = folder, rank, stamp

    def save(self, round_: int, labels: Labels) -> None:
        """Writes the labels beside their final name and then renames the file. Those of two rounds before are removed."""
        with atomic_output(self._path(round_), overwrite=True) as partial, partial.open("wb") as out:
            np.savez(out, stamp=self.stamp, numbers=labels.numbers, inverse=labels.inverse.numpy())
        self._path(round_ - 2).unlink(missing_ok=True)

    def load(self, round_: int) -> Labels | None:
        """Returns the labels of a round, or None where there are none with this stamp."""
        path = self._path(round_)
        if not path.is_file():
            return None
        found = read_arrays(path, "remove it, and the round finds its labels again", ("stamp", "numbers", "inverse"))
        return Labels(found["numbers"], torch.from_numpy(found["inverse"])) if str(found["stamp"]) == self.stamp else None

    def _path(self, round_: int) -> Path:
        return self.folder / f"labels-{round_}-{self.rank}.npz"


def stamp_of(dataset: ClipDataset, config: ViewsConfig, seed: int, size: int) -> str:
    """Returns a text that changes with the clips, and with everything that decides which of their frames get labels."""
    names = [str(clip.path) for clip in dataset.clips]
    said = json.dumps([names, dataset.start.tolist(), dataset.count.tolist(), asdict(config), seed, size])
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def find_labels(
    dataset: ClipDataset, chooser: ClipChooser, config: ViewsConfig, round_: int, guess: Guess,
    *, seed: int, rank: int, device: torch.device, stopping: Callable[[], bool],
) -> Labels | None:  # fmt: skip
    """Finds labels for `config.frames` training frames. Where clips turn too little there are fewer labels, or none.

    Returns None when `stopping` says that training is to end.
    """
    rng = generator_for(seed, round_, rank, _CHOOSE)
    clips = chooser.draw(rng, config.frames)
    places = rng.integers(0, dataset.count[clips])
    offsets = config.step * np.arange(1, config.reach + 1)
    offsets = np.concatenate([offsets, -offsets])
    numbers, maps = [], []
    for first in range(0, config.frames, TOGETHER):
        if stopping():
            return None
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
    return Labels(np.concatenate(numbers), torch.cat(maps))


def labelled_batch(
    labels: Labels, dataset: ClipDataset, augment: AugmentConfig, count: int, *, seed: int, step: int, rank: int, device: torch.device
) -> LabelledBatch:
    """Returns a batch of labelled frames, mirrored, framed and coloured as `augment` says. Equal numbers give equal batches."""
    chosen = generator_for(seed, step, rank, _DRAW).integers(0, len(labels.numbers), count)
    frames = _pictures(dataset, labels.numbers[chosen], device)
    maps = labels.inverse[torch.from_numpy(chosen)].to(device).float()
    generator = torch.Generator().manual_seed(int(generator_for(seed, step, rank, _CHANGE).integers(2**62)))
    # The map is mirrored and framed as if it were a second frame of the sample.
    both, _ = reframe(torch.stack([frames, maps.expand_as(frames)], dim=1), augment, generator)
    seen = jitter_colours(both[:, :1], augment, generator)
    return LabelledBatch(seen[:, 0], both[:, 1, :1])


def _pictures(dataset: ClipDataset, numbers: Numbers, device: torch.device) -> Tensor:
    return dataset.store.gather(numbers).to(device).float().div_(255)
