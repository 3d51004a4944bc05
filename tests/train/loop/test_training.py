"""The loop on a toy stage: what is saved, continued, averaged, stopped and refused."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dagan import device
from dagan.errors import InputError
from dagan.train.fabric import _mixed
from dagan.train.log import load_checkpoint
from dagan.train.recipe import OptimiserConfig
from dagan.train.training import train
from killed_runs import TORCHRUN, environment
from run_files import assert_same, lines, trained_parts
from toy_stage import ToyStage, run_toy, toy_recipe


@pytest.fixture(autouse=True)
def _no_signal_ends_the_tests() -> Iterator[None]:
    """A stop that the loop did not listen for fails its test, instead of ending the process with all other tests in it."""
    before = {number: signal.signal(number, lambda number, frame: None) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_learns_logs_and_exports(tmp_path: Path) -> None:
    result = run_toy(toy_recipe(tmp_path, max_steps=200, log_every=50))
    assert (result.steps, result.finished) == (200, True)
    log = lines(tmp_path)
    training = [line for line in log if "first/total" in line]
    assert [line["step"] for line in training] == [50, 100, 150, 200]
    assert training[-1]["first/total"] < 0.3 * training[0]["first/total"]
    assert training[0]["samples_per_second"] > 0
    validation = [line["validation/distance"] for line in log if "validation/distance" in line]
    assert len(validation) == 40
    assert validation[-1] < 0.1 * validation[0]
    assert {p.name for p in (tmp_path / "pictures").iterdir()} >= {"weight-00000005.png", "weight-00000200.png"}
    # The exported weights are the averaged ones.
    averaged = load_checkpoint(tmp_path / "last.ckpt")["averaged"]
    for key, value in load_file(result.weights).items():
        assert torch.equal(value, averaged[f"module.{key}"])
    assert not list(tmp_path.glob("*.part")) + list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("cut", [1, 4, 9])
def test_continued_run_takes_the_same_steps(tmp_path: Path, cut: int) -> None:
    changes: dict[str, Any] = {"accumulate": 2, "optimiser": OptimiserConfig(lr=0.05, schedule="cosine", warm_up=3, clip=0.1)}
    run_toy(toy_recipe(tmp_path / "whole", **changes))
    # The schedule follows max_steps, so the first part is stopped by a signal as a user would.
    _run_until(cut, tmp_path / "parts", **changes)
    assert trained_parts(tmp_path / "parts")["step"] == cut
    result = run_toy(toy_recipe(tmp_path / "parts", **changes))
    assert result.steps == 10
    assert_same(trained_parts(tmp_path / "whole"), trained_parts(tmp_path / "parts"))
    keep = ("step", "first/total", "second/total", "lr/first", "validation/distance")
    whole, parts = ([{k: line[k] for k in keep if k in line} for line in lines(tmp_path / n)] for n in ("whole", "parts"))
    assert whole == parts


def _run_until(step: int, folder: Path, **changes: Any) -> None:
    class Stopped(ToyStage):
        def updates(self, objectives: Any, batch: int, now: int) -> Any:
            yield from super().updates(objectives, batch, now)
            if batch == step * self.recipe.accumulate - 1:
                signal.raise_signal(signal.SIGTERM)

    result = train(toy_recipe(folder, **changes), Stopped, "auto")
    assert not result.finished


def test_signal_handlers_are_given_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    _run_until(2, tmp_path)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_second_interrupt_does_not_wait(tmp_path: Path) -> None:
    class Stuck(ToyStage):
        def updates(self, objectives: Any, batch: int, now: int) -> Any:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            yield from super().updates(objectives, batch, now)

    stages: list[Stuck] = []

    def build(recipe: Any, fabric: Any) -> Stuck:
        stages.append(Stuck(recipe, fabric))
        return stages[-1]

    with pytest.raises(KeyboardInterrupt):
        train(toy_recipe(tmp_path), build, "auto")
    assert stages[0].closed
    assert not (tmp_path / "last.ckpt").exists()


def test_killed_while_saving_continues_from_the_checkpoint_before(tmp_path: Path) -> None:
    run_toy(toy_recipe(tmp_path / "whole"))
    run_toy(toy_recipe(tmp_path / "parts", max_steps=4))
    # The kill came between the two renames, and left half a file.
    (tmp_path / "parts" / "last.ckpt").replace(tmp_path / "parts" / "previous.ckpt")
    (tmp_path / "parts" / ".last.ckpt.77.part").write_bytes(b"half")
    run_toy(toy_recipe(tmp_path / "parts"))
    assert_same(trained_parts(tmp_path / "whole"), trained_parts(tmp_path / "parts"))
    assert not (tmp_path / "parts" / ".last.ckpt.77.part").exists()


def test_budget_of_minutes_stops_with_a_checkpoint(tmp_path: Path) -> None:
    started = time.monotonic()
    result = run_toy(toy_recipe(tmp_path, max_steps=10**6, max_minutes=0.02, log_every=100, picture_every=10**6, validate_every=10**6))
    assert time.monotonic() - started < 20
    assert not result.finished
    assert result.steps == load_checkpoint(tmp_path / "last.ckpt")["step"] > 0


def test_accumulating_equals_a_larger_batch(tmp_path: Path) -> None:
    class Halves(ToyStage):
        def samples(self, batch: int) -> torch.Tensor:
            rows = torch.randn(16, 4, generator=torch.Generator().manual_seed(batch * self.recipe.batch_size // 16))
            first = batch * self.recipe.batch_size % 16
            return rows[first : first + self.recipe.batch_size]

    for name, changes in {"one": {"batch_size": 16}, "two": {"batch_size": 8, "accumulate": 2}}.items():
        train(toy_recipe(tmp_path / name, **changes), lambda r, f: Halves(r, f, noise=0.0), "auto")
    one, two = (trained_parts(tmp_path / n)["modules"]["model"]["linear.weight"] for n in ("one", "two"))
    assert torch.allclose(one, two, atol=1e-6)


@pytest.mark.slow
def test_two_processes_equal_accumulation(tmp_path: Path) -> None:
    run_toy(toy_recipe(tmp_path / "alone", accumulate=2, max_steps=4), noise=0.0)
    script = Path(__file__).parents[2] / "toy_stage.py"
    subprocess.run([sys.executable, str(script), str(tmp_path / "pair"), "4", "2"], check=True, env=environment(), timeout=200)
    alone, pair = (trained_parts(tmp_path / n) for n in ("alone", "pair"))
    assert pair["step"] == 4
    for name in ("model", "chase"):
        for key, value in alone["modules"][name].items():
            assert torch.allclose(value, pair["modules"][name][key], atol=1e-6), (name, key)


@pytest.mark.slow
def test_processes_that_torchrun_started_train_together(tmp_path: Path) -> None:
    run_toy(toy_recipe(tmp_path / "alone", accumulate=2, max_steps=4), noise=0.0)
    script = Path(__file__).parents[2] / "toy_stage.py"
    subprocess.run([*TORCHRUN, str(script), str(tmp_path / "pair"), "4"], check=True, env=environment(), timeout=200)
    alone, pair = (trained_parts(tmp_path / n) for n in ("alone", "pair"))
    assert pair["step"] == 4
    assert [line["step"] for line in lines(tmp_path / "pair") if "first/total" in line] == [1, 2, 3, 4]  # one log, not two
    assert len(list((tmp_path / "pair").glob("*.ckpt"))) == len(list((tmp_path / "alone").glob("*.ckpt")))
    assert len(list((tmp_path / "pair").rglob("events.out.*"))) == len(list((tmp_path / "alone").rglob("events.out.*")))
    for key, value in alone["modules"]["model"].items():
        assert torch.allclose(value, pair["modules"]["model"][key], atol=1e-6), key


@pytest.mark.parametrize(("fast", "wanted"), [(True, "bf16-mixed"), (False, None)])
def test_automatic_precision_is_what_the_processor_multiplies_in(fast: bool, wanted: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_cpu_multiplies_bfloat16", lambda: fast)
    said: list[str] = []
    assert _mixed("auto", torch.device("cpu"), said.append) == wanted
    assert said == []


def test_a_precision_that_is_slow_here_is_said_with_its_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(device, "_cpu_multiplies_bfloat16", lambda: False)
    times = iter([1e-3] * 3 + [7e-3] * 3)
    monkeypatch.setattr(device, "_seconds", lambda matrix: next(times))
    said: list[str] = []
    assert _mixed("bf16-mixed", cpu, said.append) == "bf16-mixed"
    assert said == ["precision bf16-mixed is slow here: this CPU takes 7 times as long for it as for float32: set precision=auto"]
    assert _mixed("32-true", cpu, said.append) is None
    monkeypatch.setattr(device, "_cpu_multiplies_bfloat16", lambda: True)
    assert _mixed("bf16-mixed", cpu, said.append) == "bf16-mixed"
    assert len(said) == 1
    assert device.slowness(torch.float16, torch.device("cuda")) is None


def test_slowness_is_measured() -> None:
    assert device.slowness(torch.float16, torch.device("cpu")) > 0


def test_average_follows_the_weights_slowly(tmp_path: Path) -> None:
    run_toy(toy_recipe(tmp_path, max_steps=3, ema=0.999))
    payload = load_checkpoint(tmp_path / "last.ckpt")
    current, averaged = payload["modules"]["model"]["linear.weight"], payload["averaged"]["module.linear.weight"]
    assert payload["averaged"]["n_averaged"] == 3
    assert 0 < (current - averaged).abs().max() < 0.1


def test_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    run_toy(toy_recipe(tmp_path, max_steps=4))
    before = (tmp_path / "last.ckpt").read_bytes()
    with pytest.raises(InputError, match=r"first/total is not finite near step 7: lower optimiser\.lr"):
        run_toy(toy_recipe(tmp_path), explode=6)
    assert (tmp_path / "last.ckpt").read_bytes() == before
    with pytest.raises(InputError, match="weights of model are not finite"):
        run_toy(toy_recipe(tmp_path, log_every=100), explode=6)
    assert (tmp_path / "last.ckpt").read_bytes() == before


def test_fresh_and_resume(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint to resume"):
        run_toy(toy_recipe(tmp_path), "resume")
    run_toy(toy_recipe(tmp_path, max_steps=3))
    first = trained_parts(tmp_path)
    assert run_toy(toy_recipe(tmp_path, max_steps=5), "resume").steps == 5
    run_toy(toy_recipe(tmp_path, max_steps=3), "fresh")
    assert_same(trained_parts(tmp_path), first)
    assert max(line["step"] for line in lines(tmp_path)) == 3
    assert not (tmp_path / "previous.ckpt").exists()


def test_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    run_toy(toy_recipe(tmp_path))
    first = trained_parts(tmp_path)
    assert run_toy(toy_recipe(tmp_path)).finished
    assert_same(trained_parts(tmp_path), first)


def test_changed_settings_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_toy(toy_recipe(tmp_path, max_steps=3))
    train(toy_recipe(tmp_path, max_steps=4, optimiser=OptimiserConfig(lr=0.01)), ToyStage, "auto")
    said = capsys.readouterr().err
    assert "changed since the checkpoint: max_steps: 3 -> 4" in said
    assert "changed since the checkpoint: optimiser.lr: 0.05 -> 0.01" in said
    assert "continuing at step 3" in said
    assert lines(tmp_path)[-1]["lr/first"] == 0.01


def test_start_from_another_runs_checkpoint(tmp_path: Path) -> None:
    run_toy(toy_recipe(tmp_path / "a", max_steps=5))
    trained = trained_parts(tmp_path / "a")["modules"]["model"]["linear.weight"]
    recipe = toy_recipe(tmp_path / "b", max_steps=1, init_from=tmp_path / "a" / "last.ckpt", optimiser=OptimiserConfig(lr=1e-6))
    result = run_toy(recipe)
    assert result.steps == 1
    assert torch.allclose(trained_parts(tmp_path / "b")["modules"]["model"]["linear.weight"], trained, atol=1e-5)


def test_bfloat16_keeps_inputs_and_results_exact(tmp_path: Path) -> None:
    seen: list[torch.dtype] = []

    class Watching(ToyStage):
        def updates(self, objectives: Any, batch: int, step: int) -> Any:
            for update in super().updates(objectives, batch, step):
                seen.append(update.total.dtype)
                yield update

        def samples(self, batch: int) -> torch.Tensor:
            return super().samples(batch) * 0 + 1.001  # not representable in bfloat16

    class Objective(torch.nn.Module):
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> Any:
            assert x.dtype == torch.float32
            assert (x == 1.001).all()
            loss, out = self.inner(x)
            assert out.dtype == torch.bfloat16, "the networks compute in 16 bits"
            return loss.float(), out

    def build(recipe: Any, fabric: Any) -> Watching:
        stage = Watching(recipe, fabric)
        stage.objectives = {"first": Objective(stage.objectives["first"]), "second": stage.objectives["second"]}
        return stage

    train(toy_recipe(tmp_path, precision="bf16-mixed", max_steps=2), build, "auto")
    assert seen[::2] == [torch.float32] * 2


def test_accelerator_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="no CUDA device"):
        run_toy(toy_recipe(tmp_path, accelerator="cuda"))


def test_works_outside_the_main_thread(tmp_path: Path) -> None:
    results = []
    thread = threading.Thread(target=lambda: results.append(run_toy(toy_recipe(tmp_path, max_steps=2))))
    thread.start()
    thread.join()
    assert results[0].steps == 2


def test_without_a_terminal_a_line_a_minute_says_that_it_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10**6, 7))  # seconds: each look at the clock takes 7
    monkeypatch.setattr("dagan.progress.time", SimpleNamespace(monotonic=lambda: next(clock)))
    train(toy_recipe(tmp_path, max_steps=80, log_every=1000, validate_every=1000, picture_every=1000), ToyStage, "auto")
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "training stage toy of 80 steps on cpu, 32-true; figures come every 1000 steps"
    assert len(said) > 6
    assert all(re.fullmatch(r"\d+ min left, steps: \d+ of 80", line) for line in said[1:-1])
    assert said[-1].startswith("finished at step 80; weights: ")
