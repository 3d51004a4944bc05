"""Several processes on one machine: the gradients of one with the larger batch, and an end for all where one is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch

from dagan.train.log import load_checkpoint
from dagan.train.recipe import OptimiserConfig
from dagan.train.stage import learning_rate
from run_files import lines, trained_parts
from toy_stage import run_toy, toy_recipe

TESTS = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one_with_the_double_batch(tmp_path: Path) -> None:
    script = str(TESTS / "two_processes.py")
    subprocess.run([sys.executable, script, str(tmp_path / "one.pt")], check=True, env=ENVIRONMENT, timeout=200)
    subprocess.run([*TORCHRUN, script, str(tmp_path / "two.pt")], check=True, env=ENVIRONMENT, timeout=200)
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
    subprocess.run([*TORCHRUN, str(TESTS / "toy_stage.py"), str(tmp_path / "run"), "5"], check=True, env=ENVIRONMENT, timeout=200)
    run_toy(toy_recipe(tmp_path / "run", max_steps=6), noise=0.0)
    assert [line["step"] for line in lines(tmp_path / "run") if "first/total" in line] == [1, 2, 3, 4, 5, 6]
    assert trained_parts(tmp_path / "run")["step"] == 6
    assert load_checkpoint(tmp_path / "run" / "last.ckpt")["samples"] == 3 * 8 + 2 * 16 + 8


@contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
            child.kill()
        process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["fabric", "torchrun"])
def test_where_one_process_is_killed_all_end_with_a_sentence(tmp_path: Path, launcher: str) -> None:
    toy = [str(TESTS / "toy_stage.py"), str(tmp_path), "1000000"]
    with started(*([sys.executable, *toy, "2"] if launcher == "fabric" else [*TORCHRUN, *toy])) as process:
        until = time.monotonic() + 100
        while not lines(tmp_path) if (tmp_path / "log.jsonl").is_file() else time.monotonic() < until:
            time.sleep(0.1)
        family = psutil.Process(process.pid).children()
        family[-1].kill()
        begun = time.monotonic()
        said = process.communicate(timeout=60)[1]
        assert time.monotonic() - begun < 60
        assert process.returncode != 0
    ours = "has ended, so all others end too" in said or "the connection to another process of the run is lost" in said
    # torchrun ends the others itself, and names the killed one, at times before they have noticed.
    assert ours or (launcher == "torchrun" and "SIGKILL" in said)
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in family)


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
    whole = torch.compile
    compiled: list[str] = []

    def traced(function: object, **settings: object) -> object:
        compiled.append(type(getattr(function, "__self__", function)).__name__)
        return whole(function, backend="eager")  # type: ignore[call-overload]  # No compiler of machine code, which takes a minute.

    monkeypatch.setattr(torch, "compile", traced)
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
