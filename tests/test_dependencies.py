"""What the package imports is declared: the core's libraries as dependencies, an extra's only where that extra is needed."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "dagan"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Import names that are not the distribution's own name.
DISTRIBUTIONS = {"PIL": "pillow", "skimage": "scikit-image", "yaml": "pyyaml", "c2pa": "c2pa-python"}
# Folders whose modules are imported only by somebody who has the extra of that name; export's import it within functions.
ROOMS = ("train", "evaluate", "app")
SHIPPED = ("train", "evaluate", "hub", "export", "shards", "app", "live", "prepare", "cluster", "credentials")


def _names(requirements: list[str]) -> set[str]:
    return {_canonical(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements}  # type: ignore[index]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


CORE = _names(PROJECT["dependencies"])
EXTRAS = {name: _names(PROJECT["optional-dependencies"][name]) for name in SHIPPED}


def _imports(node: ast.AST, lazy: bool = False) -> Iterator[tuple[str, bool, int]]:
    """Distribution, whether it is imported only when a function runs or for types alone, and the line."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        absent = isinstance(node, ast.ImportFrom) and node.level > 0
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [] if absent else [node.module or ""]
        for top in (module.partition(".")[0] for module in modules):
            if top not in sys.stdlib_module_names and top != "dagan":
                yield _canonical(DISTRIBUTIONS.get(top, top)), lazy, node.lineno
    only_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    inside = lazy or only_types or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    for child in ast.iter_child_nodes(node):
        yield from _imports(child, inside)


def _faults(path: Path, tree: ast.AST) -> list[str]:
    room = path.parts[0] if path.parts[0] in ROOMS else None
    anywhere = CORE.union(*EXTRAS.values())
    faults = []
    for name, lazy, line in _imports(tree):
        if name not in anywhere:
            faults.append(f"{path}:{line} imports {name}, which pyproject.toml does not declare")
        elif not lazy and name not in CORE | EXTRAS.get(room or "", set()):
            faults.append(f"{path}:{line} imports {name} of an extra when it is loaded: import it within the function that needs it")
    return faults


def test_every_import_is_declared() -> None:
    files = sorted(SOURCE.rglob("*.py"))
    assert len(files) > 100
    assert [fault for f in files for fault in _faults(f.relative_to(SOURCE), ast.parse(f.read_text(encoding="utf-8")))] == []


@pytest.mark.parametrize(
    ("path", "text", "fault"),
    [
        ("media/a.py", "import matplotlib.pyplot", "does not declare"),
        ("media/a.py", "def f():\n    from matplotlib import cm", "does not declare"),
        ("data/a.py", "import kornia", "of an extra"),
        ("evaluate/a.py", "from lightning_fabric import Fabric", "of an extra"),
        ("data/a.py", "def f():\n    import kornia", None),
        ("train/a.py", "from lightning_fabric import Fabric", None),
        ("media/a.py", "from PIL import Image\nimport scipy.ndimage\nfrom . import b", None),
    ],
)
def test_undeclared_imports_are_found(path: str, text: str, fault: str | None) -> None:
    found = _faults(Path(path), ast.parse(text))
    assert [fault in text for text in found] == [True] if fault else found == []


def test_every_dependency_has_a_lowest_version() -> None:
    shipped = [r for name in SHIPPED for r in PROJECT["optional-dependencies"][name]]
    for requirement in [*PROJECT["dependencies"], *shipped]:
        assert re.fullmatch(r"[\w.-]+(\[\w+\])?>=[\d.]+", requirement), f"{requirement}: the script .ci/lowest reads name>=version"


def test_every_declared_dependency_is_locked() -> None:
    locked = _names((ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines())
    assert CORE.union(*EXTRAS.values()) <= locked


def test_archives_are_written_with_arrays_alone() -> None:
    """numpy before 2.1 takes `allow_pickle` of savez for one more array, and writes it."""
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr.startswith("savez"):
                assert "allow_pickle" not in {keyword.arg for keyword in node.keywords}, f"{file}:{node.lineno}"
