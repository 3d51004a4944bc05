"""The commands in README.md and docs/ run as they are written, on small made-up files and with small settings after them.

Options and keys that come later win, so what is written is parsed whole: a command, an option or a key that does not exist fails.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
import typer
from PIL import Image
from safetensors.torch import load_file

from dagan.cli import app
from dagan.cli.animate import PORTRAIT
from dagan.config import preset
from dagan.models.depth import DepthNetwork
from dagan.train.depth import save_depth
from onnx_networks import onnx_flattening, onnx_heatmaps
from parity.released_files import write_small
from running_samples import save_tiny_model

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Appended to every command that has the option.
SMALL_OPTIONS = {
    "--overwrite": [], "--device": ["cpu"], "--every": ["8"], "--pictures": ["1"], "--seconds": ["0.01"], "--workers": ["1"],
    "--image-size": ["64"],
}  # fmt: skip
# Appended to single commands.
SMALL = {
    "bench": ["--frames", "2", "--runtime", "torch", "--model", "tiny.safetensors"],
    "export": ["--model", "tiny.safetensors"],
    "app": ["--model", "tiny.safetensors", "--port", "0", "--no-browser"],
    "live": ["--model", "tiny.safetensors", "--port", "0", "--no-browser", "--camera", "driving.mp4"],
    "synth": ["--clips", "2", "--frames", "18", "--size", "64"],
    "evaluate reconstruction": ["--size", "64"],
    "evaluate cross-identity": ["--size", "64"],
}
_TRAINING = [
    "batch_size=2", "max_steps=2", "data.size=64", "data.hold_out=0.3", "precision=32-true", "accelerator=cpu", "threads=1", "log_every=1",
    "validate_every=2", "picture_every=2", "validation_samples=2",
]  # fmt: skip
# These get a small model where none is named. What is driven by landmarks needs the bundled one.
_DRAWING = ("animate", "evaluate reconstruction", "evaluate cross-identity")
SMALL["pack"] = ["--size", "64", "--no-landmarks", "--every", "1"]
SMALL["train gan"] = [
    *_TRAINING, "model.image_size=64", "model.motion_size=32", "loss.perceptual_scales=2", "loss.perceptual_features=squeezenet",
    "discriminator_width=8", "discriminator_max_width=16",
]  # fmt: skip
SMALL["train depth"] = [*_TRAINING, "views.frames=2", "views.step=1", "views.reach=2", "views.rounds=1"]
SMALL["ablate gan"] = [*SMALL["train gan"], "--only", "RGB only", "--seed", "0"]
SMALL["ablate depth"] = [*SMALL["train depth"], "views.rounds=0", "data.hold_out=0", "--only", "ours, pairs alone"]


def fenced(page: Path) -> list[str]:
    """The `dagan ...` lines of a page's code blocks."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip().startswith("dagan ")]


def inline(page: Path) -> list[str]:
    """The `dagan ...` words in its text."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [" ".join(found.split()) for found in re.findall(r"`(dagan [^`]+)`", text)]


def found_command(words: list[str]) -> tuple[str, click.Command]:
    """The command that words after "dagan" name, and its own words."""
    command: click.Command = typer.main.get_command(app)
    named: list[str] = []
    for word in words:
        if not hasattr(command, "commands"):
            break
        assert word in command.commands or word.startswith("-"), f"there is no command dagan {' '.join([*named, word])}"
        if word.startswith("-"):
            break
        named.append(word)
        command = command.commands[word]
    return " ".join(named), command


def options_of(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}


LINES = [(page, line) for page in PAGES for line in fenced(page)]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, write_clip: Callable[[Path, list[np.ndarray]], None]) -> Path:
    """Everything that the pages' commands name and that no earlier command of theirs makes."""
    folder = tmp_path_factory.mktemp("work")
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    photo = Image.open(PORTRAIT).convert("RGB").resize((192, 192))
    photo.save(folder / "me.jpg")
    swinging = [np.asarray(photo.rotate(2 * np.sin(i / 2), translate=(i % 3, 0))) for i in range(10)]
    write_clip(folder / "driving.mp4", swinging[:4])
    (folder / "frames").mkdir()
    (folder / "path" / "to" / "raws").mkdir(parents=True)
    write_clip(folder / "path" / "to" / "raws" / "talk.mp4", swinging)
    (folder / "wanted.csv").write_text("video,start,end,left,top,right,bottom\ntalk,0,0.3,0,0,1,1\n")
    for i, frame in enumerate(swinging[:4]):
        Image.fromarray(frame).save(folder / "frames" / f"{i}.png")
    for name in ("path/to/clips", "CLIPS", "MIX", "path/to/results/of/another/program", "peer-a", "peer-b"):
        (folder / name).mkdir(parents=True)
        for i in range(3):
            write_clip(folder / name / f"id{i}#v#0.mp4", swinging)
    (folder / "VOXCELEB" / "test").mkdir(parents=True)
    vox = [f"id1028{i}#v#000001#000010.mp4" for i in range(2)]
    for name in vox:
        write_clip(folder / "VOXCELEB" / "test" / name, swinging)
    for name, other in (("vox_evaluation.csv", vox[0]), ("vox_cross_id_evaluation.csv", vox[1])):
        (folder / name).write_text(f"source,driving\n/a/test/{vox[0]}/0000001.png,/a/test/{other}/0000007.png\n")
    for name in ("path/to/portraits", "PORTRAITS"):
        (folder / name).mkdir(parents=True)
        photo.save(folder / name / "a.png")
    (folder / "pairs.csv").write_text("source,driving\nme.jpg,driving.mp4\n", encoding="utf-8")
    save_tiny_model(folder / "tiny.safetensors")
    for name in ("arcface.onnx", "ARCFACE"):
        onnx_flattening(folder / name)
    onnx_heatmaps(folder / "FAN.onnx")
    save_depth(folder / "depth.safetensors", DepthNetwork(preset("lite-256").depth), {})
    released = write_small(folder / "DEPTH_FOLDER")
    shutil.move(released.checkpoint, folder / "CHECKPOINT.pth.tar")
    return folder


@pytest.fixture(scope="module")
def has_run() -> set[tuple[str, ...]]:
    """The commands that have run."""
    return set()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("page", "line"), LINES, ids=[f"{page.stem}: {line}" for page, line in LINES])
def test_commands_run_in_their_order(
    page: Path, line: str, workspace: Path, command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch,
    known_graphs: None, has_run: set[tuple[str, ...]],
) -> None:  # fmt: skip
    """In one folder: a command finds what those above it on its page have written."""
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("XDG_CACHE_HOME", str(workspace / "cache"))
    monkeypatch.setenv("DAGAN_OFFLINE", "1")
    monkeypatch.setattr("dagan.app.server.PageServer.run", lambda self: None)  # A page is served until somebody ends it.
    words = shlex.split(line, comments=True)[1:]
    name, found = found_command(words)
    if tuple(words) in has_run:
        return  # It is the same on every page that names it.
    has_run.add(tuple(words))
    known = options_of(found)
    more = [part for option, value in SMALL_OPTIONS.items() if option in known for part in (option, *value)] + SMALL.get(name, [])
    if name in _DRAWING and not {"--model", "--keypoints"} & set(words):
        more += ["--model", "tiny.safetensors"]
    code, _, err = command(*words, *more)
    assert code == 0, err[-2000:]


@pytest.mark.slow
def test_stage_2_learnt_on_what_stage_1_left(workspace: Path) -> None:
    """README's three lines of training hand on: the weights are those of the stages before."""
    runs = workspace / "runs"
    depth = load_file(runs / "depth-lite" / "depth.safetensors")
    for size in (128, 256):
        model = load_file(runs / f"gan-lite-{size}" / "model.safetensors")
        assert all(bool((model[f"depth_network.{key}"] == value).all()) for key, value in depth.items())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_in_the_text_exist(page: Path) -> None:
    for words in [line.split()[1:] for line in inline(page)] + [shlex.split(line, comments=True)[1:] for line in fenced(page)]:
        name, found = found_command(words)
        unknown = {word.partition("=")[0] for word in words if word.startswith("-")} - options_of(found)
        assert not unknown, f"{page.name}: dagan {name} has no {', '.join(sorted(unknown))}"


def test_what_does_not_exist_is_noticed() -> None:
    with pytest.raises(AssertionError, match="there is no command dagan evaluate everything"):
        found_command(["evaluate", "everything"])
    assert "--landmarker" not in options_of(found_command(["animate"])[1])
    assert len(fenced(ROOT / "README.md")) > 15


def test_help_is_in_whole_sentences() -> None:
    def below(command: click.Command, name: str) -> None:
        assert command.help, f"{name} has no help"
        for parameter in command.params:
            if "--help" in parameter.opts:
                continue
            text = getattr(parameter, "help", None) or ""
            assert re.fullmatch(r"[A-Z].*\.", text, re.DOTALL), f"{name} {parameter.name}: {text!r}"
            first, *others = text.split()
            assert len(others) >= 2, f"{name} {parameter.name}: {text!r}"
            assert first not in ("Of", "For", "As", "To"), f"{name} {parameter.name}: {text!r} is half a sentence"
        for sub, member in getattr(command, "commands", {}).items():
            below(member, f"{name} {sub}")

    below(typer.main.get_command(app), "dagan")
