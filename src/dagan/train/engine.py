"""Lightning Fabric as the engine: devices, precision, and objectives wrapped so that they may return anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning_fabric as L
import torch
from lightning_fabric.plugins.precision import MixedPrecision
from torch import nn

from dagan.errors import InputError
from dagan.train.recipe import Recipe


class Autocast(MixedPrecision):
    """Mixed precision by autocast alone: images and coordinates go in, and losses come out, in float32.

    The parent also rounds every input to 16 bits, which leaves 1/256 of the image's width for a keypoint.
    """

    def convert_input(self, data: Any) -> Any:
        """Inputs as they are."""
        return data

    def convert_output(self, data: Any) -> Any:
        """Outputs as they are."""
        return data


class Carried:
    """An objective's result, opaque to the engine, which would walk into it and stumble over frozen dataclasses."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class Carrier(nn.Module):
    """Wraps an objective so that its result travels as one opaque object."""

    def __init__(self, objective: nn.Module) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, *args: Any, **kwargs: Any) -> Carried:
        return Carried(self.objective(*args, **kwargs))


def unwrapping(module: Callable[..., Carried]) -> Callable[..., Any]:
    """A call of the wrapped module that gives the objective's own result."""
    return lambda *args, **kwargs: module(*args, **kwargs).value


def make_fabric(recipe: Recipe) -> L.Fabric:
    """The engine a recipe asks for. Raises InputError for an accelerator that is not there."""
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    kind = recipe.accelerator
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError("accelerator is cuda, but no CUDA device can be used: set accelerator (or --device) to cpu or auto")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InputError("accelerator is mps, but this machine has none: set accelerator (or --device) to cpu or auto")
    precision: dict[str, Any] = {"precision": "32-true"}
    if recipe.precision != "32-true":
        device = "cpu" if kind == "cpu" else "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        half = recipe.precision
        precision = {"plugins": Autocast(half, device)}
    try:
        return L.Fabric(accelerator=kind, devices=recipe.devices, strategy=recipe.strategy, **precision)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"devices {recipe.devices} with accelerator {kind}: {str(error).splitlines()[0]}") from None
