"""The wheel alone is enough: built, installed into a fresh environment without a network, and used from an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from dagan.media.video import open_video

ROOT = Path(__file__).parents[1]
NEEDED = (
    "weights/bundled/lite-256.safetensors", "media/bundled/face_landmarker.task", "media/bundled/NOTICE.md",
    "losses/bundled/squeezenet1_1_imagenet_fp16.safetensors", "losses/bundled/NOTICE.md",
    "evaluate/templates/report.html.j2", "evaluate/templates/report.md.j2", "evaluate/templates/report.css",
    "evaluate/templates/sort.js",
    "examples/astronaut.png", "examples/speech.motion", "examples/NOTICE.md", "py.typed",
)  # fmt: skip
pytestmark = pytest.mark.slow


def run(*words: object, folder: Path) -> str:
    """What a program prints; it must succeed, and it sees neither this repository's sources nor a network."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "PIP_FIND_LINKS")
    surroundings = {name: value for name, value in os.environ.items() if name not in hidden}
    surroundings |= {"DAGAN_OFFLINE": "1", "PIP_NO_INDEX": "1", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [str(word) for word in words], cwd=folder, env=surroundings, capture_output=True, encoding="utf-8", errors="replace", timeout=280
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", folder, ROOT, folder=folder)
    (built,) = folder.glob("dagan-*.whl")
    return built


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a fresh environment that holds the wheel and sees the libraries of the present one.

    The present environment's own dagan is not seen: the fresh environment's packages come first.
    """
    place = tmp_path_factory.mktemp("fresh")
    venv.create(place, with_pip=False, symlinks=os.name != "nt")
    base = {"base": str(place), "platbase": str(place)}
    paths = {name: Path(sysconfig.get_path(name, "venv", base)) for name in ("purelib", "scripts")}
    libraries = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (paths["purelib"] / "libraries.pth").write_text("\n".join(libraries) + "\n", encoding="utf-8")
    python = paths["scripts"] / ("python.exe" if os.name == "nt" else "python")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--force-reinstall",
        "--ignore-installed", wheel, folder=place)  # fmt: skip
    found = Path(run(python, "-c", "import dagan; print(dagan.__file__)", folder=place).strip())
    assert found.resolve().is_relative_to(place.resolve()), f"dagan is imported from {found}"
    return paths["scripts"]


def test_the_wheel_holds_the_package_and_what_it_reads(wheel: Path) -> None:
    held = {entry.filename: entry.file_size for entry in zipfile.ZipFile(wheel).infolist()}
    assert not {f"dagan/{name}" for name in NEEDED} - held.keys()
    for file in (ROOT / "src" / "dagan").rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            name = file.relative_to(ROOT / "src").as_posix()
            assert held.get(name) == file.stat().st_size, f"{name} is not in the wheel, or not whole"
    strangers = {name for name in held if not name.startswith(("dagan/", "dagan-"))}
    assert not strangers, f"the wheel would install {', '.join(sorted(strangers))}"


def test_the_installed_program_answers(programs: Path, tmp_path: Path) -> None:
    assert run(programs / "dagan", "--version", folder=tmp_path).startswith("dagan 0.")
    assert " demo " in run(programs / "dagan", "--help", folder=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_installed_program_shows_the_demo(programs: Path, tmp_path: Path) -> None:
    assert "demo.mp4: 250 frames, 10.00 s" in run(programs / "dagan", "demo", folder=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["demo.mp4"]
    with open_video(tmp_path / "demo.mp4") as reader:
        frames = [frame.image for frame in reader]
    assert len(frames) == 250
    assert frames[0].shape == (256, 256, 3)
    moved = max(abs(frame.astype(int) - frames[0]).mean() for frame in frames[::25])
    assert moved > 1, "the portrait does not move"
