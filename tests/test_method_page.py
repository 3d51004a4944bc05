"""docs/method.md: its figures are those of the code, and what refers to its headings finds them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from dagan.config import preset
from dagan.models.dagan import DaGAN

ROOT = Path(__file__).parents[1]
TEXTS = sorted(
    file
    for place in ("*.md", "src/**/*", "docs/*", "recipes/**/*", "benchmarks/*", "tests/**/*")
    for file in ROOT.glob(place)
    if file.suffix in (".py", ".md", ".yaml", ".html", ".j2")
)
PAGE = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")


def slugs(page: str) -> list[str]:
    """What the headings of a page are called in links: small letters, hyphens for spaces, no other marks."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings]


def test_headings_differ() -> None:
    assert len(set(slugs(PAGE))) == len(slugs(PAGE))


def test_links_within_the_page_lead_somewhere() -> None:
    assert not set(re.findall(r"\]\(#([^)]+)\)", PAGE)) - set(slugs(PAGE))


@pytest.mark.parametrize("name", ["paper-256", "paper-spade-256", "lite-256", "plus-256", "plus-lite-256"])
def test_parameters_are_those_of_the_presets(name: str) -> None:
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` | ["))
    with torch.device("meta"):
        model = DaGAN(preset(name))
    parts = [model, model.depth_network, model.keypoint_detector, model.dense_motion, model.generator]
    counts = [sum(p.numel() for p in part.parameters()) for part in parts if part is not None]
    assert re.findall(r"([\d.]+) M", row) == [f"{count / 1e6:.2f}" for count in counts]


def test_references_name_headings_that_exist() -> None:
    named = {
        (file.relative_to(ROOT).as_posix(), heading)
        for file in TEXTS
        for heading in re.findall(r"\bmethod\.md#([\w-]*)", file.read_text(encoding="utf-8"))
    }
    assert len({file for file, _ in named}) > 20  # or the search has gone blind
    assert not {(file, heading) for file, heading in named if heading not in slugs(PAGE)}


def test_nothing_refers_to_a_page_that_readers_do_not_have() -> None:
    found = [file.name for file in TEXTS if re.search(r"\bMETHO[D]\b", file.read_text(encoding="utf-8"))]
    assert not found
