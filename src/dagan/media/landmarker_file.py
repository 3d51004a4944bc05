"""Where the Face Landmarker bundle is: a path given, the environment, the user's cache; else it is fetched once."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path

from dagan.errors import InputError
from dagan.media.landmarks import read_bundle
from dagan.media.notices import Warn, to_stderr
from dagan.media.output import atomic_output

VARIABLE = "DAGAN_FACE_LANDMARKER"
OFFLINE = "DAGAN_OFFLINE"
URL = "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task"
SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
SIZE = 3_758_596
_CONNECT_SECONDS = 5
_TOTAL_SECONDS = 120


def find_landmarker_file(path: Path | str | None = None, *, download: bool = True, warn: Warn = to_stderr) -> Path | None:
    """The bundle's file; None when there is none and it cannot be fetched, which `warn` hears.

    Looked for in this order: `path`, the file named by DAGAN_FACE_LANDMARKER, the user's cache. Fetching says one line before
    it begins; it is left out without `download` or when DAGAN_OFFLINE is set. A named file with other contents than the
    known version's is used with a warning. Raises InputError when a named file is missing or no bundle.
    """
    named = path or os.environ.get(VARIABLE)
    if named:
        return _check_named(Path(named), warn)
    cached = cache_folder() / "face_landmarker.task"
    if cached.is_file() and _digest(cached.read_bytes()) == SHA256:
        return cached
    if not download or os.environ.get(OFFLINE):
        return None
    return cached if _fetch(cached, warn) else None


def cache_folder() -> Path:
    """The folder for files that can be fetched again, as the platform has it."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
        return Path(base) / "dagan" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "dagan"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dagan"


def _check_named(path: Path, warn: Warn) -> Path:
    read_bundle(path)
    if _digest(path.read_bytes()) != SHA256:
        warn(f"{path} is not the known version of the face landmarker bundle (its checksum differs): it is used all the same")
    return path


def _fetch(target: Path, warn: Warn) -> bool:
    warn(f"Fetching the face landmarker (3.6 MB, once) from {URL} to {target}")
    try:
        content = _download()
        if _digest(content) != SHA256:
            warn("What came for the face landmarker is damaged or another version (its checksum differs): it is not used")
            return False
        with atomic_output(target, overwrite=True) as temporary:
            temporary.write_bytes(content)
    except (OSError, InputError) as error:  # URLError and timeouts are OSErrors
        warn(f"The face landmarker could not be fetched ({getattr(error, 'reason', None) or error})")
        return False
    return True


def _download() -> bytes:
    """The bytes at URL, at most a little more than expected, within a time limit. Raises OSError."""
    import urllib.request  # slow to import, and hardly ever needed

    deadline = time.monotonic() + _TOTAL_SECONDS
    parts: list[bytes] = []
    with urllib.request.urlopen(URL, timeout=_CONNECT_SECONDS) as response:
        while part := response.read(1 << 16):
            parts.append(part)
            if sum(map(len, parts)) > 2 * SIZE:
                raise OSError("far more came than expected")
            if time.monotonic() > deadline:
                raise TimeoutError(f"not done after {_TOTAL_SECONDS} s")
    return b"".join(parts)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
