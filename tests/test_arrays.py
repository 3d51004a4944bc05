"""Damaged files of arrays are refused in one sentence, or give the arrays that were written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dagan.checks import read_array, read_arrays
from dagan.errors import InputError

RNG = np.random.default_rng(0)
ARRAYS = {"depth": RNG.integers(0, 9, (4, 16, 16), dtype=np.uint16), "pose": RNG.normal(size=(4, 3)), "name": np.array("stamp")}


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut off, or with up to eight bytes changed."""
    if rng.random() < 0.4:
        return content[: rng.integers(0, len(content))]
    changed = bytearray(content)
    for place in rng.integers(0, len(content), rng.integers(1, 9)):
        changed[place] = rng.integers(0, 256)
    return bytes(changed)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_damaged_archives(tmp_path: Path, write: Callable[..., None]) -> None:
    write(tmp_path / "whole.npz", **ARRAYS)
    assert {name: array.tolist() for name, array in read_arrays(tmp_path / "whole.npz", "").items()} == {
        name: array.tolist() for name, array in ARRAYS.items()
    }
    assert list(read_arrays(tmp_path / "whole.npz", "", ("pose",))) == ["pose"]
    content, rng, refused = (tmp_path / "whole.npz").read_bytes(), np.random.default_rng(1), 0
    for _ in range(300):
        (tmp_path / "hurt.npz").write_bytes(damaged(content, rng))
        try:
            found = read_arrays(tmp_path / "hurt.npz", "write it again", tuple(ARRAYS))
        except InputError as error:
            refused += 1
            assert str(error).startswith(f"{tmp_path / 'hurt.npz'} cannot be read (")  # noqa: PT017 (some are read rightly)
            assert str(error).endswith("): write it again")  # noqa: PT017
        else:
            assert set(found) == set(ARRAYS)
    assert refused > 200


def test_damaged_single_arrays(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    np.save(file, ARRAYS["depth"])
    assert (read_array(file, "", mmap_mode="c") == read_array(file, "")).all()
    content, rng, refused = file.read_bytes(), np.random.default_rng(2), 0
    for _ in range(300):
        file.write_bytes(damaged(content, rng))
        for mode in (None, "c"):
            try:
                read_array(file, "write it again", mode)
            except InputError:
                refused += 1
    assert refused > 200


def test_what_is_missing_or_another_thing_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", pose=ARRAYS["pose"])
    np.savez(tmp_path / "objects.npz", pose=np.array([{}]))
    (tmp_path / "empty.npz").write_bytes(b"")
    for name, asked in (("gone.npz", "pose"), ("a.npz", "depth"), ("objects.npz", "pose"), ("empty.npz", "pose")):
        with pytest.raises(InputError, match=f"{name} cannot be read"):
            read_arrays(tmp_path / name, "write it again", (asked,))
