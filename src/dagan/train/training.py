"""The loop that both stages share: updates, moving average, logs, checkpoints and exact resume.

Everything random in a step follows from (seed, step, rank), and everything else from the checkpoint. A run that is killed and resumed
therefore takes the same steps as one that is not.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import lightning_fabric as L
import torch
from rich.console import Console
from torch import Tensor

import dagan.train.log as runlog
from dagan.checks import dump
from dagan.errors import InputError
from dagan.train.fabric import Carrier, Watch, as_sentence, compile_objective, make_fabric, unwrapping
from dagan.train.log import MovingAverage, RunLog
from dagan.train.recipe import Recipe
from dagan.train.stage import Stage, learning_rate

RESUME, FRESH, AUTO = "resume", "fresh", "auto"
BEST = "best"  # This folder within a run's has the weights with the best figure of validation.


@dataclass(frozen=True)
class Result:
    """What came of a run."""

    steps: int
    """The number of steps that the model has been trained for in all."""
    weights: Path
    """The exported file."""
    finished: bool
    """Whether max_steps was reached."""


def train(recipe: Recipe, build: Callable[[Any, L.Fabric], Stage], start: str = AUTO, console: Console | None = None) -> Result:
    """Trains until max_steps, max_minutes, or a signal (SIGINT or SIGTERM, after which the step is finished and saved first).

    Args:
        build: It makes the stage of a recipe.
        start: "auto" continues what the output folder holds, "resume" demands that it holds a run, and "fresh" removes it.

    Raises InputError for unusable recipes, data and checkpoints, and for losses that are no longer finite.
    """
    fabric = make_fabric(recipe)
    fabric.launch()
    with _connected(fabric):
        # With this seed every process starts from the same weights.
        torch.manual_seed(recipe.seed)
        return _Run(fabric, build(recipe, fabric), start, console or Console(stderr=True)).train()


@contextlib.contextmanager
def _connected(fabric: L.Fabric) -> Iterator[None]:
    """Watches the other processes of the run, and ends the connection to them while all are there. Later, the interpreter may abort."""
    if fabric.world_size == 1:
        yield
        return
    watch = Watch(fabric.global_rank, fabric.world_size)
    watch.begin()
    try:
        yield
        fabric.barrier()
    except RuntimeError as error:
        sentence = as_sentence(error)
        if sentence is None:
            raise
        raise sentence from None
    watch.end()
    torch.distributed.destroy_process_group()


class _Run:
    def __init__(self, fabric: L.Fabric, stage: Stage, start: str, console: Console) -> None:
        self.fabric, self.stage, self.recipe = fabric, stage, stage.recipe
        self.console = console if fabric.is_global_zero else Console(quiet=True)
        self.folder = self.recipe.output
        self.step = 0
        self.samples = 0
        self.best = math.inf  # The least figure of validation so far.
        self.minutes_before = 0.0
        self.started = time.monotonic()
        self.stopping = False
        self._start(start)

    def _start(self, start: str) -> None:
        checkpoint = None if start == FRESH else runlog.find_checkpoint(self.folder)
        if checkpoint is None and start == RESUME:
            raise InputError(f"{self.folder} holds no checkpoint to resume: leave out --resume, or name the right --output")
        payload = None if checkpoint is None else self._read(checkpoint)
        if payload is None and self.recipe.init_from is not None:
            self._start_from(self.recipe.init_from)
        if payload is not None:
            self._load_modules(payload, str(checkpoint))
        self._set_up()
        if payload is not None:
            self._load_rest(payload)
        if self.fabric.is_global_zero:
            runlog.remove_leftovers(self.folder)
            if start == FRESH:
                runlog.clear(self.folder)
                for path in runlog.checkpoints(self.folder):
                    path.unlink(missing_ok=True)
                shutil.rmtree(self.folder / BEST, ignore_errors=True)
        self.fabric.barrier()

    def _set_up(self) -> None:
        """Moves modules to the device and wraps each objective with an optimiser of its own."""
        self.wrapped: dict[str, Any] = {}
        self.optimisers: dict[str, Any] = {}
        for name, objective in self.stage.objectives.items():
            if self.recipe.channels_last:
                objective.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if self.recipe.compile:
                compile_objective(objective, self.fabric.device, lambda text: self.console.print(text, highlight=False, soft_wrap=True))
            self.wrapped[name] = self.fabric.setup_module(Carrier(objective))
        self.ema = MovingAverage(self.stage.averaged, self.recipe.ema)
        for name, objective in self.stage.objectives.items():
            config = self.stage.optimiser(name)
            parameters = [p for p in objective.parameters() if p.requires_grad]
            kind = torch.optim.AdamW if config.weight_decay else torch.optim.Adam
            # The fused kernel is the fastest, but its gradients cannot be clipped under a gradient scaler.
            fused = self.recipe.precision != "16-mixed" and self.fabric.device.type in ("cpu", "cuda")
            optimiser = kind(parameters, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=fused)
            self.optimisers[name] = self.fabric.setup_optimizers(optimiser)

    # -- the loop

    def train(self) -> Result:
        with self.fabric.rank_zero_first():
            self.stage.open_data(self.console)
        self.stage.continue_from(self.step * self.recipe.accumulate, self.samples)
        try:
            return self._train()
        finally:
            self.stage.close()

    def _train(self) -> Result:
        recipe = self.recipe
        if not self.fabric.is_global_zero:
            with self._signals():
                self._steps(None)
            return Result(self.step, self.folder, self.step >= recipe.max_steps)
        with RunLog(self.folder, self.step, recipe.max_steps, self.console) as log, self._signals():
            log.say(self._opening())
            self._steps(log)
            weights = self._save()
            finished = self.step >= recipe.max_steps
            log.say(f"{'finished' if finished else 'stopped'} at step {self.step}; weights: {weights}")
        return Result(self.step, weights, finished)

    def _opening(self) -> str:
        begins = f"continuing at step {self.step}, stage {self.stage.name}" if self.step else f"training stage {self.stage.name}"
        where = f"on {self.fabric.device}, {self.recipe.precision}"
        return f"{begins} of {self.recipe.max_steps} steps {where}; figures come every {self.recipe.log_every} steps"

    def _steps(self, log: RunLog | None) -> None:
        recipe = self.recipe
        sums = _Sums()
        saved = since = time.monotonic()
        since_step = self.step
        while self.step < recipe.max_steps and not self._should_stop():
            if not self._prepared(log):
                break
            sums.add(self._one_step())
            self.step += 1
            self.samples += recipe.batch_size * recipe.accumulate * self.fabric.world_size
            if log is None:
                continue
            log.advance(self.step, self._minutes_left(since, since_step))
            if self.step % recipe.log_every == 0:
                samples = (self.step - since_step) * recipe.batch_size * recipe.accumulate * self.fabric.world_size
                speed = samples / (time.monotonic() - since)
                self._log(log, sums.means() | {"samples_per_second": speed, "minutes": self._minutes()})
                sums, since, since_step = _Sums(), time.monotonic(), self.step
            if self.step % recipe.validate_every == 0:
                self._validate(log)
            if self.step % recipe.picture_every == 0:
                log.pictures(self.step, self._evaluating(self.stage.pictures))
            if time.monotonic() - saved >= 60 * recipe.checkpoint_minutes:
                self._save()
                saved = time.monotonic()

    def _validate(self, log: RunLog) -> None:
        """Measures on people held out. The weights with the best figure so far are kept apart."""
        found = self._evaluating(self.stage.validate)
        if not found:
            return
        figures = {f"validation/{k}": v for k, v in found.items()}
        log.figures(self.step, figures, "  ".join(f"{k} {v:.4g}" for k, v in figures.items()))
        judged = found.get(self.stage.judged, math.inf)
        if judged < self.best:
            self.best = judged
            (self.folder / BEST).mkdir(parents=True, exist_ok=True)
            self.stage.export(self.ema.module, self.folder / BEST, self._card() | {f"validation {self.stage.judged}": judged})

    def _card(self) -> dict[str, Any]:
        card = {"stage": self.stage.name, "steps": self.step, "minutes": round(self._minutes(), 1), "recipe": dump(self.recipe)}
        return _without_paths(card)

    def _prepared(self, log: RunLog | None) -> bool:
        # With several processes, none may stop alone.
        alone = self.fabric.world_size == 1
        say = log.say if log is not None else lambda text: None
        return self.stage.prepare(self.step, self.ema.module, say, lambda: alone and self.stopping)

    def _one_step(self) -> dict[str, Tensor]:
        recipe = self.recipe
        figures: dict[str, Tensor] = {}
        objectives = {name: unwrapping(module) for name, module in self.wrapped.items()}
        for name, optimiser in self.optimisers.items():
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(self.stage.optimiser(name), self.step, recipe.max_steps, self.fabric.world_size)
        for micro in range(recipe.accumulate):
            batch = self.step * recipe.accumulate + micro
            # This seeds random numbers inside networks and objectives, on every kind of device.
            torch.manual_seed(_mix(recipe.seed, batch, self.fabric.global_rank))
            last = micro == recipe.accumulate - 1
            with contextlib.ExitStack() as contexts:
                for module in self.wrapped.values():
                    contexts.enter_context(self.fabric.no_backward_sync(module, enabled=not last))
                for update in self.stage.updates(objectives, batch, self.step):
                    self.fabric.backward(update.total / recipe.accumulate)
                    if last:
                        self._update(update.objective)
                    figures |= {f"{update.objective}/{k}": v for k, v in update.figures.items()}
        self.ema.update_parameters(self.stage.averaged)
        return figures

    def _update(self, name: str) -> None:
        optimiser, clip = self.optimisers[name], self.stage.optimiser(name).clip
        if clip is not None:
            self.fabric.clip_gradients(self.wrapped[name], optimiser, max_norm=clip, error_if_nonfinite=False)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    def _evaluating(self, act: Callable[[Any], Any]) -> Any:
        with torch.no_grad(), self.fabric.autocast():
            return act(self.ema.module)

    def _log(self, log: RunLog, figures: dict[str, float]) -> None:
        broken = [k for k, v in figures.items() if k.endswith("total") and not math.isfinite(v)]
        if broken:
            raise InputError(
                f"{broken[0]} is not finite near step {self.step}: lower optimiser.lr or set optimiser.clip, then start again "
                f"from the last checkpoint in {self.folder}"
            )
        rates = {f"lr/{name}": optimiser.param_groups[0]["lr"] for name, optimiser in self.optimisers.items()}
        log.figures(self.step, figures | rates, runlog.headline(figures))

    # -- time and signals

    def _minutes(self) -> float:
        """Returns the minutes of all calls together."""
        return self.minutes_before + (time.monotonic() - self.started) / 60

    def _minutes_left(self, since: float, since_step: int) -> float:
        per_step = (time.monotonic() - since) / max(1, self.step - since_step)
        left = per_step * (self.recipe.max_steps - self.step) / 60
        if self.recipe.max_minutes is not None:
            left = min(left, self.recipe.max_minutes - (time.monotonic() - self.started) / 60)
        return left

    def _should_stop(self) -> bool:
        limit = self.recipe.max_minutes
        stop = self.stopping or (limit is not None and time.monotonic() - self.started >= 60 * limit)
        if self.fabric.world_size > 1:
            # All processes must take the same number of steps, so one that stops stops all.
            flag = torch.tensor(float(stop), device=self.fabric.device)
            stop = bool(cast(Tensor, self.fabric.all_reduce(flag, reduce_op="sum")) > 0)
        return stop

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: object) -> None:
            # A second signal does not wait for the step to end.
            if self.stopping:
                raise KeyboardInterrupt
            self.stopping = True

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # -- checkpoints

    def _save(self) -> Path:
        """Writes a checkpoint and exports the weights. Returns the exported file."""
        for name, module in self.stage.modules.items():
            if not all(bool(torch.isfinite(p).all()) for p in module.parameters()):
                raise InputError(
                    f"weights of {name} are not finite at step {self.step}: lower optimiser.lr or set optimiser.clip; "
                    "the last checkpoint is kept"
                )
        payload = {
            "stage": self.stage.name,
            "step": self.step,
            "samples": self.samples,
            "best": self.best,
            "minutes": self._minutes(),
            "recipe": dump(self.recipe),
            "modules": {name: module.state_dict() for name, module in self.stage.modules.items()},
            "averaged": self.ema.state_dict(),
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
            "scaler": self.fabric.strategy.precision.state_dict(),
        }
        runlog.save_checkpoint(self.folder, payload, self.recipe.keep_checkpoints)
        return self.stage.export(self.ema.module, self.folder, self._card())

    def _read(self, path: Path) -> dict[str, Any]:
        payload = runlog.load_checkpoint(path)
        if payload["stage"] != self.stage.name:
            raise InputError(f"{path} is of stage {payload['stage']!r}, not {self.stage.name!r}: choose another --output")
        for change in runlog.changed_keys(payload["recipe"], dump(self.recipe)):
            self.console.print(f"changed since the checkpoint: {change}", highlight=False, soft_wrap=True)
        return payload

    def _load_modules(self, payload: Mapping[str, Any], where: str) -> None:
        for name, module in self.stage.modules.items():
            try:
                module.load_state_dict(payload["modules"][name])
            except (KeyError, RuntimeError) as error:
                raise InputError(f"{where} does not fit this recipe's {name}: {str(error).splitlines()[0]}") from None

    def _load_rest(self, payload: Mapping[str, Any]) -> None:
        self.step, self.minutes_before = payload["step"], payload["minutes"]
        self.samples = payload.get("samples", self.step * self.recipe.batch_size * self.recipe.accumulate * self.fabric.world_size)
        self.best = payload.get("best", math.inf)
        self.ema.load_state_dict(payload["averaged"])
        for name, optimiser in self.optimisers.items():
            if name in payload["optimisers"]:
                optimiser.load_state_dict(payload["optimisers"][name])
        self.fabric.strategy.precision.load_state_dict(payload["scaler"])

    def _start_from(self, path: Path) -> None:
        if path.suffix == ".ckpt":
            self._load_modules(runlog.load_checkpoint(path), str(path))
        else:
            self.stage.start_from(path)


class _Sums:
    """Running means of figures. They stay on their device, so that steps do not wait for it."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, figures: Mapping[str, Tensor]) -> None:
        for name, value in figures.items():
            number = value.detach().float()
            self.sums[name] = self.sums[name] + number if name in self.sums else number
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        return {name: float(total) / self.counts[name] for name, total in self.sums.items()}


def _mix(seed: int, batch: int, rank: int) -> int:
    """Makes one 63-bit seed of three numbers. Neighbouring steps get unrelated seeds."""
    import numpy as np

    low, high = np.random.SeedSequence((seed, batch, rank, 2)).generate_state(2)
    return (int(high) << 31) ^ int(low)


def _without_paths(card: dict[str, Any]) -> dict[str, Any]:
    """Removes the machine's folders from a card, because it travels with the weights."""
    recipe = {k: v for k, v in card["recipe"].items() if k not in ("output", "init_from", "depth_weights", "data")}
    data = {k: v for k, v in card["recipe"]["data"].items() if k not in ("train", "portraits", "cache")}
    loss = {k: v for k, v in recipe.get("loss", {}).items() if k != "perceptual_file"}
    return card | {"recipe": recipe | {"data": data, "loss": loss}}
