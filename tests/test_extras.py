"""Extras against what pyproject declares, and commands where one is not installed."""

import importlib.util
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import dagan.errors
from dagan.errors import EXTRAS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def declared(requirements: list[str]) -> set[str]:
    return {_plain(re.split(r"[;>\[ ]", requirement)[0]) for requirement in requirements}


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


def test_every_module_of_an_extra_is_brought_by_it() -> None:
    owners = packages_distributions()
    for extra, modules in EXTRAS.items():
        for module in modules:
            names = {_plain(owner) for owner in owners[module]}
            assert names & declared(PROJECT["optional-dependencies"][extra]), (extra, module)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("train", "train depth RECIPE"), ("train", "train gan RECIPE"), ("train", "ablate depth RECIPE -o OUT --synthetic CLIPS"),
        ("evaluate", "evaluate reconstruction CLIPS"), ("evaluate", "evaluate cross-identity CLIPS"),
        ("export", "export -o OUT"), ("export", "animate PHOTO VIDEO -o OUT --runtime openvino"), ("hub", "bench --model somebody/model"),
        ("credentials", "animate PHOTO VIDEO -o OUT --credentials PHOTO PHOTO"),
        ("app", "app"), ("app", "live --camera VIDEO"), ("live", "live --camera VIDEO --to virtual-camera"),
        ("prepare", "prepare CLIPS -o OUT"), ("cluster", "prepare CLIPS -o OUT --cluster local"),
    ],
)  # fmt: skip
def test_a_missing_extra_is_said_in_a_sentence(extra, words, command, clips_folder, portraits_folder, tmp_path, monkeypatch) -> None:
    there = importlib.util.find_spec

    def hidden(name: str, package: str | None = None):
        return None if name.partition(".")[0] in EXTRAS[extra] else there(name, package)

    for module in [m for m in sys.modules if m.partition(".")[0] in EXTRAS[extra]]:
        monkeypatch.delitem(sys.modules, module)
    for module in EXTRAS[extra]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(dagan.errors, "find_spec", hidden)
    monkeypatch.setattr("dagan.export.job.find_spec", hidden)
    monkeypatch.setattr("dagan.engine.sessions.find_spec", hidden)
    places = {
        "RECIPE": ROOT / "recipes" / "tiny-depth.yaml", "CLIPS": clips_folder, "VIDEO": min(clips_folder.iterdir()),
        "PHOTO": min(portraits_folder.iterdir()), "OUT": tmp_path / "out.mp4",
    }  # fmt: skip
    code, _, complaint = command(*(places.get(word, word) for word in words.split()))
    assert code == 2, complaint
    assert complaint.count("\n") == 1
    assert f"pip install 'dagan[{extra}]'" in complaint
