"""The documentation site builds without a warning, its links lead somewhere, and its pages ask nothing of any other host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
import typer
import yaml

import dagan
from dagan.cli import app

ROOT = Path(__file__).parents[1]
MARKDOWN = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
# Where elements name what a browser fetches by itself. A link to follow, <a href>, is none of these.
FETCHED = {"href": ("link",), "src": ("script", "img", "iframe", "source", "video", "audio", "embed", "track"), "srcset": ("img", "source"),
           "poster": ("video",), "data": ("object",)}  # fmt: skip
# What the theme's script fetches from elsewhere does not begin before one of these is on a page.
FETCHING_CLASSES = {"mermaid", "md-source__repository", "arithmatex"}


class Anchors(HTMLParser):
    """What one page names: places, links to follow, what is fetched, classes, and the text of its scripts and styles."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.places: set[str] = {""}
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.classes: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.places.add(value)
            if name == "class":
                self.classes |= set((value or "").split())
            if name == "href" and tag == "a" and value:
                self.links.append(value)
            if tag in FETCHED.get(name, ()) and value:
                self.fetched.append(value)
            if name == "style":
                self.fetched += re.findall(r"url\(([^)]*)\)", value or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site").resolve()
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    # A proxy that does not exist: building may fetch nothing either.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    environment = os.environ | nowhere | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Anchors]:
    found = {page: Anchors(page) for page in sorted(site.rglob("*.html"))}
    assert len(found) > 14
    return found


def target(page: Path, link: str) -> tuple[Path, str]:
    """File and place that a link of a page leads to."""
    path, place = urldefrag(link)
    return (page.parent / unquote(path)).resolve() if path else page, unquote(place)


def test_links_lead_somewhere(pages: dict[Path, Anchors], site: Path) -> None:
    lost = []
    for page, anchors in pages.items():
        if page.name == "404.html":  # its links begin at the root of the host
            continue
        for link in anchors.links:
            if urlsplit(link).scheme:
                continue
            file, place = target(page, link)
            if file.is_dir():
                file /= "index.html"
            if not file.is_file() or (file in pages and place not in pages[file].places):
                lost.append(f"{page.relative_to(site)}: {link}")
    assert not lost


def test_pages_fetch_from_nowhere_else(pages: dict[Path, Anchors], site: Path) -> None:
    foreign = [f"{page.name}: {url}" for page, anchors in pages.items() for url in anchors.fetched if urlsplit(url).netloc]
    for style in site.rglob("*.css"):
        named = re.findall(r"url\(\s*['\"]?((?:https?:)?//[^)]*)\)|@import\s+([^;]+);", style.read_text(encoding="utf-8"))
        foreign += [f"{style.name}: {url}" for url in named]
    assert not foreign
    for page, anchors in pages.items():
        assert not anchors.classes & FETCHING_CLASSES, page


def test_every_public_name_is_described(pages: dict[Path, Anchors]) -> None:
    page = next(anchors for file, anchors in pages.items() if file.name == "api.html")
    assert {f"dagan.{name}" for name in dagan.__all__} <= page.places


def test_names_stand_for_what_python_gives(site: Path) -> None:
    """`dagan.load` is a function; a module of that name is not what is described."""
    text = re.sub(r"<[^>]+>", "", (site / "api.html").read_text(encoding="utf-8"))
    assert "name_or_path" in text
    assert ":::" not in text


def test_no_markup_is_left_over_as_text(pages: dict[Path, Anchors]) -> None:
    """Lists and tables that a code host understands but the site does not show their marks at the start of a line."""
    left = []
    for page in pages:
        text = re.sub(r"<pre.*?</pre>|<table.*?</table>|<(script|style).*?</\1>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        left += [f"{page.name}: {line}" for line in re.findall(r"^\s*(?:\||- \S|```|\*\*).*", re.sub(r"<[^>]+>", "", text), re.MULTILINE)]
    assert not left


def test_every_option_of_animate_is_explained() -> None:
    command = typer.main.get_command(app).commands["animate"]
    text = (ROOT / "docs" / "animate.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w-])--?[\w-]+", text))
    options = {parameter.name: {*parameter.opts, *parameter.secondary_opts} for parameter in command.params if parameter.opts[0][0] == "-"}
    assert len(options) > 20
    assert not {name for name, spellings in options.items() if not spellings & named and name != "help"}


def test_every_page_is_in_the_navigation() -> None:
    """Which mkdocs demands, apart from those that mkdocs.yml excepts."""
    settings = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), _Loader)
    named = {file for part in settings["nav"] for file in re.findall(r"[\w-]+\.md", str(part))}
    assert named >= {page.name for page in ROOT.glob("docs/*.md")}


class _Loader(yaml.SafeLoader):
    """Takes the Python object of a setting as nothing."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: page.name)
def test_relative_links_are_right_on_a_code_host_too(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if urlsplit(link).scheme:
            continue
        file, place = target(page, link)
        if not file.exists() or (place and place not in slugs(file)):
            lost.append(link)
    assert not lost


def slugs(page: Path) -> set[str]:
    """What headings are called in links: small letters, hyphens for spaces, no other marks."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("picture", sorted(ROOT.glob("docs/*.jpg")), ids=lambda picture: picture.name)
def test_pictures_are_small(picture: Path) -> None:
    assert picture.stat().st_size < 200_000
