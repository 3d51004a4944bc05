"""Uploads: the private folder in which they lie, with results, and the checks that they go through.

Only the user who started the page can look into the folder, where files lie for as long as somebody may ask for them. It is removed when
the page ends. A page that was killed cannot do that, so every page removes, when it starts, the folders of pages that are gone: each holds
the number of its process and when that began.

An upload is checked by its size first, and then by decoding it as the jobs do. Names and types that a browser sends prove nothing, so
nothing is decided by them. A small file may hold pictures without number or without bounds; it is measured by what is in it before it is
decoded whole.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import psutil

from dagan.errors import InputError
from dagan.media.container import has_pictures, open_container, packet_span, video_stream
from dagan.media.images import is_animation, is_photo, is_picture, is_video, read_image
from dagan.media.pillow_image import opened
from dagan.media.video import open_video
from dagan.motion.file import holds_motion

_PREFIX = "dagan-page-"
_OWNER = "owner.json"
_SWEEP_SECONDS = 20.0
_HELD_TIMES = 8  # Files of open sessions are kept so many times as long.
_SAME_START = 2.0  # Seconds. Times of a process's start are rounded differently by different systems.


class PrivateFolder:
    """A folder for one run of the page; it is a context manager that makes and removes it.

    Args:
        keep_seconds: A file that no session holds is removed when it has not changed for so long, and any after eight times that.
        most_bytes: The files may take so much room in all.
    """

    def __init__(self, keep_seconds: float = 900, most_bytes: int = 2**31) -> None:
        self.keep_seconds, self.most_bytes = keep_seconds, most_bytes
        self._permanent: set[Path] = set()
        self._held: defaultdict[str, set[Path]] = defaultdict(set)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        sweep_stale()
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX)).resolve()  # Only its owner can enter a folder that this makes.
        process = psutil.Process()
        (self.path / _OWNER).write_text(json.dumps({"pid": process.pid, "began": process.create_time()}), encoding="utf-8")
        self._janitor = threading.Thread(target=self._sweep, name="dagan-page-folder", daemon=True)
        self._janitor.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Removes the folder with everything in it."""
        self._closing.set()
        self._janitor.join(timeout=5)
        shutil.rmtree(self.path, ignore_errors=True)

    def keep_present(self) -> None:
        """Keeps the files that are there now until the page ends: those that belong to the page and not to a visitor."""
        self._permanent |= set(self.files())

    def files(self) -> list[Path]:
        """Returns all files of visitors and of the page. Folders that are removed meanwhile are passed over."""
        return [Path(place, name) for place, _, names in os.walk(self.path) for name in names if name != _OWNER]

    def visitors_files(self) -> list[Path]:
        """Returns the files that were uploaded or made for a visitor and are still there."""
        return [path for path in self.files() if path not in self._permanent]

    def inside(self, path: Path | str) -> Path:
        """Returns the path, with links followed. Raises InputError where it does not lie in the folder, because it is no upload then."""
        place = Path(path).resolve()
        if not place.is_relative_to(self.path):
            raise InputError("a path is no upload: choose a file on your own machine, which the page then uploads")
        return place

    def hold(self, session: str, *paths: Path) -> None:
        """Notes that the files belong to a visitor's session. They are removed with it, or when they are old."""
        with self._lock:
            self._held[session] |= set(paths) - self._permanent

    def release(self, session: str) -> None:
        """Removes the files of a session that has ended, except those that another session holds too."""
        with self._lock:
            own = self._held.pop(session, set())
            gone = own.difference(*self._held.values())
        for path in gone:
            self._remove(path)

    def forget(self, session: str, path: Path) -> None:
        """Removes one file of a session."""
        with self._lock:
            self._held[session].discard(path)
        self._remove(path)

    def new_file(self, session: str, name: str) -> Path:
        """Returns a path of that name for a new file of a session, in a folder of its own."""
        place = Path(tempfile.mkdtemp(dir=self.path)) / name
        self.hold(session, place)
        return place

    def room_for(self, more: int) -> bool:
        """Says whether so many more bytes have room."""
        return sum(_size(path) for path in self.files()) + more <= self.most_bytes

    def _sweep(self) -> None:
        while not self._closing.wait(min(_SWEEP_SECONDS, self.keep_seconds / 4)):
            self.remove_old()

    def remove_old(self) -> None:
        """Removes files of visitors that are older than `keep_seconds`, and folders that are empty."""
        now = time.time()
        limit = now - self.keep_seconds
        with self._lock:
            held = set().union(*self._held.values())
        for path in self.visitors_files():
            with suppress(OSError):
                if path.stat().st_mtime < (now - _HELD_TIMES * self.keep_seconds if path in held else limit):
                    self._remove(path)
                    with self._lock:
                        for own in self._held.values():
                            own.discard(path)
        for place, folders, _ in os.walk(self.path, topdown=False):
            for folder in (Path(place, name) for name in folders):
                with suppress(OSError):
                    if folder.stat().st_mtime < limit:
                        folder.rmdir()  # This fails for a folder that holds anything.

    def _remove(self, path: Path) -> None:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            if path.parent != self.path:
                path.parent.rmdir()


def sweep_stale() -> None:
    """Removes the folders of pages whose process is gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if folder.is_symlink() or not folder.is_dir() or (hasattr(os, "getuid") and folder.stat().st_uid != os.getuid()):
                continue
            if not _alive(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _alive(folder: Path) -> bool:
    """Says whether the process that made the folder still runs. A folder without a note is being made, unless it is old."""
    try:
        note = json.loads((folder / _OWNER).read_text(encoding="utf-8"))
        process = psutil.Process(int(note["pid"]))
        return abs(process.create_time() - float(note["began"])) < _SAME_START and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
    except (OSError, ValueError, KeyError, TypeError):
        return time.time() - folder.stat().st_mtime < 60


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


_MEBI = 2**20


@dataclass(frozen=True)
class UploadLimits:
    """How large an upload may be."""

    photo_bytes: int = 30 * _MEBI
    """The largest photo, in bytes."""
    photo_pixels: int = 50_000_000
    """The most pixels of a photo."""
    video_bytes: int = 200 * _MEBI
    """The largest video, in bytes."""
    video_side: int = 4096
    """The longest side of a video's pictures, in pixels."""
    video_seconds: float = 180
    """The longest video, in seconds."""
    video_frames: int = 7200
    """The most frames of a video."""


LIMITS = UploadLimits()


def check_photo(path: Path, limits: UploadLimits = LIMITS) -> np.ndarray:
    """Returns the photo in an upload, H x W x 3 uint8. Raises InputError with one sentence that names the upload by its own name."""
    with _named(path):
        _check_size(path, limits.photo_bytes, "photo")
        if is_picture(path):
            width, height, _ = _header(path)
            if width * height > limits.photo_pixels:
                most = limits.photo_pixels // 1_000_000
                raise InputError(f"{path} has {width} x {height} pixels: a photo may have {most} million: make it smaller first")
        elif holds_motion(path) or is_video(path):
            raise InputError(f"{path} is no photo: give a picture of a face, such as a PNG or JPEG file")
        return read_image(path)


def check_driving(path: Path, limits: UploadLimits = LIMITS) -> None:
    """Raises InputError with one sentence that names the upload by its own name where it cannot drive a photo."""
    with _named(path):
        _check_size(path, limits.video_bytes, "video")
        if holds_motion(path):
            raise InputError(f"{path} is a motion file: the page takes videos; dagan animate takes motion files")
        if is_photo(path):
            raise InputError(f"{path} is a photo, and nothing moves in it: give a video of a face")
        _check_animation(path, limits) if is_animation(path) else _check_container(path, limits)
        with open_video(path) as reader:
            if max(reader.width, reader.height) > limits.video_side:
                raise _too_wide(path, reader.width, reader.height, limits)
            if reader.frame_count > limits.video_frames or reader.duration > limits.video_seconds:
                raise _too_long(path, reader.frame_count, float(reader.duration), limits)
            next(iter(reader))


def _header(path: Path) -> tuple[int, int, int]:
    """Returns width, height and number of the pictures in a file of pictures, none of which is decoded."""
    from PIL import Image

    try:
        with opened(path) as image:
            return *image.size, getattr(image, "n_frames", 1)
    except Image.DecompressionBombError:
        raise InputError(f"{path} has far too many pixels: make it smaller first") from None
    except Exception:  # What is wrong with it is said by the reader.
        return 0, 0, 0


def _check_animation(path: Path, limits: UploadLimits) -> None:
    """Measures an animated picture by its header, before its pictures are decoded for their times."""
    width, height, frames = _header(path)
    if max(width, height) > limits.video_side:
        raise _too_wide(path, width, height, limits)
    if frames > limits.video_frames:
        raise InputError(f"{path} has {frames} frames: a video may have {limits.video_frames}: cut out the part that is to drive")


def _check_container(path: Path, limits: UploadLimits) -> None:
    """Measures a video by its packets, of which none is decoded."""
    with open_container(path) as container:
        if not has_pictures(container):
            raise InputError(f"{path} has no moving pictures: give a video of a face")
        size = video_stream(container, path).codec_context
        if max(size.width, size.height) > limits.video_side:
            raise _too_wide(path, size.width, size.height, limits)
    frames, seconds, _ = packet_span(path)
    if frames > limits.video_frames or seconds > limits.video_seconds:
        raise _too_long(path, frames, float(seconds), limits)


def _too_wide(path: Path, width: int, height: int, limits: UploadLimits) -> InputError:
    return InputError(f"{path} has pictures of {width} x {height} pixels: a video's may have {limits.video_side} at most")


def _too_long(path: Path, frames: int, seconds: float, limits: UploadLimits) -> InputError:
    return InputError(
        f"{path} has {frames} frames in {seconds:.0f} seconds: a video may have {limits.video_frames} in {limits.video_seconds:.0f}: "
        "cut out the part that is to drive"
    )


def _check_size(path: Path, most: int, kind: str) -> None:
    size = path.stat().st_size
    if size > most:
        raise InputError(f"{path} has {size / _MEBI:.0f} MB: a {kind} may have {most // _MEBI}: make it smaller first")


class _named:
    """Names the upload in messages as its owner does, because the path in the private folder says nothing to them."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        if not self._path.is_file():
            raise InputError(f"{self._path.name} is not here any more: upload it again")

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, InputError):
            raise InputError(own_names(str(error), self._path)) from None


def own_names(sentence: str, *paths: Path) -> str:
    """Returns the sentence with the names alone where it has whole paths."""
    for path in paths:
        sentence = sentence.replace(str(path), path.name)
    return sentence
