"""Raw videos for the tests of preparing: made once, because animating a portrait takes seconds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from raw_videos import Pictures, another, scene, talking_head, write_raw


@pytest.fixture(scope="session")
def head(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    """Fifty pictures of a talking head, which can be repeated."""
    return talking_head(tmp_path_factory.mktemp("head"))


@pytest.fixture(scope="session")
def few_raws(tmp_path_factory: pytest.TempPathFactory, head: Pictures) -> Path:
    """Four short raw videos: a clip, two of them with a cut between, a face that is too small, and a shot too brief."""
    folder = tmp_path_factory.mktemp("raws")
    write_raw(folder / "one.mp4", [scene(picture) for picture in head[:34]])
    other = [scene(another(picture), place=(60, 0), seed=1) for picture in head[:32]]
    write_raw(folder / "two.mp4", [*(scene(picture) for picture in head[:32]), *other])
    write_raw(folder / "sub.mp4", [scene(picture[::6, ::6], place=(99, 99)) for picture in head[:32]])
    write_raw(folder / "brief.mp4", [scene(picture) for picture in head[:12]])
    return folder


@pytest.fixture(scope="session")
def digests() -> Callable[[Path], dict[str, str]]:
    """Names and contents of all files in a folder."""

    def of(folder: Path) -> dict[str, str]:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    return of
