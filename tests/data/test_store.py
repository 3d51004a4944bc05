"""Frames by number: the same from memory and from disk, and a cache that is only used when it fits."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import dagan.data.store as store
from dagan.data.config import DataConfig
from dagan.data.store import open_dataset
from dagan.errors import InputError
from dagan.media.decode import read_clip


@pytest.fixture
def config(clips_folder: Path, portraits_folder: Path) -> DataConfig:
    return DataConfig(train=clips_folder, portraits=portraits_folder, size=32, hold_out=0.3)


def test_numbers_lead_to_the_clips_frames(config: DataConfig) -> None:
    data = open_dataset(config)
    assert len(data.clips) == 14
    for i, clip in enumerate(data.clips):
        numbers = data.start[i] + np.arange(data.count[i])
        assert np.array_equal(data.store.gather(numbers).numpy(), read_clip(clip, 32))


def test_every_storage_gives_the_same_frames(config: DataConfig, tmp_path: Path) -> None:
    memory = open_dataset(config)
    others = [
        open_dataset(replace(config, storage="disk")),
        open_dataset(replace(config, storage="device"), torch.device("cpu")),
        open_dataset(replace(config, cache=tmp_path)),
    ]
    numbers = np.random.default_rng(0).integers(0, memory.count.sum(), 40)
    for other in others:
        assert np.array_equal(other.start, memory.start)
        assert np.array_equal(other.count, memory.count)
        assert torch.equal(other.store.gather(numbers), memory.store.gather(numbers))


def test_splits_share_no_identity(config: DataConfig) -> None:
    data = open_dataset(config)
    names = {
        split: {data.clips[i].identity for still in (False, True) for i in data.members(split, still)} for split in ("train", "validation")
    }
    assert names["validation"] == data.held
    assert names["validation"]
    assert not names["train"] & names["validation"]
    # Portraits of people held out are held out too.
    assert len(data.members("validation", still=True)) == len(data.held)


def test_cache_is_reused_and_follows_the_files(config: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shutil.copytree(config.train, tmp_path / "clips")
    config = replace(config, train=folder, portraits=None, cache=tmp_path / "cache")
    first = open_dataset(config)
    decoded: list[str] = []

    def counting(clip, size):  # type: ignore[no-untyped-def]
        decoded.append(clip.name)
        return read_clip(clip, size)

    monkeypatch.setattr(store, "read_clip", counting)
    again = open_dataset(config)
    assert not decoded
    numbers = np.arange(first.count.sum())
    assert torch.equal(again.store.gather(numbers), first.store.gather(numbers))
    assert again.thumbnails is not None
    assert np.array_equal(again.thumbnails, first.thumbnails)
    open_dataset(replace(config, size=64))
    assert len(decoded) == 8
    next(folder.iterdir()).touch()
    open_dataset(config)
    assert len(decoded) == 16


def test_broken_clip_leaves_no_litter(config: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(clip, size):  # type: ignore[no-untyped-def]
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "read_clip", failing)
    with pytest.raises(KeyboardInterrupt):
        open_dataset(replace(config, cache=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_too_little_memory_is_said_before_decoding(config: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    class Small:
        available = 1000

    monkeypatch.setattr(psutil, "virtual_memory", Small)
    with pytest.raises(InputError, match=r"set data\.cache"):
        open_dataset(config)


def test_says_what_is_done_and_what_there_is(clips_folder: Path, portraits_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_dataset(DataConfig(train=clips_folder, portraits=portraits_folder, size=32, hold_out=0.3))
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == ["Counting frames: 0 of 14", "Decoding clips: 0 of 14"]
    found = re.fullmatch(
        r"(.*), laid out as VoxCeleb1: training on (\d) clips of (\d) identities, (\d+) frames, and (\d) portraits; "
        r"held out for validation: (\d) clips? of (\d) identit(?:y|ies), (\d+) frames",
        said[2],
    )
    assert found, said[2]
    folder, *numbers = found.groups()
    clips, people, frames, portraits, held_clips, held_people, held_frames = map(int, numbers)
    assert folder == str(clips_folder)
    assert (clips + held_clips, people + held_people, frames + held_frames) == (8, 6, sum(9 + i for i in range(8)))
    assert portraits == people
    assert held_people >= 1


def test_a_root_with_clips_to_test_on_is_refused_before_anything_is_decoded(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "a.mp4").touch()
    with pytest.raises(InputError, match="to test on, and both would be trained on"):
        open_dataset(DataConfig(train=tmp_path))
