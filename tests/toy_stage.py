"""A stage small enough to reason about: two linear maps, one chasing the other's output.

Run as a script it trains a given number of steps (for tests that need processes of their own).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning_fabric as L
import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor, nn

from dagan.data.config import DataConfig
from dagan.train.recipe import OptimiserConfig, Recipe
from dagan.train.stage import Objectives, Update
from dagan.train.training import Result, train


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class _Loss(nn.Module):
    """Squared distance from a fixed map of x; with `noise` from torch's global generator."""

    def __init__(self, model: _Model, noise: float) -> None:
        super().__init__()
        self.model, self.noise = model, noise

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out = self.model(x)
        return (out - x.flip(-1) + self.noise * torch.randn(len(x), 4)).square().mean(), out


class _Chase(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, wanted: Tensor) -> Tensor:
        assert not wanted.requires_grad
        return (self.linear(x) - wanted).square().mean()


class ToyStage:
    """`samples(batch, rank)` decides what is drawn; `explode` turns the loss into a NaN from that step on."""

    name = "toy"
    judged = "distance"

    def __init__(self, recipe: Recipe, fabric: L.Fabric, noise: float = 0.1, explode: int | None = None) -> None:
        self.recipe, self.fabric, self.explode = recipe, fabric, explode
        self.model = _Model()
        self.chase = _Chase()
        self.objectives: Mapping[str, nn.Module] = {"first": _Loss(self.model, noise), "second": self.chase}
        self.modules: Mapping[str, nn.Module] = {"model": self.model, "chase": self.chase}
        self.averaged: nn.Module = self.model
        self.batches: list[int] = []
        self.closed = False

    def optimiser(self, objective: str) -> OptimiserConfig:
        return self.recipe.optimiser

    def open_data(self, console: Console) -> None:
        self.batches.clear()

    def continue_from(self, batch: int, samples: int) -> None:
        self.continued = (batch, samples)

    def close(self) -> None:
        self.closed = True

    def samples(self, batch: int) -> Tensor:
        number = batch * self.fabric.world_size + self.fabric.global_rank
        return torch.randn(self.recipe.batch_size, 4, generator=torch.Generator().manual_seed(number))

    def prepare(self, step: int, averaged: nn.Module, say: Callable[[str], None], stopping: Callable[[], bool]) -> bool:
        return True

    def updates(self, objectives: Objectives, batch: int, step: int) -> Iterator[Update]:
        self.batches.append(batch)
        x = self.samples(batch)
        loss, out = objectives["first"](x)
        if self.explode is not None and step >= self.explode:
            loss = loss * float("nan")
        yield Update("first", loss, {"total": loss.detach()})
        loss = objectives["second"](x, out.detach())
        yield Update("second", loss, {"total": loss.detach()})

    def pictures(self, averaged: nn.Module) -> dict[str, Tensor]:
        return {"weight": averaged.linear.weight.detach()[None].expand(3, -1, -1)}  # type: ignore[union-attr]

    def validate(self, averaged: nn.Module) -> dict[str, float]:
        x = torch.eye(4)
        return {"distance": float((averaged(x) - x.flip(-1)).square().mean())}

    def start_from(self, path: Path) -> None:
        raise NotImplementedError

    def export(self, averaged: nn.Module, folder: Path, card: Mapping[str, Any]) -> Path:
        path = folder / "toy.safetensors"
        save_file({k: v.contiguous() for k, v in averaged.state_dict().items()}, path)
        return path


def toy_recipe(folder: Path, **changes: Any) -> Recipe:
    """Ten steps on the CPU."""
    settings: dict[str, Any] = {
        "output": folder, "data": DataConfig(train=folder), "batch_size": 8, "max_steps": 10, "accelerator": "cpu", "log_every": 1,
        "optimiser": OptimiserConfig(lr=0.05), "ema": 0.5, "picture_every": 5, "validate_every": 5,
    }  # fmt: skip
    return Recipe(**(settings | changes))


def run_toy(recipe: Recipe, start: str = "auto", **settings: Any) -> Result:
    """Trains quietly."""
    return train(recipe, lambda r, f: ToyStage(r, f, **settings), start, Console(quiet=True))


if __name__ == "__main__":
    # A third word is the number of devices that the recipe demands.
    output, steps, devices = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None
    run_toy(toy_recipe(output, max_steps=steps, devices=devices, strategy="ddp" if devices else "auto"), noise=0.0)
