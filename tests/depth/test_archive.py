"""Maps of a whole video in one file that numpy reads, written without holding them."""

import tracemalloc

import numpy as np
import pytest

from dagan.depth import map_archive
from dagan.errors import InputError


def test_what_goes_in_comes_out(tmp_path):
    maps = np.random.default_rng(0).uniform(size=(5, 8, 6)).astype(np.float32)
    with map_archive(tmp_path / "a.npz") as archive:
        archive.add(maps[:2])
        archive.add(maps[2:])
        archive.notes["times"] = np.arange(5) / 25
    with np.load(tmp_path / "a.npz", allow_pickle=False) as loaded:
        assert sorted(loaded) == ["disparity", "times"]
        assert loaded["disparity"].dtype == np.float32
        assert (loaded["disparity"] == maps).all()
        assert (loaded["times"] == np.arange(5) / 25).all()
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_memory_does_not_grow_with_length(tmp_path):
    chunk = np.zeros((4, 64, 64), np.float32)
    tracemalloc.start()
    with map_archive(tmp_path / "a.npz") as archive:
        for _ in range(200):
            archive.add(chunk)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "a.npz").stat().st_size > 200 * chunk.nbytes
    assert peak < 4 * 2**20 < 200 * chunk.nbytes


def fill(path, *maps, error=None):
    with map_archive(path) as archive:
        for part in maps:
            archive.add(part)
        if error is not None:
            raise error


def test_a_failure_leaves_nothing(tmp_path):
    one, other = np.zeros((1, 4, 4), np.float32), np.zeros((1, 4, 5), np.float32)
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "new" / "a.npz", one, error=KeyboardInterrupt())
    with pytest.raises(InputError, match="no frame"):
        fill(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="among maps"):
        fill(tmp_path / "a.npz", one, other)
    assert not list(tmp_path.iterdir())
