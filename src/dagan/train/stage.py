"""What the training loop needs to know of a stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from torch import Tensor, nn

from dagan.train.recipe import OptimiserConfig, Recipe

Objectives = Mapping[str, Callable[..., Any]]


@dataclass(frozen=True)
class Update:
    """One loss to differentiate, and the objective whose optimiser then steps. figures: detached scalars to log."""

    objective: str
    total: Tensor
    figures: Mapping[str, Tensor]


class Stage(Protocol):
    """A stage of training.

    name: "depth" or "gan". objectives: modules that turn a batch into losses; each is wrapped once and has an optimiser of
    its own for those of its parameters that require gradients. modules: what a checkpoint keeps. averaged: the module whose
    moving average is validated, shown and exported; part of an objective.
    """

    name: str
    objectives: Mapping[str, nn.Module]
    modules: Mapping[str, nn.Module]
    averaged: nn.Module

    @property
    def recipe(self) -> Recipe:
        """What to do."""
        ...

    def optimiser(self, objective: str) -> OptimiserConfig:
        """Settings of an objective's optimiser."""
        ...

    def open_data(self, console: Console) -> None:
        """Finds and decodes the data, telling `console`. Called once, before the first batch."""
        ...

    def close(self) -> None:
        """Ends what `open_data` began."""
        ...

    def prepare(self, step: int, averaged: nn.Module, say: Callable[[str], None], stopping: Callable[[], bool]) -> bool:
        """Called before each step, with the moving average so far and outside autocast; `say` tells the user of what takes long.

        False: it was cut short, because `stopping` said that the run is to end, and the step cannot be taken.
        """
        ...

    def updates(self, objectives: Objectives, batch: int, step: int) -> Iterator[Update]:
        """Losses of batch number `batch` in optimisation step `step`, one at a time.

        The loop differentiates each before it asks for the next, so later objectives can use (detached) outputs of the
        same forward. `objectives` are the wrapped ones: each may be called once.
        """
        ...

    def pictures(self, averaged: nn.Module) -> dict[str, Tensor]:
        """Named pictures 3 x H x W in [0, 1] to look at."""
        ...

    def validate(self, averaged: nn.Module) -> dict[str, float]:
        """Figures on held-out identities; empty where there are none."""
        ...

    def start_from(self, path: Path) -> None:
        """Loads weights (.safetensors) to start from."""
        ...

    def export(self, averaged: nn.Module, folder: Path, card: Mapping[str, Any]) -> Path:
        """Writes the weights that users load; returns the file."""
        ...
