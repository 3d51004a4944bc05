"""The command line: quick to start, one sentence for bad input, exit codes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from dagan import cli
from dagan.errors import InputError

RECIPES = Path(__file__).parents[1] / "recipes"


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["dagan", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def test_help_does_not_import_torch() -> None:
    code = "import sys, dagan.cli\ntry:\n  dagan.cli.app(['--help'])\nfinally:\n  assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.strip() == f"dagan {version('dagan')}"


def test_bad_input_is_one_sentence_and_status_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(monkeypatch, "train", "depth", "nowhere.yaml") == 2
    error = capsys.readouterr().err
    assert error.startswith("dagan: recipe nowhere.yaml does not exist")
    assert error.count("\n") == 1


def test_unknown_command_is_status_2(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _run(monkeypatch, "trian") == 2


def test_interrupt_is_status_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import dagan.cli.train

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dagan.cli.train, "train_stage", interrupted)
    assert _run(monkeypatch, "train", "gan", str(RECIPES / "tiny-gan.yaml")) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_train_passes_its_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import dagan.train.training
    from dagan.train.recipe import DepthRecipe

    seen: list[tuple[object, ...]] = []

    def record(recipe: object, build: object, start: str) -> None:
        seen.append((recipe, start))

    monkeypatch.setattr(dagan.train.training, "train", record)
    folder = tmp_path / "it's here: #1"
    recipe_file = str(RECIPES / "tiny-depth.yaml")
    arguments = ("train", "depth", recipe_file, "max_steps=3", "optimiser.lr=1e-5", "-o", str(folder), "--device", "cpu")
    for option, start in (((), "auto"), (("--resume",), "resume"), (("--fresh",), "fresh")):
        assert _run(monkeypatch, *arguments, *option) == 0
        recipe, how = seen[-1]
        assert isinstance(recipe, DepthRecipe)
        assert (recipe.max_steps, recipe.optimiser.lr, recipe.output, recipe.accelerator) == (3, 1e-5, folder, "cpu")
        assert how == start


def test_input_errors_are_value_errors() -> None:
    assert issubclass(InputError, ValueError)


def test_help_lists_animate_first_in_panels(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(monkeypatch, "--help") == 0
    shown = capsys.readouterr().out
    panels = (
        ("Animate", "animate", "demo"), ("Measure", "depth", "bench", "evaluate"), ("Train", "synth", "train", "ablate"),
        ("Models", "convert", "export"),
    )  # fmt: skip
    order = [word for panel in panels for word in panel]
    places = [shown.find(f" {word} ", shown.index(" Animate ")) for word in order]
    assert -1 not in places
    assert places == sorted(places)


def test_the_demo_replaces_nothing_unasked(
    command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demo.mp4").write_bytes(b"mine")
    code, _, complaint = command("demo")
    assert (code, complaint.count("\n")) == (2, 1)
    assert "demo.mp4 exists already" in complaint
    assert Path("demo.mp4").read_bytes() == b"mine"
    assert [file.name for file in tmp_path.iterdir()] == ["demo.mp4"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("bench --seconds nan", "--seconds is nan: must be from 0 to 1000000"),
        ("bench --frames -1", "--frames is -1: must be from 0 to 1000000"),
        ("evaluate reconstruction CLIPS --no-model --results CLIPS --size 0", "--size is 0: must be from 32 to 4096"),
        ("evaluate reconstruction CLIPS --no-model --results CLIPS --size 1000000000", "--size is 1000000000: must be from 32 to 4096"),
        ("evaluate reconstruction CLIPS --hold-out nan", "--hold-out is nan: must be in [0, 1]"),
        ("evaluate depth CLIPS --hold-out -1", "--hold-out is -1.0: must be in [0, 1]"),
        ("evaluate cross-identity CLIPS --hold-out 2", "--hold-out is 2.0: must be in [0, 1]"),
        ("synth OUT --size 0", "--size is 0: must be from 32 to 1024"),
    ],
)
def test_numbers_out_of_range_are_refused_by_option(words: str, message: str, command, clips_folder, tmp_path) -> None:
    given = [{"CLIPS": clips_folder, "OUT": tmp_path / "out"}.get(word, word) for word in words.split()]
    code, _, err = command(*given)
    assert (code, err.strip()) == (2, f"dagan: {message}")
    assert not (tmp_path / "out").exists()
