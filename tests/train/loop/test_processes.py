"""Several processes on one machine: the gradients of one with the larger batch, and an end for all where one is killed."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from compiled_objectives import compiled_by
from dagan.train.log import load_checkpoint
from dagan.train.recipe import OptimiserConfig
from dagan.train.stage import learning_rate
from killed_runs import TORCHRUN, environment, started, wait_until
from run_files import lines, trained_parts
from toy_stage import run_toy, toy_recipe

TESTS = Path(__file__).parents[2]


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one_with_the_double_batch(tmp_path: Path) -> None:
    script = str(TESTS / "two_processes.py")
    subprocess.run([sys.executable, script, str(tmp_path / "one.pt")], check=True, env=environment(), timeout=200)
    subprocess.run([*TORCHRUN, script, str(tmp_path / "two.pt")], check=True, env=environment(), timeout=200)
    one, two = (torch.load(tmp_path / name, weights_only=True) for name in ("one.pt", "two.pt"))
    assert one.keys() == two.keys()
    assert any(key.startswith("discriminator.") for key in one)
    # Some gradients are 0 but for rounding, such as that of a bias before a softmax, so the largest one is a measure too.
    rounding = 1e-6 * max(float(value.norm()) for value in one.values())
    for key, value in one.items():
        assert (value - two[key]).norm() <= 1e-4 * value.norm() + rounding, key


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    run_toy(toy_recipe(tmp_path / "run", max_steps=3), noise=0.0)
    subprocess.run([*TORCHRUN, str(TESTS / "toy_stage.py"), str(tmp_path / "run"), "5"], check=True, env=environment(), timeout=200)
    run_toy(toy_recipe(tmp_path / "run", max_steps=6), noise=0.0)
    assert [line["step"] for line in lines(tmp_path / "run") if "first/total" in line] == [1, 2, 3, 4, 5, 6]
    assert trained_parts(tmp_path / "run")["step"] == 6
    assert load_checkpoint(tmp_path / "run" / "last.ckpt")["samples"] == 3 * 8 + 2 * 16 + 8


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "victim"), [("fabric", 0), ("fabric", 1), ("torchrun", 0), ("torchrun", 1)])
def test_where_one_process_is_killed_all_end_with_a_sentence(tmp_path: Path, launcher: str, victim: int) -> None:
    toy = [str(TESTS / "toy_stage.py"), str(tmp_path), "1000000"]
    with started([sys.executable, *toy, "2"] if launcher == "fabric" else [*TORCHRUN, *toy]) as process:
        assert wait_until(lambda: (tmp_path / "log.jsonl").is_file() and lines(tmp_path), process)
        parent = psutil.Process(process.pid)
        # Without torchrun the first process is the one that the user started, and it starts the other.
        family = parent.children() if launcher == "torchrun" else [parent, *parent.children()]
        assert len(family) == 2
        family[victim].kill()
        said = process.communicate(timeout=60)[1]
        assert process.returncode != 0
        assert not psutil.wait_procs(family, timeout=5)[1]
    ours = "has ended, so all others end too" in said or "the connection to another process of the run is lost" in said
    # torchrun ends the others itself, and names the killed one, at times before they have noticed.
    assert ours or (launcher == "torchrun" and "SIGKILL" in said)


def test_a_process_of_another_machine_that_falls_silent_counts_as_ended(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Of another machine's process only its signs of life are seen. The store of this test holds one such process's."""
    from dagan.train import fabric

    store = torch.distributed.TCPStore("127.0.0.1", 0, 1, is_master=True, wait_for_workers=False)
    left = threading.Event()
    watch = fabric.Watch(0, 2, leave=lambda status: left.set())
    monkeypatch.setattr(fabric, "_LOOK", 0.02)
    monkeypatch.setattr(fabric, "_SILENT", 3.0)
    monkeypatch.setattr(torch.distributed.distributed_c10d, "_get_default_store", lambda: store)
    theirs = torch.distributed.PrefixStore("dagan-watch", store)
    theirs.set("place-1", "another-machine 1")
    theirs.set("alive-1", "0")
    watch.begin()
    for beat in range(1, 50):  # Five seconds of signs are longer than silence may last.
        theirs.set("alive-1", str(beat))
        assert not left.wait(0.1)
    assert left.wait(10)
    watch.end()
    assert capsys.readouterr().err.startswith("dagan: process 1 of 2 (counted from 0) has ended, so all others end too")


@pytest.mark.slow
def test_two_processes_train_by_the_command_that_the_documentation_names(clips_folder: Path, tmp_path: Path) -> None:
    recipes = Path(__file__).parents[3] / "recipes"
    command = [*TORCHRUN, "-m", "dagan", "train"]
    depth, gan = (
        [*command, stage, str(recipes / f"tiny-{stage}.yaml"), f"data.train={clips_folder}", f"output={tmp_path / stage}",
         "max_steps=4", "log_every=1", "validate_every=4"]
        for stage in ("depth", "gan")
    )  # fmt: skip
    for words in (depth, [*gan, f"depth_weights={tmp_path / 'depth' / 'depth.safetensors'}", "loss.adversarial_start=2"]):
        done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, done.stderr
    found = lines(tmp_path / "gan")
    assert [line["step"] for line in found if "generator/total" in line] == [1, 2, 3, 4]
    assert ["discriminator/total" in line for line in found if "generator/total" in line] == [False, False, True, True]
    assert load_checkpoint(tmp_path / "gan" / "last.ckpt")["samples"] == 4 * 2 * 4


@pytest.mark.parametrize(("scale", "factor"), [("none", 1), ("sqrt", 2), ("linear", 4)])
def test_rate_and_warm_up_scale_with_the_number_of_processes(scale: str, factor: int) -> None:
    config = OptimiserConfig(lr=0.1, warm_up=10, scale=scale)  # type: ignore[arg-type]
    alone = OptimiserConfig(lr=0.1, warm_up=10)
    assert learning_rate(config, 500, 1000, 4) == pytest.approx(factor * 0.1)
    assert learning_rate(config, 3, 1000, 4) == pytest.approx(learning_rate(alone, 3, 1000)), "it grows as fast"
    assert learning_rate(config, 10 * factor - 1, 1000, 4) == pytest.approx(factor * 0.1)
    assert learning_rate(config, 500, 1000, 1) == learning_rate(alone, 500, 1000)


def test_so_many_of_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    def steps() -> dict[str, int]:
        return {path.name: load_checkpoint(path)["step"] for path in tmp_path.glob("*.ckpt")}

    run_toy(toy_recipe(tmp_path, max_steps=6, checkpoint_minutes=0, keep_checkpoints=4))
    # The end of a run writes another one.
    assert steps() == {"last.ckpt": 6, "previous.ckpt": 6, "previous-2.ckpt": 5, "previous-3.ckpt": 4}
    run_toy(toy_recipe(tmp_path, max_steps=7, checkpoint_minutes=0))
    assert steps() == {"last.ckpt": 7, "previous.ckpt": 7}


def test_the_best_weights_of_validation_are_kept(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    run_toy(toy_recipe(tmp_path, max_steps=20, validate_every=5))
    found = {line["step"]: line["validation/distance"] for line in lines(tmp_path) if "validation/distance" in line}
    assert load_checkpoint(tmp_path / "last.ckpt")["best"] == min(found.values())
    best = load_file(tmp_path / "best" / "toy.safetensors")
    x = torch.eye(4)
    out = torch.nn.functional.linear(x, best["linear.weight"], best["linear.bias"])
    assert float((out - x.flip(-1)).square().mean()) == pytest.approx(min(found.values()), rel=1e-5)
    # A run that goes on knows what the best was.
    run_toy(toy_recipe(tmp_path, max_steps=25, validate_every=5, optimiser=OptimiserConfig(lr=5.0)))
    assert load_file(tmp_path / "best" / "toy.safetensors")["linear.weight"].equal(best["linear.weight"])


def test_every_objective_is_compiled_and_takes_the_same_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = compiled_by(monkeypatch, "eager")
    for name, compile_ in (("plain", False), ("compiled", True)):
        run_toy(toy_recipe(tmp_path / name, max_steps=3, compile=compile_), noise=0.0)
    assert {"_Loss", "_Chase"} <= set(compiled)
    plain, other = (trained_parts(tmp_path / name)["modules"]["model"]["linear.weight"] for name in ("plain", "compiled"))
    assert torch.allclose(plain, other, atol=1e-6)


def test_without_a_compiler_one_sentence_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dagan.train.fabric import compile_objective

    def broken(function: object) -> object:
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nand more")

    monkeypatch.setattr(torch, "compile", broken)
    said: list[str] = []
    module = torch.nn.Linear(2, 2)
    compile_objective(module, torch.device("cpu"), said.append)
    assert said == [
        "compile is true, but nothing can be compiled here (InvalidCxxCompiler: No working C++ compiler found): training goes on without"
    ]
    assert module(torch.ones(2)).shape == (2,)
