"""What the documentation site needs beside its pages: those of the repository's root, and links that work there and on a code host.

mkdocs.yml names this file as hooks, and `NamesFirst` as an extension of griffe, which reads the docstrings.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from griffe import Alias, Extension, GriffeLoader, Module
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
# File of the root: its page. README.md has a page of its own on the site, which links to it lead to.
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "README.md": "index.md"}
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")
_NAMED = re.compile(r"\bdocs/([\w-]+)\.md(#[\w-]+)?")
_TAGS = re.compile(r"(<a\b.*?</a>|<pre\b.*?</pre>|<[^>]+>)", re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of the root that docs/ has no page of its own for."""
    for source, page in PAGES.items():
        if files.get_file_from_path(page) is None:
            files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links as a code host follows them (`../CONTRIBUTING.md`, `docs/export.md`) into links between the site's pages."""
    folder = "docs" if page.file.generated_by is None else ""

    def moved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[1]))
        return PAGES.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else link[1])

    return _LINK.sub(moved, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Makes links of pages that are only named, as docstrings name docs/method.md#keypoints."""

    def linked(name: re.Match[str]) -> str:
        file = files.get_file_from_path(f"{name[1]}.md")
        return name[0] if file is None else f'<a href="{file.url_relative_to(page.file)}{name[2] or ""}">{name[0]}</a>'

    return "".join(part if part.startswith("<") else _NAMED.sub(linked, part) for part in _TAGS.split(html))


class NamesFirst(Extension):
    """`dagan.load` is a function, and its module is called load too. Python gives the function; griffe would give the module."""

    def on_package(self, *, pkg: Module, loader: GriffeLoader, **kwargs: Any) -> None:
        """Leads each name of the package that ends at a module to what that module has under the same name."""
        for name, member in list(pkg.members.items()):
            if not isinstance(member, Alias) or not member.target_path.startswith(f"{pkg.path}."):
                continue
            found = loader.modules_collection[member.target_path]
            if found.is_module and name in found.members:
                pkg.members[name] = Alias(name, f"{member.target_path}.{name}", parent=pkg)
