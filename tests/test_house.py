"""The arrows between the rooms of the house, which `docs/architecture.md` draws: who may import whom, read from the source itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "dagan"
MOST_FILES = 160
MOST_LINES = 400

INTERFACES = ("cli", "app")
JOBS = ("animate", "depth", "train", "evaluate", "export", "bench", "synthetic", "prepare")
# Rooms that jobs share, each of which may import those after it.
SHARED = ("engine", "motion", "data", "weights", "losses", "models", "media")
# What anything may import. Among themselves they import only those after them.
GROUND = ("stream", "device", "config", "geometry", "checks", "progress", "processes", "examples", "errors")
ORDER = (*INTERFACES, *JOBS, *SHARED, *GROUND)
# The benchmark times what users call, and `Animator` is that: the Python interface, which opens an engine for a model.
PYTHON_INTERFACE = "dagan.animate.animator"


def files() -> dict[str, Path]:
    """Module name -> file of everything in the package."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = ("dagan", *path.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


FILES = files()


def imports_of(module: str) -> set[str]:
    """Modules of the package that a module imports, in functions too."""
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in FILES}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            named = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in named if name in FILES}
            # Of a package's own file only what it defines itself: its modules are found by the line above.
            if node.module in FILES and (named - set(FILES)):
                found.add(node.module)
    return found


def room(module: str) -> str:
    """The folder or file right below the package that a module belongs to."""
    return module.split(".")[1]


ARROWS = {module: imports_of(module) for module in FILES}
# The package itself gathers what users import, from every room, when it is asked for.
INSIDE = sorted(module for module in FILES if module not in ("dagan", "dagan.__main__"))


def test_modules_import_one_another_in_no_circle():
    TopologicalSorter(ARROWS).prepare()  # raises CycleError, which names the circle


def test_every_room_has_its_place():
    assert {room(module) for module in INSIDE} <= set(ORDER)


@pytest.mark.parametrize("module", INSIDE)
def test_rooms_import_only_downward(module: str):
    own = room(module)
    for imported in ARROWS[module]:
        other = room(imported)
        if other == own or (own == "bench" and imported == PYTHON_INTERFACE):
            continue
        assert ORDER.index(other) > ORDER.index(own), f"{module} imports {imported}, which lies above it"
        assert not (own in JOBS and other in JOBS), f"{module} imports {imported}: jobs do not import each other"


def test_only_interfaces_open_engines():
    door = "dagan.engine.open"
    through = {module for module, imported in ARROWS.items() if door in imported}
    assert {room(module) for module in through if module != PYTHON_INTERFACE} <= set(INTERFACES)
    # Nor does anybody else make an engine of a model.
    makers = {"dagan.engine.torch", "dagan.engine.graphs"}
    made = {module for module, imported in ARROWS.items() if makers & imported}
    assert {room(module) for module in made if module != PYTHON_INTERFACE} <= {"engine"}


def test_the_house_has_few_files_and_they_are_short():
    assert len(FILES) <= MOST_FILES
    lengths = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in FILES.items()}
    assert {module: length for module, length in lengths.items() if length > MOST_LINES} == {}


def test_the_walks_are_short_and_their_files_are_there():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    walks = re.split(r"^### ", page[page.index("## Three walks") : page.index("## Glossary")], flags=re.MULTILINE)[1:]
    assert len(walks) == 3
    for walk in walks:
        steps = re.findall(r"^\d+\. `([\w/]+\.py)`", walk, flags=re.MULTILINE)
        assert len(set(steps)) == len(steps) <= 14
        assert [step for step in steps if not (PACKAGE / step).is_file()] == []


def test_the_page_shows_every_room():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = page[page.index("## The tree") : page.index("## The arrows")]
    assert {room(module) for module in INSIDE} <= set(re.findall(r"(\w+)(?:/|\.py)", tree))


def test_preparing_starts_without_torch():
    """Every worker of a preparation is a process of its own, and torch alone takes seconds and 200 MB in each."""
    code = "import sys, dagan.prepare.job; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
