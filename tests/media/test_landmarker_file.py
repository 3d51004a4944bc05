"""Where the bundle is looked for, and fetching it once."""

import hashlib
import io
import sys
import zipfile
from pathlib import Path

import pytest

from dagan.errors import InputError
from dagan.media import landmarker_file as module
from dagan.media.landmarker_file import cache_folder, find_landmarker_file


@pytest.fixture
def content(monkeypatch):
    """A small bundle that passes for the known version."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for part in ("face_detector.tflite", "face_landmarks_detector.tflite", "face_blendshapes.tflite"):
            file.writestr(part, part)
    monkeypatch.setattr(module, "SHA256", hashlib.sha256(buffer.getvalue()).hexdigest())
    return buffer.getvalue()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache in the test's folder, and no settings from outside."""
    monkeypatch.delenv("DAGAN_FACE_LANDMARKER", raising=False)
    monkeypatch.delenv("DAGAN_OFFLINE", raising=False)
    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path / "cache" / "dagan")
    return tmp_path / "cache" / "dagan" / "face_landmarker.task"


class Answers:
    """Takes the place of urlopen; counts how often it is asked."""

    def __init__(self, monkeypatch, content):
        self.content, self.asked = content, []
        monkeypatch.setattr("urllib.request.urlopen", self)

    def __call__(self, url, timeout):
        self.asked.append((url, timeout))
        if isinstance(self.content, Exception):
            raise self.content
        return io.BytesIO(self.content)


def test_fetched_once_with_one_line(cache, content, monkeypatch):
    web, said = Answers(monkeypatch, content), []
    assert find_landmarker_file(warn=said.append) == cache
    assert cache.read_bytes() == content
    assert [p.name for p in cache.parent.iterdir()] == ["face_landmarker.task"]
    assert len(said) == 1
    assert "3.6 MB" in said[0]
    assert module.URL in said[0]
    assert web.asked == [(module.URL, 5)]
    assert find_landmarker_file(warn=said.append) == cache
    assert (len(said), len(web.asked)) == (1, 1)


@pytest.mark.parametrize("failure", [OSError("unreachable"), TimeoutError("timed out"), ConnectionResetError("reset")])
def test_offline_gives_none_and_says_why(cache, monkeypatch, failure):
    Answers(monkeypatch, failure)
    said = []
    assert find_landmarker_file(warn=said.append) is None
    assert len(said) == 2
    assert str(failure) in said[1]
    assert not cache.exists()


def test_wrong_contents_are_not_kept(cache, content, monkeypatch):
    Answers(monkeypatch, content[:-10])
    said = []
    assert find_landmarker_file(warn=said.append) is None
    assert "checksum" in said[-1]
    assert not cache.exists()


def test_endless_answers_are_cut(cache, monkeypatch):
    monkeypatch.setattr(module, "SIZE", 100_000)
    Answers(monkeypatch, bytes(1_000_000))
    said = []
    assert find_landmarker_file(warn=said.append) is None
    assert "far more" in said[-1]


def test_slow_answers_are_cut(cache, content, monkeypatch):
    clock = iter([0.0, 1000.0, 2000.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    Answers(monkeypatch, content)
    said = []
    assert find_landmarker_file(warn=said.append) is None
    assert "not done" in said[-1]


def test_damaged_cache_is_fetched_again(cache, content, monkeypatch):
    cache.parent.mkdir(parents=True)
    cache.write_bytes(b"half")
    Answers(monkeypatch, content)
    assert find_landmarker_file(warn=lambda _: None) == cache
    assert cache.read_bytes() == content


def test_no_network_unless_wanted(cache, content, monkeypatch):
    web, said = Answers(monkeypatch, content), []
    assert find_landmarker_file(download=False, warn=said.append) is None
    monkeypatch.setenv("DAGAN_OFFLINE", "1")
    assert find_landmarker_file(warn=said.append) is None
    assert (web.asked, said) == ([], [])


def test_named_files_come_first(cache, content, tmp_path, monkeypatch):
    cache.parent.mkdir(parents=True)
    cache.write_bytes(content)
    for name in ("argument.task", "variable.task"):
        (tmp_path / name).write_bytes(content)
    monkeypatch.setenv("DAGAN_FACE_LANDMARKER", str(tmp_path / "variable.task"))
    assert find_landmarker_file(tmp_path / "argument.task") == tmp_path / "argument.task"
    assert find_landmarker_file() == tmp_path / "variable.task"
    monkeypatch.delenv("DAGAN_FACE_LANDMARKER")
    assert find_landmarker_file() == cache


def test_named_files_that_do_not_serve(cache, content, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="does not exist"):
        find_landmarker_file(tmp_path / "none.task")
    (tmp_path / "text.task").write_text("text")
    monkeypatch.setenv("DAGAN_FACE_LANDMARKER", str(tmp_path / "text.task"))
    with pytest.raises(InputError, match=r"text\.task is no face landmarker bundle"):
        find_landmarker_file()


def test_another_version_is_used_with_a_warning(cache, content, tmp_path):
    path = tmp_path / "other.task"
    path.write_bytes(content)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("more", "more")
    said = []
    assert find_landmarker_file(path, warn=said.append) == path
    assert len(said) == 1
    assert "checksum" in said[0]


def test_cache_folder_that_cannot_be_made(cache, content, monkeypatch):
    cache.parent.parent.write_text("a file where the folder should be")
    Answers(monkeypatch, content)
    said = []
    assert find_landmarker_file(warn=said.append) is None
    assert "could not be fetched" in said[-1]


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/x/cache"}, Path("/x/cache/dagan")),
        ("linux", {}, Path("/home/me/.cache/dagan")),
        ("darwin", {}, Path("/home/me/Library/Caches/dagan")),
        ("win32", {"LOCALAPPDATA": "/c/Local"}, Path("/c/Local/dagan/Cache")),
        ("win32", {}, Path("/home/me/AppData/Local/dagan/Cache")),
    ],
)
def test_cache_folder_of_each_platform(monkeypatch, platform, variables, expected):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == expected
