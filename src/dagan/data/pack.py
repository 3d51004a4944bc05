"""Packs clips into shards, which training reads faster than videos and from object storage too. `data.shards` says what a set consists of.

A shard appears whole or not at all, and which clips it holds follows from their names and the settings alone. A run that is stopped,
even by force, therefore goes on behind the last whole shard, and leaves the same files as one that was not stopped.

Legend: N frames, S side.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Le, MultipleOf
from numpy.typing import NDArray

from dagan.checks import Checked, dump, json_text, read_arrays
from dagan.data.clips import LayoutChoice, find_clips, find_stills, refuse_mixed_parts
from dagan.data.landmark_tables import SIDE, find_points, measured, sums_of
from dagan.data.shards import FORMAT, INDEX_COLUMNS, NOTE, ShardFolder, read_note
from dagan.data.store import middle
from dagan.errors import InputError, require_extra
from dagan.media.decode import SUFFIXES, Encoding, Quality, encode, probe, read_clip
from dagan.media.framing import to_square
from dagan.media.images import Clip
from dagan.media.landmarks import EXPRESSIONS, FaceLandmarker
from dagan.media.output import atomic_output
from dagan.processes import in_processes
from dagan.progress import Progress, Warn, silent, to_stderr

STAGE = "clips"  # `Progress` is told of this stage.
_TRIED = 12  # From so many clips the bytes of a frame are estimated where there is a budget.
_SPARE = 0.97  # So much of a budget is planned for, because clips differ.
# Beside a clip's frames there are so many bytes: headers and padding of its other files, and its row of the index.
_BESIDE = 4096
_TAR_BLOCK = 512


@dataclass(frozen=True, kw_only=True)
class PackConfig(Checked):
    """How clips are packed."""

    size: Annotated[int, Ge(32), Le(4096), MultipleOf(32)] = 256
    """The side of the square frames in pixels."""
    every: Annotated[int, Ge(1), Le(1000)] = 1
    """Every n-th frame of a clip is packed."""
    encoding: Encoding = "jpeg"
    """How frames are written; webp takes fewer bytes, jpeg less time."""
    quality: Quality = 90
    """The quality of the encoding."""
    landmarks: bool = True
    """Whether landmarks are found and packed, so that training needs not search for them."""
    layout: LayoutChoice = "auto"
    """How names tell whom clips show (see `data.clips`)."""
    shard_bytes: Annotated[int, Ge(100_000), Le(10**12)] = 256_000_000
    """A shard is no larger than this, unless a single clip is."""
    budget: Annotated[int, Ge(100_000), Le(10**18)] | None = None
    """The whole set is no larger than this; clips then give as many frames, spread over their length, as there is room for."""


@dataclass(frozen=True)
class PackReport:
    """What was packed."""

    shards: int
    """The number of shards."""
    clips: int
    """The number of clips in them."""
    frames: int
    """The number of frames in them."""
    bytes: int
    """The size of all files together."""
    kept: int
    """How many of the clips had been packed by an earlier run."""
    skipped: tuple[str, ...]
    """A sentence for each clip that could not be decoded."""
    left_out: int
    """How many clips the budget had no room for."""


@dataclass(frozen=True)
class PackedClip:
    """A clip, ready to be written."""

    clip: Clip
    files: dict[str, bytes]
    """The contents of its files by what follows the clip's number in their names."""
    rate: float
    """Packed frames a second."""
    count: int
    """The number of packed frames."""
    spread: NDArray[np.float32]
    """The standard deviation of each expression."""
    sums: NDArray[np.float64]
    """See `landmark_tables.sums_of`."""

    @property
    def bytes(self) -> int:
        """The size that the clip takes in a tar file."""
        return sum(_TAR_BLOCK + _padded(len(block)) for block in self.files.values())


def pack(
    clips: Path, output: Path, config: PackConfig, *, portraits: Path | None = None, workers: int = 1, progress: Progress = silent,
    warn: Warn = to_stderr,
) -> PackReport:  # fmt: skip
    """Packs the clips below a folder, and stills below `portraits`, into shards in the folder `output`.

    Clips that an earlier run packed are kept, and new ones come into further shards. `workers` processes encode. Clips that cannot be
    decoded are left out, and `warn` is told. Raises InputError for folders without clips, for an output that was packed with other
    settings or holds something else, and where a worker was ended from outside.
    """
    require_extra("shards", "packing")
    if workers < 1:
        raise InputError(f"--workers is {workers}: must be at least 1")
    found = find_clips(clips, config.layout)
    refuse_mixed_parts(clips, found)
    found += [] if portraits is None else find_stills(portraits, config.layout)
    # Names decide the order, so that clips of a person come into different shards.
    found.sort(key=lambda clip: hashlib.sha256(f"{clip.still} {clip.name}".encode()).digest())
    note = _begin(output, config, found, workers)
    packed = [_index(output, name) for name in note["shards"]]
    there = {(str(name), bool(still)) for table in packed for name, still in zip(table["name"], table["still"], strict=True)}
    waiting = [clip for clip in found if (clip.name, clip.still) not in there]
    writer = _Writer(output, config, note, sum(len(table["name"]) for table in packed))
    skipped: list[str] = []
    left_out = 0
    progress(STAGE, len(there), len(found))
    with closing(_packed(waiting, config, note["most"], workers)) as results:
        for done, result in enumerate(results, len(there) + 1):
            if isinstance(result, str):
                skipped.append(result)
                warn(f"{result}; it is left out")
            elif not writer.add(result):
                left_out += 1
            progress(STAGE, done, len(found))
    writer.finish()
    if not note["shards"]:
        (output / NOTE).unlink()
        if not any(output.iterdir()):
            output.rmdir()
        raise InputError(f"{clips}: not a single clip could be packed; the first problem: {skipped[0] if skipped else 'the budget'}")
    tables = [_index(output, name) for name in note["shards"]]
    frames = sum(int(table["count"].sum()) for table in tables)
    return PackReport(
        len(tables), sum(len(table["name"]) for table in tables), frames, writer.total(), len(there), tuple(skipped), left_out
    )


def _begin(output: Path, config: PackConfig, clips: Sequence[Clip], workers: int) -> dict[str, Any]:
    """Returns the note of a set that is there, which is packed on, or writes that of a new one."""
    settings = dump(config)
    if (output / NOTE).is_file():
        note = read_note(ShardFolder(output))
        before = note["settings"]
        changed = [f"{key}: {before.get(key)} -> {value}" for key, value in settings.items() if before.get(key) != value]
        if changed:
            raise InputError(f"{output} was packed with other settings ({'; '.join(changed)}): choose another folder")
        # The newest shard may have been written without being noted, because the run was killed just then.
        for path in sorted(output.glob("shard-*.tar")):
            if path.name not in note["shards"] and path.with_suffix(".npz").is_file():
                note["shards"].append(path.name)
    else:
        if output.exists() and (not output.is_dir() or any(p for p in output.iterdir() if not _is_leftover(p))):
            raise InputError(f"{output} exists and holds no shards: choose another folder")
        note = {"format": FORMAT, "complete": False, "settings": settings, "most": _most_frames(config, clips, workers), "shards": []}
    output.mkdir(parents=True, exist_ok=True)
    for path in output.iterdir():  # A killed run left these.
        if _is_leftover(path):
            path.unlink(missing_ok=True)
    _write_note(output, note)
    return note


def _is_leftover(path: Path) -> bool:
    return path.name.startswith(".") and ".part" in path.name


def _write_note(output: Path, note: dict[str, Any]) -> None:
    with atomic_output(output / NOTE, overwrite=True) as part:
        part.write_text(json_text(note), encoding="utf-8")


def _index(output: Path, tar: str) -> dict[str, NDArray[Any]]:
    return read_arrays((output / tar).with_suffix(".npz"), f"remove {output}, and pack the clips again", INDEX_COLUMNS)


def _most_frames(config: PackConfig, clips: Sequence[Clip], workers: int) -> int | None:
    """Returns how many frames a clip may give at most, so that all clips together stay within the budget; None without a budget."""
    if config.budget is None:
        return None
    tried = [clips[i] for i in np.unique(np.linspace(0, len(clips) - 1, _TRIED).astype(int))]
    whole = [result for result in _packed(tried, config, 8, workers) if isinstance(result, PackedClip)]
    counts = []
    for clip in clips:
        try:
            counts.append(-(-probe(clip).count // config.every))
        except InputError:
            continue  # It is left out later, with a warning.
    frames = sum(p.count for p in whole)
    if not frames:
        return 8
    each = sum(p.bytes for p in whole) / frames
    room = (_SPARE * config.budget - _BESIDE * len(counts)) / each
    fits = [most for most in range(2, max(counts, default=2) + 1) if sum(min(c, most) for c in counts) <= room]
    return max(fits, default=2)


def _packed(clips: Sequence[Clip], config: PackConfig, most: int | None, workers: int) -> Generator[PackedClip | str]:
    """Yields clips ready to be written, in their order, or a sentence about one that cannot be."""
    work = partial(pack_clip, config=config, most=most)
    if workers == 1 or len(clips) < 2:
        yield from map(work, clips)
    else:
        yield from in_processes(work, clips, min(workers, len(clips)), ordered=True)


def pack_clip(clip: Clip, config: PackConfig, most: int | None) -> PackedClip | str:
    """Decodes and encodes a clip with everything that travels with it. Returns a sentence where it cannot be decoded."""
    try:
        larger = max(config.size, SIDE) if config.landmarks else config.size
        frames = read_clip(clip, larger)
        rate = probe(clip).rate
    except InputError as error:
        return str(error)
    chosen = np.arange(0, len(frames), config.every)
    if most is not None and len(chosen) > most:
        chosen = chosen[np.linspace(0, len(chosen) - 1, most).round().astype(int)]
    frames = frames[chosen]
    pictures = _resized(frames, config.size)
    suffix = SUFFIXES[config.encoding]
    files = {f"{i:06d}.{suffix}": encode(picture, config.encoding, config.quality) for i, picture in enumerate(pictures)}
    rate = rate * len(chosen) / max(1, int(chosen[-1]) + 1)
    about = {"name": clip.name, "identity": clip.identity, "still": clip.still, "rate": rate, "frames": len(chosen), "size": config.size}
    files["json"] = json_text(about).encode()
    files["thumbnails.npy"] = _npy(middle(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))))
    spread, sums = np.zeros(len(EXPRESSIONS), np.float32), np.zeros((3, len(EXPRESSIONS)), np.float64)
    if config.landmarks:
        searched = np.ascontiguousarray(_resized(frames, SIDE).transpose(0, 3, 1, 2))
        points = find_points(_landmarker(), searched, len(searched))
        measures = measured(points)
        spread, sums = np.nan_to_num(measures).std(0), sums_of(measures)
        files["landmarks.npy"] = _npy(points)
    caption = clip.path.with_suffix(".txt")
    if caption.is_file():
        files["txt"] = caption.read_bytes()
    return PackedClip(clip, files, rate, len(chosen), spread, sums)


@cache
def _landmarker() -> FaceLandmarker:
    """Returns the landmarker of this process."""
    return FaceLandmarker()


def _resized(frames: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Returns frames, N x 3 x S x S, as N x size x size x 3."""
    return np.stack([to_square(np.ascontiguousarray(frame.transpose(1, 2, 0)), size) for frame in frames])


def _npy(array: NDArray[Any]) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def _padded(length: int) -> int:
    return -(-length // _TAR_BLOCK) * _TAR_BLOCK


class _Writer:
    """Collects clips until a shard is full, and then writes it."""

    def __init__(self, output: Path, config: PackConfig, note: dict[str, Any], clips: int) -> None:
        self.output, self.config, self.note = output, config, note
        self._clips = clips
        self._waiting: list[PackedClip] = []
        self._bytes = 0

    def add(self, clip: PackedClip) -> bool:
        """Takes a clip. Returns False for one that the budget has no room for."""
        budget = self.config.budget
        if budget is not None and self.total() + self._bytes + clip.bytes + _BESIDE + 8 * clip.count > budget:
            return False
        if self._waiting and self._bytes + clip.bytes > self.config.shard_bytes:
            self._flush()
        self._waiting.append(clip)
        self._bytes += clip.bytes
        return True

    def finish(self) -> None:
        """Writes what is left, and notes that the set is whole."""
        if self._waiting:
            self._flush()
        self.note["complete"] = bool(self.note["shards"])
        _write_note(self.output, self.note)

    def total(self) -> int:
        """Returns the size of what has been written."""
        names = [name for tar in self.note["shards"] for name in (tar, tar.replace(".tar", ".npz"))]
        return sum((self.output / name).stat().st_size for name in (NOTE, *names))

    def _flush(self) -> None:
        from webdataset import TarWriter

        path = self.output / f"shard-{len(self.note['shards']):05d}.tar"
        with atomic_output(path, overwrite=True) as part:
            # Users, groups and times would make equal shards differ.
            with part.open("wb") as file, TarWriter(file, user="", group="", mtime=0, encoder=False) as tar:
                for number, clip in enumerate(self._waiting, self._clips):
                    tar.write({"__key__": f"{number:09d}", **clip.files})
            table = _table(part, self._waiting, self._clips)
            with atomic_output(path.with_suffix(".npz"), overwrite=True) as index, index.open("wb") as out:
                np.savez_compressed(out, **table)  # type: ignore[arg-type]  # stubs take any keyword for one that older numpy has not
        self.note["shards"].append(path.name)
        _write_note(self.output, self.note)
        self._clips += len(self._waiting)
        self._waiting, self._bytes = [], 0


def _table(path: Path, clips: Sequence[PackedClip], first: int) -> dict[str, NDArray[Any]]:
    """Returns the index of a tar file, which is read from the file itself."""
    with tarfile.open(path) as tar:
        places = {member.name: (member.offset_data, member.size) for member in tar}
    frames = [
        places[f"{number:09d}.{name}"] for number, clip in enumerate(clips, first) for name in sorted(clip.files) if name[:6].isdigit()
    ]

    def rows(name: str) -> NDArray[np.int64]:
        """Returns where the rows of an array begin in each clip's part of the tar file; -1 where it has none."""
        begins = []
        for number, clip in enumerate(clips, first):
            place = places.get(f"{number:09d}.{name}")
            begins.append(-1 if place is None else place[0] + _header(clip.files[name]))
        return np.asarray(begins, np.int64)

    return {
        "name": np.asarray([clip.clip.name for clip in clips]),
        "identity": np.asarray([clip.clip.identity for clip in clips]),
        "caption": np.asarray([clip.files.get("txt", b"").decode(errors="replace").strip() for clip in clips]),
        "still": np.asarray([clip.clip.still for clip in clips]),
        "rate": np.asarray([clip.rate for clip in clips]),
        "count": np.asarray([clip.count for clip in clips], np.int32),
        "landmarks": rows("landmarks.npy"),
        "thumbnails": rows("thumbnails.npy"),
        "spread": np.stack([clip.spread for clip in clips]).astype(np.float32),
        "offset": np.asarray([place for place, _ in frames], np.int64),
        "length": np.asarray([size for _, size in frames], np.uint32),
        "sums": np.sum([clip.sums for clip in clips], axis=0),
    }


def _header(block: bytes) -> int:
    """Returns the number of bytes before the rows of an .npy file."""
    file = io.BytesIO(block)
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    return file.tell()
