"""A set of shards: tar files that hold the frames of clips, packed by `dagan pack`, and what is read of them.

A set is a folder, or an address in object storage, with

- `shards.json`, which says how clips were packed and which shards there are;
- `shard-00000.tar` and so on. By the conventions of WebDataset, the files of a clip begin with its number: 000000012.000000.jpg is its
  first frame, 000000012.json says whom it shows, 000000012.landmarks.npy and 000000012.thumbnails.npy hold an array for all its frames,
  and 000000012.txt is its caption, where it has one;
- `shard-00000.npz` beside each, which says where in the tar file everything is, so that a frame is read without anything before it.

Files of a folder are mapped, so that all processes of a machine share what the system keeps of them in memory. Object storage is read
through fsspec. Of its files either the parts that are asked for are fetched, or whole files are, into a folder in which the latest are
kept.

Legend: C clips, N frames, n asked for, P landmarks, S side, E expressions.
"""

from __future__ import annotations

import hashlib
import io
import json
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

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dagan.data.config import DataConfig
from dagan.errors import InputError, require_extra
from dagan.media.decode import FrameDecoder
from dagan.media.images import Clip


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


NOTE = "shards.json"
FORMAT = 1
# In epochs clips of so many shards are mixed. Twice as many are kept, so that the next ones are fetched meanwhile.
WINDOW = 8
Numbers = NDArray[np.int64]
# These arrays of a shard's index have a row for each clip; `offset` and `length` have one for each frame, and `sums` is one table. There
# is a column `caption` too, which training does not read.
CLIP_COLUMNS = ("name", "identity", "still", "rate", "count", "landmarks", "thumbnails", "spread")
INDEX_COLUMNS = (*CLIP_COLUMNS, "offset", "length", "sums")


def is_shards(place: Path | str) -> bool:
    """Says whether a folder holds shards. An address always does, because nothing else is read from one."""
    return not isinstance(place, Path) or (place / NOTE).is_file()


class ShardColumn:
    """An array with a row for each frame, in the tar files. Rows are read when they are asked for: `column[numbers]`."""

    def __init__(self, index: ShardIndex, column: str, dtype: Any, shape: tuple[int, ...]) -> None:
        self.index, self.dtype, self.shape = index, np.dtype(dtype), (int(index.count.sum()), *shape)
        self._start: Numbers = index.columns[column].astype(np.int64)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, numbers: Numbers) -> NDArray[Any]:
        """Returns the rows of these frames. Numbers may have any shape."""
        flat = np.asarray(numbers, np.int64).reshape(-1)
        owner, place = np.unique(self.index.owner(flat), return_inverse=True)
        row = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        # Of each clip one block is read, from its first to its last row that is asked for.
        first, last = np.full(len(owner), len(self)), np.zeros(len(owner), np.int64)
        np.minimum.at(first, place, flat)
        np.maximum.at(last, place, flat)
        begin = self._start[owner] + (first - self.index.start[owner]) * row
        parts = [
            Part(self.index.tar(clip), at, rows * row)
            for clip, at, rows in zip(owner.tolist(), begin.tolist(), (last - first + 1).tolist(), strict=True)
        ]
        blocks = [np.frombuffer(block, self.dtype).reshape(-1, *self.shape[1:]) for block in self.index.files.read(parts)]
        before = np.cumsum([0, *(len(block) for block in blocks)])[:-1]
        found = np.concatenate(blocks)[before[place] + flat - first[place]]
        return found.reshape(*np.shape(numbers), *self.shape[1:])


@dataclass(frozen=True)
class ShardIndex:
    """Where everything in a set of shards is."""

    files: ShardFolder
    tars: tuple[str, ...]
    """The names of the tar files."""
    shard: Numbers
    """C numbers of the shards that the clips are in."""
    start: Numbers
    """C numbers of the clips' first frames."""
    count: Numbers
    """C numbers of frames."""
    offset: Numbers
    """N places in the tar files."""
    length: NDArray[np.uint32]
    """N numbers of bytes."""
    columns: dict[str, NDArray[Any]]
    """The other columns, a row for each clip."""
    sums: NDArray[np.float64]
    """3 x E: how many frames have each expression, their sum, and the sum of their squares."""

    def owner(self, numbers: Numbers) -> Numbers:
        """Returns the clips to which frames belong."""
        return np.searchsorted(self.start, numbers, side="right") - 1

    def tar(self, clip: int) -> str:
        """Returns the name of the tar file that a clip is in."""
        return self.tars[self.shard[clip]]


class ShardStore:
    """Decodes the frames that are asked for. Threads may share it."""

    waits = True

    def __init__(self, index: ShardIndex, size: int) -> None:
        self.index, self.size = index, size
        self._decoder = FrameDecoder()

    def gather(self, numbers: Numbers) -> Tensor:
        """Returns uint8 n x 3 x S x S. Raises InputError for damaged frames, and for files that cannot be read."""
        index = self.index
        owner = index.owner(numbers)
        parts = [
            Part(index.tar(c), int(index.offset[i]), int(index.length[i])) for i, c in zip(numbers.tolist(), owner.tolist(), strict=True)
        ]
        out = np.empty((len(numbers), self.size, self.size, 3), np.uint8)
        for place, (part, block) in enumerate(zip(parts, index.files.read(parts), strict=True)):
            out[place] = self._decoder.decode(block, self.size, f"{index.files.root}: a frame in {part.file}")
        return torch.from_numpy(out).permute(0, 3, 1, 2)

    def expect(self, shards: Sequence[int]) -> None:
        """Begins to fetch shards that will be read soon."""
        self.index.files.expect([self.index.tars[shard] for shard in shards])


def read_note(files: ShardFolder) -> dict[str, Any]:
    """Reads shards.json. Raises InputError where there is none, or one of another version."""
    text = files.whole([NOTE])[0]
    try:
        note = json.loads(text)
        known = isinstance(note, dict) and note.get("format") == FORMAT
    except ValueError:
        known = False
    if not known:
        raise InputError(f"{files.root} holds no shards of this version: pack the clips with `dagan pack`")
    return dict(note)


def open_index(config: DataConfig) -> tuple[ShardIndex, list[Clip]]:
    """Reads the index of the shards that `config.train` names, and lists their clips.

    Raises InputError for a set that is not whole, and for one that lacks what the other settings ask for.
    """
    root = config.train
    note = read_note(ShardFolder(root))
    if config.order == "epochs":
        # Other sets have shards of the same names, so each has a folder of its own.
        key = hashlib.sha256(f"{root} {json.dumps(note)}".encode()).hexdigest()[:16]
        files = ShardFolder(root, kept=2 * WINDOW, cache=None if config.cache is None else config.cache / f"shards-{key}")
    else:
        files = ShardFolder(root)
    if not note["complete"]:
        raise InputError(f"{root} is not packed to its end: run the same `dagan pack` again, which goes on where it was")
    packed = note["settings"]
    if packed["size"] < config.size:
        raise InputError(f"{root} holds frames of {packed['size']} pixels, but data.size is {config.size}: lower it, or pack larger frames")
    if config.landmarks and not packed["landmarks"]:
        raise InputError(f"{root} was packed without landmarks: pack it with --landmarks, or set data.landmarks to false")
    if config.portraits is not None:
        raise InputError("data.portraits cannot be added to shards: name the portraits when packing, with --portraits")
    names = [name.removesuffix(".tar") for name in note["shards"]]
    tables = [_table(root, name, block) for name, block in zip(names, files.whole([f"{n}.npz" for n in names]), strict=True)]
    columns = {key: np.concatenate([table[key] for table in tables]) for key in (*CLIP_COLUMNS, "offset", "length")}
    shard = np.repeat(np.arange(len(tables)), [len(table["count"]) for table in tables])
    count = columns.pop("count").astype(np.int64)
    start = np.concatenate([np.zeros(1, np.int64), np.cumsum(count)[:-1]])
    index = ShardIndex(
        files, tuple(f"{name}.tar" for name in names), shard, start, count, columns.pop("offset"), columns.pop("length"), columns,
        np.sum([table["sums"] for table in tables], axis=0),
    )  # fmt: skip
    place = root if isinstance(root, Path) else Path(root.partition("://")[2])
    clips = [
        Clip(place / str(name), str(name), str(who), bool(still))
        for name, who, still in zip(columns["name"], columns["identity"], columns["still"], strict=True)
    ]
    return index, clips


def _table(root: Path | str, name: str, block: bytes) -> dict[str, NDArray[Any]]:
    try:
        with np.load(io.BytesIO(block), allow_pickle=False) as arrays:
            return {key: arrays[key] for key in INDEX_COLUMNS}
    except Exception as error:  # For a damaged file NumPy raises whatever its zip, zlib and header parsers raise.
        raise InputError(f"{root}: {name}.npz is damaged ({type(error).__name__}): copy it again, or pack the clips again") from None
