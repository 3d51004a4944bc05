"""NumPy's files read whole, or refused in one sentence, whatever is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dagan.errors import InputError


def read_arrays(path: Path, remedy: str, names: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
    """The named arrays of an .npz file; None reads all of them.

    remedy: what the user can do about a file that is missing or damaged, or lacks one of the names; that raises InputError.
    """
    with _readable(path, remedy), np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in (arrays.files if names is None else names)}


def read_array(path: Path, remedy: str, mmap_mode: Literal["c"] | None = None) -> NDArray[Any]:
    """The array of an .npy file, mapped instead of read with a mode. Raises InputError as `read_arrays` does."""
    with _readable(path, remedy):
        return np.lib.format.open_memmap(path, mode=mmap_mode) if mmap_mode else np.load(path, allow_pickle=False)


@contextmanager
def _readable(path: Path, remedy: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of a damaged file NumPy raises whatever its zip, zlib and header parsers do
        raise InputError(f"{path} cannot be read ({type(error).__name__}): {remedy}") from None
