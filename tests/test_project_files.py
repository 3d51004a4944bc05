"""Files about the project agree with the code: versions, paths that are named, hooks and the continuous integration."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
YAML_FILES = sorted([*ROOT.glob(".github/**/*.yml"), ROOT / ".pre-commit-config.yaml", ROOT / "CITATION.cff"])


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_versions_agree() -> None:
    assert yaml.safe_load(text("CITATION.cff"))["version"] == VERSION
    headings = re.findall(r"^## \[(.+?)\](?: - (\S+))?$", text("CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == ("Unreleased", "")
    assert headings[1][0] == VERSION
    assert headings[1][1] == str(yaml.safe_load(text("CITATION.cff"))["date-released"])


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "CHANGELOG.md", ".github/pull_request_template.md"])
def test_paths_that_are_named_exist(page: str) -> None:
    gone = {"examples/"}  # the changelog says where it went
    named = re.findall(r"`([\w./-]*/[\w./-]*|[\w.-]+\.(?:md|py|toml|lock|yaml))`", text(page))
    missing = [name for name in named if name not in gone and not (ROOT / name).exists()]
    assert not missing


def test_the_tests_of_the_lowest_versions_exist() -> None:
    named = re.findall(r"\btests/[\w./]+", text(".ci/lowest"))
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_names_of_the_code_in_contributing_exist() -> None:
    sources = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "src").rglob("*.py"))
    prose = re.sub(r"`[\w.-]+\.(?:md|toml|lock|yml)`", "", text("CONTRIBUTING.md"))
    named = set(re.findall(r"`(\w+)(?:\.[a-z]+|\([^`]*\))?`", prose))
    defined = {name for name in named if re.search(rf"\b(?:class|def) {name}\b|^\s*{name}\b\s*[:=]", sources, re.MULTILINE)}
    assert named == defined


@pytest.mark.parametrize("file", YAML_FILES, ids=lambda file: file.name)
def test_settings_are_yaml(file: Path) -> None:
    assert isinstance(yaml.safe_load(file.read_text(encoding="utf-8")), dict)


def test_every_system_runs_the_same_script() -> None:
    job = yaml.safe_load(text(".github/workflows/ci.yml"))["jobs"]["test"]
    assert {name.partition("-")[0] for name in job["strategy"]["matrix"]["os"]} == {"ubuntu", "macos", "windows"}
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert job["defaults"]["run"]["shell"] == "bash"
