"""Writes outputs so that they appear whole or not at all: beside their final name first, then renamed.

Outputs are checked before any work, because an hour of computing must not end in "exists already".
"""

from __future__ import annotations

import errno
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dagan.errors import InputError

DISK_FULL = {errno.ENOSPC, errno.EFBIG, *(getattr(errno, name) for name in ("EDQUOT",) if hasattr(errno, name))}


@contextmanager
def atomic_output(path: Path | str, overwrite: bool = False) -> Iterator[Path]:
    """Yields an empty temporary file in the folder of `path`, with its suffix, and renames it to `path` at the end of the block.

    Missing folders are made. When the block raises anything (Ctrl-C included), the temporary file and the folders made for it are
    removed and `path` stays as it was. Raises InputError when `path` exists and `overwrite` is False, when it is a folder, when it cannot
    be written, and when the disk is full.
    """
    path = Path(path)
    _refuse_existing(path, overwrite)
    made = make_folder(path.parent, path)
    # The temporary file has a short name, because the final name may already be as long as the file system allows.
    temporary = path.parent / f".{secrets.token_hex(6)}.part{path.suffix}"
    try:
        _touch(temporary, path)
        yield temporary
        _refuse_existing(path, overwrite)  # The file may have appeared during a long run.
        _rename(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise InputError(f"{path} cannot be written: the disk is full or the file too large: free some space") from error
        raise


@contextmanager
def atomic_folder(path: Path | str, overwrite: bool = False) -> Iterator[Path]:
    """Does as `atomic_output` for a folder: yields an empty one beside `path`, which takes the name of `path` at the end.

    An empty folder may be there already. With `overwrite` any folder may be there; its contents are removed, so look at them first.
    """
    path = Path(path)
    _refuse_folder(path, overwrite)
    made = make_folder(path.parent, path)
    temporary = path.parent / f".{secrets.token_hex(6)}.part"
    aside = path.parent / f".{secrets.token_hex(6)}.old"
    try:
        try:
            temporary.mkdir()
        except OSError as error:
            raise InputError(f"{path} cannot be written: no folder can be made in {path.parent} ({error.strerror})") from error
        yield temporary
        _refuse_folder(path, overwrite)  # The folder may have been filled during a long run.
        if path.exists():
            path.rename(aside)
        _rename(temporary, path)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if aside.exists() and not path.exists():
            aside.rename(path)
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise InputError(f"{path} cannot be written: the disk is full: free some space") from error
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _refuse_folder(path: Path, overwrite: bool) -> None:
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file: give the name of a folder to write")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise InputError(f"{path} exists already: choose another name, or replace it with --overwrite")


def _refuse_existing(path: Path, overwrite: bool) -> None:
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the name of a file to write")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists already: choose another name, or replace it with --overwrite")


def make_folder(folder: Path, path: Path) -> list[Path]:
    """Makes `folder` with its parents and returns the folders that were made, innermost first."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        for place in missing:
            with suppress(OSError):
                place.rmdir()
        raise InputError(f"{path} cannot be written: the folder {folder} cannot be made ({error.strerror})") from error
    return missing


def _touch(temporary: Path, path: Path) -> None:
    try:
        temporary.touch(exist_ok=False)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        raise InputError(f"{path} cannot be written: no file can be made in {path.parent} ({error.strerror})") from error


def _rename(temporary: Path, path: Path) -> None:
    try:
        temporary.replace(path)
    except PermissionError as error:  # On Windows this means that another program holds the old file open.
        raise InputError(f"{path} cannot be replaced: close the program that uses it, or choose another name") from error


class _Enough(Exception):
    """Is raised to leave the block of `atomic_output` without writing."""


def check_destination(path: Path, kind: str, suffixes: Iterable[str], overwrite: bool) -> None:
    """Raises InputError unless `path` can be written, judging by its suffix, an existing file, its folder and permissions.

    `kind` is what would be written, for the message. A file is made beside `path` and removed again, because no other test is right on
    every file system.
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
    """Raises InputError when two outputs are one file, or when an output is also an input, which --overwrite would destroy."""
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
