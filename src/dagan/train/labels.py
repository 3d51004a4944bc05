"""Depth labels of training frames, from which the depth network learns. They are found from many frames of a clip (multi-view stereo).

The photometric error of one pair hardly shows how far the depth of a face is tilted, because a motion can be found for every tilt that
makes up for it (docs/depth.md). In all frames of a wide turn together the tilt shows. Depth is found in four steps:
1. The frame is aligned with the frames before and after it. Each alignment starts from the motion that was found for the frame between.
2. The tilt of the network's depth is solved for together with those motions (see `train.alignment`).
3. For each pixel, the inverse depth is searched for at which all frames look most alike (a plane sweep).
4. The network's inverse depth is moved towards the one that was found, as far as the pictures are sure of it.
Only frames are used. The network must already know roughly what heads look like.

Legend: N labelled frames, n samples, S side of frames. While depth is found: F frames to find it for, K views of each, S of them used, J
inverse depths tried, H W image. Inverse depth is relative to the head's (`alignment.head_level`). Views 0 .. K/2 - 1 lead away from the
frame in time, K/2 .. K - 1 in the other direction.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dagan.checks import read_arrays
from dagan.data.batches import generator_for, jitter_colours, reframe
from dagan.data.config import AugmentConfig
from dagan.data.sampling import ClipChooser
from dagan.data.store import ClipDataset, Numbers
from dagan.geometry import back_project, intrinsics, invert_intrinsics, project, rigid_motion
from dagan.losses.depth import HEAD, HEAD_SOFTNESS, warp
from dagan.media.output import atomic_output
from dagan.train.alignment import align, head_level, settle_tilt
from dagan.train.depth_objective import LabelledBatch
from dagan.train.recipe import LEAST_VIEWS, ViewsConfig

# These go from coarse to fine, as in `alignment.SIDES`. Fewer are needed, because a view starts where its neighbour was found.
SIDES = ((32, 3), (64, 3), (128, 2))
# These are turns in radians. Views that turned less than LEAST_TURN show no relief. In views that turned more than MOST_TURN too much is
# hidden, or they are badly aligned. Frames after one that turned more than END_TURN are not looked at.
LEAST_TURN, MOST_TURN, END_TURN = math.radians(3), math.radians(18), math.radians(30)
# A view that is shifted by more than this, in units of the head's distance, has lost the head. It ends the search too.
END_SHIFT = 0.5
# A depth is found from this many views; more bring little. Where fewer are good, some are used more than once.
MOST_VIEWS = 16
# So many relative inverse depths are tried, from those of the ears to beyond that of the nose.
FARTHEST_TRIED, NEAREST_TRIED, TRIED = 0.85, 1.10, 26
# Windows of WINDOW x WINDOW pixels are compared. Their costs are averaged with a Gaussian of SPREAD pixels standard deviation.
WINDOW, SPREAD = 5, 2.0
# This is added to variances. A window whose variance is smaller counts as having no texture.
TEXTURE = 2e-4
# Corrections are averaged over windows with the standard deviations SMOOTH, in image widths, the coarse one first. The finer one takes
# over where its confidence exceeds ENOUGH. Corrections are limited to LARGEST, because larger ones are errors.
SMOOTH, ENOUGH, LARGEST = (1 / 16, 1 / 32), 0.1, 0.08


@dataclass(frozen=True)
class DepthFromViews:
    """The result of `depth_from_views`: the depth of F frames, each found from other frames of its clip, its views."""

    inverse: Tensor
    """The relative inverse depth, F x 1 x H x W. For frames without enough views it is the network's own."""
    usable: Tensor
    """Which frames had enough views, F bool."""


@torch.no_grad()
def depth_from_views(
    frame: Tensor, views: Tensor, present: Tensor, disparity: Tensor, focal: Tensor, principal: Tensor
) -> DepthFromViews:
    """Corrects the network's inverse depth of frames with other frames of their clips.

    Args:
        frame: These are the frames, F x 3 x H x W in [0, 1].
        views: These are other frames of the same clips, F x K x 3 x H x W.
        present: This says which views exist, F x K bool.
        disparity: This is the network's inverse depth, F x 1 x H x W, of any scale.
        focal, principal: These describe the camera, F x 2 each, normalised as in `geometry.camera`.
    """
    # Solving for motion needs float32, whatever precision networks run in.
    with torch.autocast(frame.device.type, enabled=False):
        own = disparity.float() / head_level(disparity.float())
        poses, found = _follow(frame, views, present, own, focal, principal)
        turn = torch.linalg.vector_norm(poses[..., :3], dim=-1)
        chosen, usable = _choose(found & (turn > LEAST_TURN) & (turn < MOST_TURN))
        rows = usable.nonzero()[:, 0]
        if len(rows):
            places = (rows[:, None], chosen[rows])
            own[rows] = _by_views(frame[rows], views[places], poses[places], own[rows], focal[rows], principal[rows])
        return DepthFromViews(own, usable)


def _by_views(frame: Tensor, views: Tensor, poses: Tensor, own: Tensor, focal: Tensor, principal: Tensor) -> Tensor:
    """Returns the relative inverse depth of frames that have S views each, F x S x 3 x H x W, with motions F x S x 6."""
    poses, inverse = settle_tilt(frame, views, poses, own, focal, principal)
    seen, confidence = _sweep(frame, views, poses, focal, principal)
    head = torch.sigmoid((inverse - HEAD) / HEAD_SOFTNESS)
    inverse = torch.lerp(inverse, _corrected(inverse, seen, confidence * head), head)
    return inverse / head_level(inverse)


def _follow(
    frame: Tensor, views: Tensor, present: Tensor, inverse: Tensor, focal: Tensor, principal: Tensor
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Returns the motions to the views, F x K x 6, and which views were reached without losing the head, F x K.

    Each motion is a rotation and a translation, as `align` finds them.
    """
    count, ways = present.shape
    poses = frame.new_zeros(count, ways, 6)
    found = torch.zeros_like(present)
    for way in (0, ways // 2):
        going, last = torch.ones_like(present[:, 0]), frame.new_zeros(count, 6)
        for k in range(way, way + ways // 2):
            going = going & present[:, k]
            rows = going.nonzero()[:, 0]
            if not len(rows):
                break
            pose = align(frame[rows], views[rows, k], inverse[rows], focal[rows], principal[rows], last[rows], SIDES)
            last = last.index_put((rows,), torch.cat(pose, dim=1))
            going = going & (torch.linalg.vector_norm(last[:, 3:], dim=1) < END_SHIFT)
            poses[:, k], found[:, k] = last, going
            going = going & (torch.linalg.vector_norm(last[:, :3], dim=1) < END_TURN)
    return poses, found


def _choose(good: Tensor) -> tuple[Tensor, Tensor]:
    """Chooses S of the good views (F x K bool) of each frame, evenly, some of them several times where few are good.

    Returns the indices of the chosen views, F x S, and which frames have enough good views, F.
    """
    number = good.sum(1)
    order = torch.argsort(good.int(), dim=1, descending=True, stable=True)
    places = torch.arange(MOST_VIEWS, device=good.device) * number[:, None] // MOST_VIEWS
    return order.gather(1, places), number >= LEAST_VIEWS


def _sweep(frame: Tensor, views: Tensor, poses: Tensor, focal: Tensor, principal: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the relative inverse depth at which the views, F x S, look most like the frame, F x 1 x H x W.

    The second result says how clear the choice is; it is never below 0.
    """
    count, used = poses.shape[:2]
    size = (frame.shape[-2], frame.shape[-1])
    grey = frame.mean(1, keepdim=True)
    others = views.mean(2).flatten(0, 1)[:, None]
    motion = poses.flatten(0, 1)
    pivot = motion.new_tensor([0.0, 0.0, 1.0]).expand(len(motion), 3)
    moved = rigid_motion(motion[:, :3], motion[:, 3:], pivot=pivot)
    matrix = intrinsics(focal, principal, size)
    rays = back_project(torch.ones_like(grey), invert_intrinsics(matrix)).repeat_interleave(used, 0)
    matrix = matrix.repeat_interleave(used, 0)
    mean = _local_mean(grey)
    deviation = _deviation(grey, mean).repeat_interleave(used, 0)
    mean, grey = mean.repeat_interleave(used, 0), grey.repeat_interleave(used, 0)
    tried = torch.linspace(FARTHEST_TRIED, NEAREST_TRIED, TRIED, device=frame.device)
    costs = []
    for inverse in tried:
        seen = warp(others, project(rays / inverse, matrix, moved))
        seen_mean = _local_mean(seen)
        covariance = _local_mean(seen * grey) - seen_mean * mean
        # Correlation is used instead of differences, because the light on a face changes as it turns.
        correlation = covariance / (deviation * _deviation(seen, seen_mean))
        costs.append(1 - correlation.unflatten(0, (count, used)).mean(1))
    return lowest(_blur(torch.cat(costs, dim=1), SPREAD), tried)


def lowest(cost: Tensor, tried: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the tried value (J of them, evenly spaced) at which each pixel's cost, F x J x H x W, is lowest, and how clearly it is.

    A parabola through the neighbouring costs places it between the values.
    """
    best = cost.argmin(1, keepdim=True).clamp(1, len(tried) - 2)
    low, middle, high = (cost.gather(1, best + k) for k in (-1, 0, 1))
    curvature = (low + high - 2 * middle).clamp(min=1e-6)
    place = tried[best] + ((low - high) / (2 * curvature)).clamp(-1, 1) * (tried[1] - tried[0])
    return place, curvature / (cost.amin(1, keepdim=True) + 0.1).square()


def _corrected(own: Tensor, seen: Tensor, confidence: Tensor) -> Tensor:
    """Adds to the network's inverse depth its smoothed difference to what was seen, so that the network's fine detail stays."""
    difference = (seen - own).clamp(-LARGEST, LARGEST)
    correction = torch.zeros_like(own)
    for share in SMOOTH:
        weight = _blur(confidence, share * own.shape[-1])
        here = _blur(confidence * difference, share * own.shape[-1]) / weight.clamp(min=1e-6)
        correction = torch.lerp(correction, here, weight / (weight + ENOUGH))
    return own + correction


def _local_mean(x: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(x, (WINDOW // 2,) * 4, mode="replicate"), WINDOW, 1)


def _deviation(x: Tensor, mean: Tensor) -> Tensor:
    return ((_local_mean(x.square()) - mean.square()).clamp(min=0) + TEXTURE).sqrt()


def _blur(x: Tensor, deviation: float) -> Tensor:
    from kornia.filters import gaussian_blur2d

    side = 2 * math.ceil(2.5 * deviation) + 1
    return gaussian_blur2d(x, (side, side), (deviation, deviation), border_type="replicate")


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
    """Their relative inverse depth (see `depth_from_views`), float16, N x 1 x S x S, on the CPU."""


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
