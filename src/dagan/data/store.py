"""Decoded frames by their numbers. They are held in memory or on the accelerator, or read from disk.

Every clip has a run of frame numbers: clip c has `start[c] .. start[c] + count[c] - 1`.

Legend: N frames, n asked for, S side.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor

from dagan.checks import read_array, read_arrays
from dagan.data.clips import Clip, find_clips, find_stills, held_out, in_words, refuse_mixed_parts
from dagan.data.config import DataConfig
from dagan.data.landmark_tables import POINTS, Points, Spread, deviation_of, landmarks_of
from dagan.data.shards import ShardColumn, ShardStore, is_shards, open_index
from dagan.errors import InputError
from dagan.media.decode import DECODER, Frames, Probe, RandomReader, probe, read_clip
from dagan.progress import Lines, counted

THUMBNAIL = 16  # Motion is judged by grey pictures of each frame's middle with this side.
Numbers = NDArray[np.int64]


class Store(Protocol):
    """Gives frames by their numbers."""

    waits: bool
    """Whether frames are read when they are asked for, so that reading ahead is a gain."""

    def gather(self, numbers: Numbers) -> Tensor:
        """Returns the frames with these n numbers, uint8 n x 3 x S x S."""
        ...


class MemoryStore:
    """Holds all frames as one uint8 tensor, N x 3 x S x S, in memory (or a mapped file) or on the accelerator."""

    waits = False

    def __init__(self, frames: Frames, device: torch.device | None = None) -> None:
        self.frames = torch.from_numpy(frames)
        if device is not None:
            self.frames = self.frames.to(device)

    def gather(self, numbers: Numbers) -> Tensor:
        """Returns uint8 n x 3 x S x S, on the store's device."""
        return self.frames[torch.from_numpy(numbers).to(self.frames.device)]


class DiskStore:
    """Decodes what is asked for. Threads may share it, because each opens files of its own."""

    waits = True

    def __init__(self, clips: Sequence[Clip], probes: Sequence[Probe], start: Numbers, size: int) -> None:
        self.clips, self.probes, self.start = clips, probes, start
        self.size = size
        self._own = threading.local()

    def gather(self, numbers: Numbers) -> Tensor:
        """Returns uint8 n x 3 x S x S. Frames of one clip are decoded together."""
        if not hasattr(self._own, "reader"):
            self._own.reader = RandomReader(self.size)
        owners = np.searchsorted(self.start, numbers, side="right") - 1
        out: Frames = np.empty((len(numbers), 3, self.size, self.size), np.uint8)
        for owner in np.unique(owners):
            places = np.flatnonzero(owners == owner)
            indices = (numbers[places] - self.start[owner]).tolist()
            out[places] = self._own.reader.read(self.clips[owner], self.probes[owner], indices)
        return torch.from_numpy(out)


@dataclass(frozen=True)
class ClipDataset:
    """Clips with the numbers of their frames."""

    clips: tuple[Clip, ...]
    start: Numbers
    """The number of each clip's first frame."""
    count: Numbers
    """The number of each clip's frames."""
    rate: NDArray[np.float64]
    """Each clip's frames a second."""
    held: frozenset[str]
    """The identities that are held out for validation."""
    store: Store
    """The frames."""
    thumbnails: Frames | ShardColumn | None
    """N x 16 x 16 grey uint8 pictures of each frame's middle; None when frames are read from disk."""
    landmarks: Points | ShardColumn | None = None
    """N x P x 2 (see `data.landmark_tables`); None where they were not asked for."""
    spread: Spread | None = None
    """How expressions vary, where shards say so."""
    shard: Numbers | None = None
    """The number of the shard that each clip is in; None for clips that are not in shards."""

    def members(self, split: str, still: bool = False) -> Numbers:
        """Returns the numbers of the clips (or stills) that belong to "train" or to "validation"."""
        wanted = split == "validation"
        return np.asarray([i for i, c in enumerate(self.clips) if c.still == still and (c.identity in self.held) == wanted], np.int64)

    def described(self) -> str:
        """Says in one line what there is to train on and what is held out."""
        training, held = (self._counted(split) for split in ("train", "validation"))
        portraits = len(self.members("train", still=True))
        with_portraits = f", and {_number_of(portraits, 'portrait')}" if portraits else ""
        return f"training on {training}{with_portraits}; held out for validation: {held if self.held else 'nobody'}"

    def _counted(self, split: str) -> str:
        members = self.members(split)
        identities = {self.clips[i].identity for i in members}
        clips, people = _number_of(len(members), "clip"), _number_of(len(identities), "identity", "identities")
        return f"{clips} of {people}, {_number_of(int(self.count[members].sum()), 'frame')}"


def _number_of(count: int, one: str, several: str | None = None) -> str:
    return f"{count} {one if count == 1 else several or f'{one}s'}"


def open_dataset(config: DataConfig, device: torch.device | None = None, console: Console | None = None) -> ClipDataset:
    """Finds, decodes (unless storage is "disk") and numbers all frames. Storage "device" puts them on `device`.

    `console` is told what is done, and at last what there is. Raises InputError for missing folders, for unreadable files, and for a
    folder that mixes clips to train on with clips to test on.
    """
    console = console or Console(stderr=True)
    if not isinstance(config.train, Path) or is_shards(config.train):
        origin = "shards"
        dataset = _from_shards(config)
    else:
        clips = find_clips(config.train, config.layout)
        origin = in_words(config.train, clips, config.layout)
        refuse_mixed_parts(config.train, clips)
        held = held_out((c.identity for c in clips), config.hold_out)
        if config.portraits is not None:
            stills = find_stills(config.portraits)
            refuse_mixed_parts(config.portraits, stills)
            clips += stills
        dataset = _read(config, clips, held, device, console)
    console.print(f"{config.train}, {origin}: {dataset.described()}", highlight=False, soft_wrap=True)
    return dataset


def _from_shards(config: DataConfig) -> ClipDataset:
    """Opens shards. Their frames stay where they are and are decoded when they are drawn, whatever data.storage says."""
    index, clips = open_index(config)
    held = held_out((c.identity for c in clips if not c.still), config.hold_out)
    points, spread = None, None
    if config.landmarks:
        points = ShardColumn(index, "landmarks", np.float32, (len(POINTS), 2))
        spread = Spread(deviation_of(index.sums), index.columns["spread"])
    thumbnails = ShardColumn(index, "thumbnails", np.uint8, (THUMBNAIL, THUMBNAIL))
    store = ShardStore(index, config.size)
    return ClipDataset(tuple(clips), index.start, index.count, index.columns["rate"], held, store, thumbnails, points, spread, index.shard)


def _read(config: DataConfig, clips: list[Clip], held: frozenset[str], device: torch.device | None, console: Console) -> ClipDataset:
    if config.storage == "disk":
        probes = _probe_all(clips, console)
        start, count = _number(probes)
        rate = np.asarray([p.rate for p in probes])
        points = _landmarks(config, clips, count, console)
        return ClipDataset(tuple(clips), start, count, rate, held, DiskStore(clips, probes, start, config.size), None, points)
    cached = _Cache.of(config, clips)
    arrays = cached.load() if cached is not None and cached.complete() else _decode_all(clips, config.size, cached, console)
    store = MemoryStore(arrays["frames"], device if config.storage == "device" else None)
    start, count = arrays["start"], arrays["count"]
    # Frames are placed by the numbers that were counted, so that a clip with fewer frames leaves a gap.
    points = _landmarks(config, clips, np.diff(start, append=len(arrays["frames"])), console)
    return ClipDataset(tuple(clips), start, count, arrays["rate"], held, store, arrays["thumbnails"], points)


def _landmarks(config: DataConfig, clips: Sequence[Clip], count: Numbers, console: Console) -> Points | None:
    if not config.landmarks:
        return None

    def tracked(items: Iterable[Any], text: str, total: int) -> Iterable[Any]:
        return _tracked(items, text, total, console)

    return landmarks_of(clips, count.tolist(), config.cache, _stamp(clips), tracked)


def _number(probes: Sequence[Probe]) -> tuple[Numbers, Numbers]:
    count = np.asarray([p.count for p in probes], np.int64)
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(count)[:-1]]), count


def _probe_all(clips: Sequence[Clip], console: Console) -> list[Probe]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(_tracked(pool.map(probe, clips), "Counting frames", len(clips), console))


def _tracked(items: Iterable[Any], text: str, total: int, console: Console) -> Iterable[Any]:
    if console.is_terminal:
        return track(items, text, total=total, console=console, transient=True)
    return counted(items, Lines(lambda line: console.print(line, highlight=False, soft_wrap=True)), text, total)


def _decode_all(clips: Sequence[Clip], size: int, cache: _Cache | None, console: Console) -> dict[str, Any]:
    probes = _probe_all(clips, console)
    start, count = _number(probes)
    shape = (int(count.sum()), 3, size, size)
    if cache is None:
        _require_memory(shape)
        frames: Frames = np.empty(shape, np.uint8)
    else:
        frames = cache.create(shape)
    thumbnails: Frames = np.zeros((shape[0], THUMBNAIL, THUMBNAIL), np.uint8)

    def decode(index: int) -> int:
        found = read_clip(clips[index], size)[: count[index]]
        begin = start[index]
        frames[begin : begin + len(found)] = found
        thumbnails[begin : begin + len(found)] = middle(found)
        return len(found)

    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            # A file may hold fewer pictures than packets. The numbers that are left over are never drawn.
            decoded = list(_tracked(pool.map(decode, range(len(clips))), "Decoding clips", len(clips), console))
        arrays = {"start": start, "count": np.asarray(decoded, np.int64), "rate": np.asarray([p.rate for p in probes])}
        arrays["thumbnails"] = thumbnails
        if cache is not None:
            cache.finish(arrays)
            return cache.load()
    except BaseException:
        if cache is not None:
            cache.discard()
        raise
    return arrays | {"frames": frames}


def _require_memory(shape: tuple[int, ...]) -> None:
    import psutil

    needed, free = int(np.prod(shape)), psutil.virtual_memory().available
    if needed > 0.9 * free:
        raise InputError(
            f"decoded clips need {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free: "
            "set data.cache to a folder, data.storage to disk, or data.size lower"
        )


def middle(frames: Frames) -> Frames:
    """Returns grey 16 x 16 pictures of the middle half of each frame, averaged over blocks of pixels."""
    size = frames.shape[-1]
    quarter = size // 4
    grey = frames[:, :, quarter : size - quarter, quarter : size - quarter].mean(1, dtype=np.float32)
    blocks = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(grey)[:, None], THUMBNAIL)
    return blocks[:, 0].round().to(torch.uint8).numpy()


def _stamp(clips: Sequence[Clip]) -> str:
    """Returns a text that changes with the list of files and with any file in it."""
    stats = [(str(clip.path.resolve()), clip.still, clip.path.stat()) for clip in clips]
    return json.dumps([(path, still, stat.st_size, stat.st_mtime_ns) for path, still, stat in stats])


class _Cache:
    """A folder with the decoded frames of one list of files at one size. It is written beside its final name and then renamed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")

    @classmethod
    def of(cls, config: DataConfig, clips: Sequence[Clip]) -> _Cache | None:
        if config.cache is None:
            return None
        key = hashlib.sha256(f"{DECODER} {config.size} {_stamp(clips)}".encode()).hexdigest()[:16]
        return cls(config.cache / f"frames-{config.size}-{key}")

    def complete(self) -> bool:
        return self.folder.is_dir()

    def create(self, shape: tuple[int, ...]) -> Frames:
        self.partial.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.partial).free
        if np.prod(shape) > free:
            self.discard()
            needed = f"{np.prod(shape) / 1e9:.1f} GB"
            raise InputError(f"decoded clips need {needed}, {self.folder.parent} has {free / 1e9:.1f} GB: choose another data.cache")
        return np.lib.format.open_memmap(self.partial / "frames.npy", mode="w+", dtype=np.uint8, shape=shape)

    def finish(self, arrays: dict[str, Any]) -> None:
        np.savez(self.partial / "index.npz", **arrays)
        try:
            self.partial.rename(self.folder)
        except OSError:
            # Another process was quicker, and its frames are the same.
            if not self.complete():
                raise
            self.discard()

    def discard(self) -> None:
        shutil.rmtree(self.partial, ignore_errors=True)

    def load(self) -> dict[str, Any]:
        remedy = f"remove {self.folder}, and the clips are decoded again"
        arrays = read_arrays(self.folder / "index.npz", remedy, ("start", "count", "rate", "thumbnails"))
        # The array is mapped copy-on-write, because torch needs writable memory and the file must not change.
        return arrays | {"frames": read_array(self.folder / "frames.npy", remedy, mmap_mode="c")}
