"""What `dagan prepare` is given: raw videos, every setting, and lists of the pieces that are wanted.

Raw videos are told apart by their contents. Beside the settings stands every reason for which a piece of video is left out. A list names
pieces of videos: who is seen, from when to when, and where in the picture. There are two kinds:
- VoxCeleb's, a text file for each piece, with `Identity`, `Reference` (the video's id), and lines of frame number, x, y, width and height.
  Frames count 25 a second. Places are pixels, or shares of the picture where none is above 1.5.
- A table (.csv) with the columns video, start, end, left, top, right and bottom, and if there are any identity, width and height. Times are
  seconds. Places are pixels of a picture of that width and height, or of the raw video; or shares of it.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Gt, Le

from dagan.checks import Checked, Share, ShareBelowOne, Side, printable, require
from dagan.data.clips import VIDEO_SUFFIXES
from dagan.errors import InputError

# Each reason for which something is left out, with what it means. The report lists them in this order.
REASONS = {
    "missing": "the list names a video that is not there",
    "duplicate": "another raw video has the same contents",
    "unreadable": "the file is no video that can be decoded",
    "black": "the shot is black",
    "no face": "no face is seen",
    "too short": "the face is in place for less time than --shortest",
    "too small": "the face is lower than --min-face pixels, from hairline to chin",
    "edge": "no square that lies inside the picture holds the face as training wants it",
    "second face": "another face reaches into the square",
    "dark": "the face is too dark to be seen",
    "still": "it is a photo or a slide: the face's parts do not move against each other",
    "blurred": "the face is blurred",
    "overlay": "a caption or a logo lies over the face: edges stand still there while the face moves",
    "occluded": "something passes in front of the face",
    "failed": "an error that was not foreseen stopped it; the next run tries again",
}
_FACE_SHARE = 98 / 256  # The lowest face of the data that models were trained on, as a share of the clips' side.
Seconds = Annotated[float, Gt(0), Le(3600)]


@dataclass(frozen=True, kw_only=True)
class PrepareOptions(Checked):
    """How clips are made. Two runs with equal options give equal clips."""

    size: Side = 256
    """The side of the clips in pixels."""
    rate: Fraction | None = None
    """The frames a second of the clips; None keeps the frames and times of the raw video."""
    shortest: Seconds = 1.2
    """Shorter clips are left out."""
    longest: Seconds = 12.0
    """Longer pieces are divided into clips of at most so many seconds."""
    min_face: Annotated[float, Gt(0), Le(4096)] | None = None
    """A face must be so many pixels high in the raw video, from hairline to chin. None is 98 for clips of 256, and in proportion."""
    filters: bool = True
    """Whether blurred, dark, still, covered and occluded faces are left out. Size, place and length are always judged."""
    identity: Path | None = None
    """A face recognition network (ONNX) that tells people apart; None takes each raw video for one person."""
    hold_out: ShareBelowOne = 0.0
    """The share of identities that is set aside for testing."""
    same: Share = 0.6
    """Clips whose faces are at least so similar (cosine of embeddings) show one person."""
    leak: Share = 0.45
    """Nobody set aside for testing may be so similar to anybody trained on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.shortest < self.longest, "longest", self.longest, f"must be above shortest, {self.shortest}")
        require(self.leak <= self.same, "leak", self.leak, f"must be at most same, {self.same}")

    @property
    def least_face(self) -> float:
        """The lowest face in pixels of the raw video."""
        return _FACE_SHARE * self.size if self.min_face is None else self.min_face

    def of_clips(self) -> dict[str, Any]:
        """Returns what the clips themselves depend on, as plain values. Split and thresholds between people may change without them."""
        return {
            "size": self.size, "rate": None if self.rate is None else str(self.rate), "shortest": self.shortest, "longest": self.longest,
            "min_face": self.least_face, "filters": self.filters,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """A piece of a raw video that became no clip."""

    reason: str
    """One of REASONS."""
    start: float = 0.0
    """The second at which it begins."""
    end: float = 0.0
    """The second at which it ends."""
    found: str = ""
    """What was measured, and what it had to be, in words."""
    picture: str = ""
    """The file of four frames of it; empty where there is none."""


_LIST_RATE = 25  # Frames a second of VoxCeleb's lists.
_SHARES = 1.5  # Places in a list of which none is larger are shares of the picture.
_PART = 1 << 20  # So many bytes at the beginning, in the middle and at the end of a file stand for its contents.
_COLUMNS = ("video", "start", "end", "left", "top", "right", "bottom")
# Record and clips depend on this number, which must be raised whenever clips are made in another way.
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A piece of a raw video that a list names."""

    identity: str
    """Whom it shows; empty where the list does not say."""
    times: tuple[float, ...]
    """The seconds for which a box is given, in their order, at least two."""
    boxes: tuple[tuple[float, float, float, float], ...]
    """Left, top, right and bottom at these times."""
    size: tuple[float, float] | None
    """Width and height of the picture to which boxes belong, which is (1, 1) for shares; None for the raw video's own."""

    def box_at(self, time: float, width: int, height: int) -> np.ndarray | None:
        """Returns the box at a time in a picture of that size, or None before the piece and after it."""
        if not self.times[0] <= time <= self.times[-1]:
            return None
        across, down = (width, height) if self.size is None else self.size
        box = [np.interp(time, self.times, column) for column in np.array(self.boxes).T]
        return np.array(box) * np.array([width / across, height / down] * 2)


@dataclass(frozen=True, kw_only=True)
class Raw:
    """A raw video, and what is wanted of it."""

    path: Path
    """The file."""
    name: str
    """How it is called in reports: its path below the folder that was named, or its name."""
    digest: str
    """32 hexadecimal digits that stand for the file's contents."""
    wanted: tuple[Wanted, ...] | None = None
    """The pieces that a list names; None takes everything that can be used."""

    def key(self, settings: Mapping[str, object]) -> str:
        """Returns 32 hexadecimal digits that stand for the contents, for what is wanted, and for these settings."""
        wanted = None if self.wanted is None else [asdict(piece) for piece in self.wanted]
        text = json.dumps([FORMAT, self.digest, wanted, settings], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def find_raws(places: Sequence[Path]) -> list[Raw]:
    """Finds the videos that are named and those below folders that are named, each once, by name.

    Raises InputError for a place that does not exist, and where there is no video.
    """
    found: dict[Path, str] = {}
    for place in places:
        if place.is_dir():
            for path in sorted(place.rglob("*")):
                if path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith("."):
                    found.setdefault(path.resolve(), printable(path.relative_to(place).as_posix()))
        elif place.is_file():
            found.setdefault(place.resolve(), printable(place.name))
        else:
            raise InputError(f"{place} does not exist: give raw videos, or folders that hold some")
    if not found:
        raise InputError(f"{places[0]} holds no video files: name a folder with raw videos such as .mp4 files")
    return [Raw(path=path, name=name, digest=fingerprint(path)) for path, name in sorted(found.items(), key=lambda item: item[::-1])]


def fingerprint(path: Path) -> str:
    """Returns 32 hexadecimal digits that stand for a file's contents. Of a large file the size and three parts are read."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    try:
        with path.open("rb") as file:
            for start in (0, max(0, size // 2 - _PART // 2), max(0, size - _PART)):
                file.seek(start)
                digest.update(file.read(_PART))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): make it readable, or leave it out") from error
    return digest.hexdigest()[:32]


def listed(raws: Iterable[Raw], wanted: Mapping[str, Sequence[Wanted]]) -> tuple[list[Raw], list[str]]:
    """Returns the raw videos that a list names, with what is wanted of each, and the ids of videos that are not there.

    A video's file is named by its id, as "ID.mp4", or has it in brackets at its end, as "title [ID].mp4".
    """
    found: list[Raw] = []
    names: dict[str, Raw] = {}
    for raw in raws:
        stem = raw.path.stem
        names[stem] = raw
        if stem.endswith("]") and "[" in stem:
            names.setdefault(stem[stem.rindex("[") + 1 : -1], raw)
    for video, entries in sorted(wanted.items()):
        if video in names:
            found.append(replace(names[video], wanted=tuple(entries)))
    return found, sorted(video for video in wanted if video not in names)


def read_list(path: Path) -> dict[str, list[Wanted]]:
    """Reads a table, a text file of VoxCeleb's, or a folder of such files. Returns the wanted pieces of each video by its id.

    Raises InputError for anything else, naming file and line.
    """
    files = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    if not path.exists() or not files:
        raise InputError(f"{path} {'holds no .txt files' if path.exists() else 'does not exist'}: give VoxCeleb's lists, or a table (.csv)")
    found: dict[str, list[Wanted]] = {}
    for file in files:
        try:
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file} cannot be read ({error}): give VoxCeleb's lists, or a table (.csv)") from None
        for video, wanted in _table(file, text) if file.suffix.lower() == ".csv" else [_voxceleb(file, text)]:
            if not re.fullmatch(r"(?!\.)[\w.-]*", wanted.identity):  # Folders are named by it.
                raise InputError(f"{file}: identity {wanted.identity!r} must be of letters, digits, dots, hyphens and underscores")
            found.setdefault(video, []).append(wanted)
    return found


def _voxceleb(file: Path, text: str) -> tuple[str, Wanted]:
    facts: dict[str, str] = {}
    rows: list[list[float]] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if ":" in line:
            name, _, value = line.partition(":")
            facts[name.strip().lower()] = value.strip()
        elif words and words[0].isdigit():
            rows.append(_numbers(words[:5], 5, f"{file}, line {number}"))
    if not facts.get("reference") or len(rows) < 2:
        raise InputError(f"{file} is no list of VoxCeleb's: it needs a line `Reference : ID` and lines of frame, x, y, width and height")
    rows.sort()
    boxes = [(x, y, x + width, y + height) for _, x, y, width, height in rows]
    wanted = Wanted(
        identity=facts.get("identity", ""), times=tuple(row[0] / _LIST_RATE for row in rows), boxes=tuple(boxes), size=_size(boxes, None)
    )
    return facts["reference"], wanted


def _table(file: Path, text: str) -> list[tuple[str, Wanted]]:
    rows = csv.DictReader(text.splitlines())
    missing = [name for name in _COLUMNS if name not in (rows.fieldnames or ())]
    if missing:
        raise InputError(f"{file} has no column {' and no column '.join(missing)}: it needs {', '.join(_COLUMNS)}")
    found = []
    for number, row in enumerate(rows, 2):
        where = f"{file}, line {number}"
        start, end, *box = _numbers([row[name] or "" for name in _COLUMNS[1:]], 6, where)
        if not start < end:
            raise InputError(f"{where}: end is {end:g}: must be after start, {start:g}")
        given = (row.get("width") or "", row.get("height") or "")
        width, height = _numbers(given, 2, where) if all(given) else (0.0, 0.0)
        boxes = [(box[0], box[1], box[2], box[3])] * 2
        size = _size(boxes, (width, height) if width > 0 < height else None)
        found.append((row["video"] or "", Wanted(identity=row.get("identity") or "", times=(start, end), boxes=tuple(boxes), size=size)))
    return found


def _numbers(words: Sequence[str], count: int, where: str) -> list[float]:
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise InputError(f"{where}: {' '.join(words)!r} is not {count} numbers")
    return numbers


def _size(boxes: Iterable[Sequence[float]], size: tuple[float, float] | None) -> tuple[float, float] | None:
    return (1.0, 1.0) if max(max(box) for box in boxes) <= _SHARES else size
