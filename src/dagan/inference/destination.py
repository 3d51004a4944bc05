"""Outputs checked before any work: an hour of computing must not end in "exists already"."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dagan.errors import InputError
from dagan.media.output import atomic_output


class _Enough(Exception):
    """Leaves the block of `atomic_output` without writing."""


def check_destination(path: Path, kind: str, suffixes: Iterable[str], overwrite: bool) -> None:
    """Raises InputError unless `path` can be written as it stands: suffix, existing file, folder, permission.

    kind: what would be written, for the message. Makes a file beside `path` and removes it: the only test that tells the truth
    on every file system.
    """
    allowed = tuple(suffixes)
    if path.suffix.lower() not in allowed and not path.is_dir():
        ending = f"ends in {path.suffix!r}" if path.suffix else "has no suffix"
        raise InputError(f"{path} {ending}: {kind} is written to {' or '.join(allowed)}")
    try:
        with atomic_output(path, overwrite):
            raise _Enough
    except _Enough:
        pass


def check_distinct(outputs: Iterable[Path | None], inputs: Iterable[Path]) -> None:
    """Raises InputError when two outputs are one file, or an output is one of the inputs (which --overwrite would destroy)."""
    seen: set[Path] = set()
    sources = {path.resolve() for path in inputs}
    for path in outputs:
        if path is None:
            continue
        place = path.resolve()
        if place in sources:
            raise InputError(f"{path} is an input too: give the output another name")
        if place in seen:
            raise InputError(f"{path} is named for two outputs: give each its own name")
        seen.add(place)
