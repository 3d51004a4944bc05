"""`dagan ablate ...` finds out which part of a recipe does what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dagan.errors import require_extra

app = typer.Typer(no_args_is_help=True, help="Train variants of a recipe and tabulate what each part brings.")


@app.callback()
def _ablate() -> None:
    """Keeps `depth` a sub-command while it is the only one."""


@app.command("depth")
def ablate_depth(
    table: Annotated[Path, typer.Argument(help="The table lists the variants, such as recipes/ablations/depth.yaml.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Runs and tables are written to this folder.", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="These settings hold for all runs, such as max_steps=500.", show_default=False),
    ] = None,
    synthetic: Annotated[Path | None, typer.Option(help="Measure on these clips of `dagan synth`.", show_default=False)] = None,
    real: Annotated[Path | None, typer.Option(help="Measure on these real clips.", show_default=False)] = None,
    hold_out: Annotated[
        float, typer.Option(help="Training held out this share of the real identities, which are measured; 0 measures all.")
    ] = 0.0,
    every: Annotated[int, typer.Option(help="Measure every n-th frame.")] = 10,
    only: Annotated[
        list[str] | None, typer.Option(help="Run the variant of this name alone; the option may be repeated.", show_default=False)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Run again what is done already.")] = False,
) -> None:
    """Train variants of stage 1 from each of their seeds, and measure them as `dagan evaluate depth` does. Started again, it goes on."""
    require_extra("train", "training")
    from functools import partial

    from dagan.evaluate.ablation import AblateOptions, Training
    from dagan.evaluate.ablation import ablate_depth as ablate
    from dagan.train.depth.stage import DepthStage
    from dagan.train.loop.training import AUTO, FRESH, train
    from dagan.train.recipe import DepthRecipe, read_recipe

    options = AblateOptions(
        output=output, synthetic=synthetic, real=real, hold_out=hold_out, every=every,
        only=tuple(only or ()), overwrite=overwrite,
    )  # fmt: skip
    training = Training(partial(read_recipe, DepthRecipe), lambda recipe, fresh: train(recipe, DepthStage, FRESH if fresh else AUTO))
    _, shown, files = ablate(table, overrides or [], options, training, partial(print, flush=True))
    print(shown)
    print(f"{files[0]}, {files[1].name}")
