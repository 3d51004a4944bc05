"""What the training loop needs to know of a stage, and what stages share: their batches, and the learning rate of a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import lightning_fabric as L
from rich.console import Console
from torch import Tensor, nn

from dagan.data.batches import Batch, BatchSource, Sampler
from dagan.data.config import NO_AUGMENT, PairConfig
from dagan.data.store import ClipDataset
from dagan.errors import InputError
from dagan.train.recipe import OptimiserConfig, Recipe

SHOWN = 6  # A picture shows so many samples.
VALIDATION_BATCH = 16  # Batches of validation have at most so many samples.
# The samples that are shown and measured are drawn with this seed, the same in every run, so that runs can be compared.
FIXED = 20
Objectives = Mapping[str, Callable[..., Any]]


@dataclass(frozen=True)
class Update:
    """One loss to differentiate."""

    objective: str
    """The objective whose optimiser then steps."""
    total: Tensor
    """The loss."""
    figures: Mapping[str, Tensor]
    """Detached scalars to log."""


class Stage(Protocol):
    """A stage of training."""

    name: str
    """The stage's name, "depth" or "gan"."""
    objectives: Mapping[str, nn.Module]
    """Modules that turn a batch into losses. Each is wrapped once and has an optimiser for those parameters that require gradients."""
    modules: Mapping[str, nn.Module]
    """The modules that a checkpoint keeps."""
    averaged: nn.Module
    """The module whose moving average is validated, shown and exported. It is part of an objective."""
    judged: str
    """The figure of `validate` by which the best weights are told. Less is better."""

    @property
    def recipe(self) -> Recipe:
        """The stage's recipe."""
        ...

    def optimiser(self, objective: str) -> OptimiserConfig:
        """Returns the settings of an objective's optimiser."""
        ...

    def open_data(self, console: Console) -> None:
        """Finds and decodes the data, telling `console`. Called once, before the first batch."""
        ...

    def continue_from(self, batch: int, samples: int) -> None:
        """Tells that the run goes on with batch number `batch`, before which so many samples were taken. Called after `open_data`."""
        ...

    def close(self) -> None:
        """Ends what `open_data` began."""
        ...

    def prepare(self, step: int, averaged: nn.Module, say: Callable[[str], None], stopping: Callable[[], bool]) -> bool:
        """Prepares a step. It is called before each step, outside autocast, with the moving average so far.

        `say` tells the user of what takes long. Returns False when it was cut short because `stopping` said that the run is to end; the
        step can then not be taken.
        """
        ...

    def updates(self, objectives: Objectives, batch: int, step: int) -> Iterator[Update]:
        """Yields the losses of batch number `batch` in optimisation step `step`, one at a time.

        The loop differentiates each loss before it asks for the next, so later objectives can use (detached) outputs of the same forward
        pass. `objectives` are the wrapped ones, and each may be called once.
        """
        ...

    def pictures(self, averaged: nn.Module) -> dict[str, Tensor]:
        """Returns pictures to look at, 3 x H x W in [0, 1], by their names."""
        ...

    def validate(self, averaged: nn.Module) -> dict[str, float]:
        """Returns figures on held-out identities. There are none where no identity is held out."""
        ...

    def start_from(self, path: Path) -> None:
        """Loads weights (.safetensors) to start from."""
        ...

    def export(self, averaged: nn.Module, folder: Path, card: Mapping[str, Any]) -> Path:
        """Writes the weights that users load, and returns the file."""
        ...


class Feeds:
    """Gives training batches and, where identities are held out, fixed batches of those."""

    def __init__(self, recipe: Recipe, fabric: L.Fabric, dataset: ClipDataset, training: Sampler, pairs: PairConfig | None) -> None:
        self.training = BatchSource(
            dataset, training, recipe.augment, batch_size=recipe.batch_size, seed=recipe.seed, device=fabric.device,
            rank=fabric.global_rank, ranks=fabric.world_size, pairs=pairs, workers=recipe.data.workers,
        )  # fmt: skip
        self.recipe, self.dataset, self.device = recipe, dataset, fabric.device

    def close(self) -> None:
        """Stops reading batches ahead."""
        self.training.close()

    def continue_from(self, batch: int, samples: int) -> None:
        """Does as `Stage.continue_from`."""
        self.training.continue_from(batch, samples)

    def fixed(self, sampler: Sampler, samples: int) -> Iterator[Batch]:
        """Yields batches of the same samples at every call, without augmentation."""
        for first in range(0, samples, VALIDATION_BATCH):
            size = min(VALIDATION_BATCH, samples - first)
            yield BatchSource(self.dataset, sampler, NO_AUGMENT, batch_size=size, seed=FIXED, device=self.device).at(first)


def epochs_of(recipe: Recipe) -> int | None:
    """Returns the seed of the recipe's epochs, or None where clips are drawn with repetition."""
    return recipe.seed if recipe.data.order == "epochs" else None


def validation_sampler(dataset: ClipDataset, make: Any) -> Sampler | None:
    """Makes the sampler of validation. Returns None where no clip is held out, or where all that are have too few frames."""
    if not len(dataset.members("validation")):
        return None
    try:
        return cast(Sampler, make("validation"))
    except InputError:
        return None


def learning_rate(config: OptimiserConfig, step: int, max_steps: int, processes: int = 1) -> float:
    """Returns the learning rate of the update that leads from `step` to `step + 1`. So many processes share a step's samples out."""
    share = min(step / max_steps, 1.0)
    factor = 1.0
    if config.schedule == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * share))
    elif config.schedule == "step" and share >= config.drop_at:
        factor = config.drop_factor
    scale = {"none": 1.0, "sqrt": math.sqrt(processes), "linear": float(processes)}[config.scale]
    # Warm-up takes as many times as many steps, so that the rate grows no faster than with one process.
    warm_up = round(config.warm_up * scale)
    if step < warm_up:
        factor *= (step + 1) / warm_up
    return config.lr * scale * factor
