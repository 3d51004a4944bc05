"""`dagan train depth` and `dagan train gan`: read a recipe, train, say where the weights are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from dagan.names import printable
from dagan.train.depth.stage import DepthStage
from dagan.train.gan.stage import GanStage
from dagan.train.loop.training import Result, train
from dagan.train.recipe import DepthRecipe, GanRecipe, read_recipe


def train_stage(
    stage: Literal["depth", "gan"], recipe: Path, overrides: list[str], output: Path | None, device: str | None, start: str
) -> Result:
    """Trains one stage; `output` and `device` override the recipe's."""
    settings = [*overrides]
    if output is not None:
        settings.append(f"output={_quoted(output)}")
    if device is not None:
        settings.append(f"accelerator={device}")
    if stage == "depth":
        return train(read_recipe(DepthRecipe, recipe, settings), DepthStage, start)
    return train(read_recipe(GanRecipe, recipe, settings), GanStage, start)


def _quoted(path: Path) -> str:
    """As a YAML string, whatever characters the path has."""
    return printable(json.dumps(str(path), ensure_ascii=False))
