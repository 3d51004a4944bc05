"""Reads parts of the files of a set of shards, from a folder or, through fsspec, from object storage.

Files of a folder are mapped, so that all processes of a machine share what the system keeps of them in memory. Of files elsewhere either
the parts that are asked for are fetched, or whole files are, into a folder in which the latest are kept.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dagan.errors import InputError, require_extra


@dataclass(frozen=True)
class Part:
    """A part of a file."""

    file: str
    """The file's name within its folder."""
    start: int
    """The place of the first byte."""
    length: int
    """The number of bytes."""


class ShardFolder:
    """The files of a set of shards. Threads may share it.

    `root` is a folder or an address that fsspec knows, such as s3://bucket/shards. With `kept` whole files are fetched, and so many
    of them are kept in the folder `cache` (one for this process, where it is None). Other processes may use the same folder.
    """

    def __init__(self, root: Path | str, *, kept: int | None = None, cache: Path | None = None) -> None:
        self.root, self.kept = root, kept
        self._maps: OrderedDict[str, mmap.mmap] = OrderedDict()
        self._lock = threading.Lock()
        self._fetching: dict[str, Future[Path]] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._system: Any = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._cache = cache
        if not isinstance(root, Path):
            self._system, self._base = _open_system(root)
            if kept is not None and cache is None:
                self._temporary = tempfile.TemporaryDirectory(prefix="dagan-shards-")
                self._cache = Path(self._temporary.name)

    def whole(self, names: Sequence[str]) -> list[bytes]:
        """Returns the contents of small files. Raises InputError for files that are not there."""
        try:
            if isinstance(self.root, Path):
                return [(self.root / name).read_bytes() for name in names]
            return [self._system.cat_file(f"{self._base}/{name}") for name in names] if len(names) == 1 else self._cat(names)
        except Exception as error:  # Each kind of storage raises exceptions of its own.
            raise InputError(f"{self.root}: {names[0]} or a file beside it cannot be read ({type(error).__name__}: {error})") from None

    def read(self, parts: Sequence[Part]) -> list[bytes]:
        """Returns the bytes of each part. Raises InputError for files that cannot be read or are too short."""
        if self._system is not None and self.kept is None:
            blocks = self._ranges(parts)
        else:
            blocks = [self._map(part.file)[part.start : part.start + part.length] for part in parts]
        for part, block in zip(parts, blocks, strict=True):
            if len(block) != part.length:
                raise InputError(f"{self.root}: {part.file} is too short: copy it again, or pack the clips again")
        return blocks

    def expect(self, names: Sequence[str]) -> None:
        """Begins to fetch whole files that will be read soon."""
        if self._system is not None and self.kept is not None:
            for name in names:
                self._fetch(name)

    def close(self) -> None:
        """Ends fetching, and removes fetched files unless a folder for them was given."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._maps.clear()
        if self._temporary is not None:
            self._temporary.cleanup()

    def _cat(self, names: Sequence[str]) -> list[bytes]:
        found = self._system.cat([f"{self._base}/{name}" for name in names])
        by_name = {path.rsplit("/", 1)[-1]: block for path, block in found.items()}
        return [by_name[name] for name in names]

    def _ranges(self, parts: Sequence[Part]) -> list[bytes]:
        paths = [f"{self._base}/{part.file}" for part in parts]
        starts, ends = [part.start for part in parts], [part.start + part.length for part in parts]
        try:
            return list(self._system.cat_ranges(paths, starts, ends, on_error="raise"))
        except Exception as error:  # Each kind of storage raises exceptions of its own.
            raise InputError(f"{self.root}: {parts[0].file} cannot be read ({type(error).__name__}: {error})") from None

    def _map(self, name: str) -> mmap.mmap:
        with self._lock:
            if name in self._maps:
                self._maps.move_to_end(name)
                return self._maps[name]
        path = self.root / name if isinstance(self.root, Path) else self._fetch(name).result()
        try:
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read ({error}): copy it again, or pack the clips again") from None
        with self._lock:
            self._maps[name] = mapped
            if self.kept is not None and self._system is not None:
                self._forget()
        return mapped

    def _fetch(self, name: str) -> Future[Path]:
        with self._lock:
            if name not in self._fetching:
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(4, "shards")
                self._fetching[name] = self._pool.submit(self._download, name)
            return self._fetching[name]

    def _download(self, name: str) -> Path:
        assert self._cache is not None
        self._cache.mkdir(parents=True, exist_ok=True)
        path = self._cache / name
        if path.is_file():
            return path
        partial = path.with_name(f".{name}.{os.getpid()}.part")
        try:
            self._system.get_file(f"{self._base}/{name}", str(partial))
            partial.replace(path)
        except Exception as error:
            raise InputError(f"{self.root}: {name} cannot be fetched ({type(error).__name__}: {error})") from None
        finally:
            partial.unlink(missing_ok=True)
        return path

    def _forget(self) -> None:
        """Removes the files that were used longest ago. Where one is still mapped, as Windows notes, it stays."""
        assert self._cache is not None
        assert self.kept is not None
        while len(self._maps) > self.kept:
            name, _ = self._maps.popitem(last=False)
            self._fetching.pop(name, None)
            try:
                (self._cache / name).unlink(missing_ok=True)
            except OSError:
                continue


def _open_system(address: str) -> tuple[Any, str]:
    require_extra("shards", "reading shards from object storage")
    import fsspec

    try:
        system, base = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise InputError(f"{address} cannot be read: {error}") from None
    return system, base.rstrip("/")
