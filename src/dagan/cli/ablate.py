"""`dagan ablate ...` finds out which part of a recipe does what."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dagan.cli.options import EveryOption, WorkersOption
from dagan.errors import require_extra

if TYPE_CHECKING:
    from dagan.evaluate.ablation.stages import Measurement
    from dagan.evaluate.animation.methods import ModelSpec

app = typer.Typer(no_args_is_help=True, help="Train variants of a recipe and tabulate what each part brings.")
TableArgument = Annotated[
    Path, typer.Argument(help="The table lists the variants, such as those in recipes/ablations/.", show_default=False)
]
FolderOption = Annotated[Path, typer.Option("--output", "-o", help="Runs and tables are written to this folder.", show_default=False)]
OverrideArguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="These settings hold for all runs, such as max_steps=500.", show_default=False),
]
OnlyOption = Annotated[
    list[str] | None, typer.Option(help="Run the variant of this name alone; the option may be repeated.", show_default=False)
]
SeedOption = Annotated[list[int] | None, typer.Option(help="Run this seed alone; the option may be repeated.", show_default=False)]
TabulateOption = Annotated[
    bool, typer.Option("--tabulate", help="Train nothing: tabulate the figures that are in the output folder, from any machine.")
]
AgainOption = Annotated[bool, typer.Option("--overwrite", help="Run again what is done already.")]


@app.command("depth")
def ablate_depth(
    table: TableArgument,
    output: FolderOption,
    overrides: OverrideArguments = None,
    synthetic: Annotated[Path | None, typer.Option(help="Measure on these clips of `dagan synth`.", show_default=False)] = None,
    real: Annotated[Path | None, typer.Option(help="Measure on these real clips.", show_default=False)] = None,
    hold_out: Annotated[
        float, typer.Option(help="Training held out this share of the real identities, which are measured; 0 measures all.")
    ] = 0.0,
    every: EveryOption = 10,
    only: OnlyOption = None,
    seed: SeedOption = None,
    tabulate: TabulateOption = False,
    overwrite: AgainOption = False,
) -> None:
    """Train variants of stage 1 from each of their seeds, and measure them as `dagan evaluate depth` does. Started again, it goes on."""
    require_extra("train", "training")
    from dagan.evaluate.ablation.stages import DepthMeasurement
    from dagan.train.depth.stage import DepthStage
    from dagan.train.recipe import DepthRecipe

    measure = DepthMeasurement(synthetic=synthetic, real=real, hold_out=hold_out, every=every)
    _ablate(table, overrides, _options(output, only, seed, tabulate, overwrite), (DepthRecipe, DepthStage), measure)


@app.command("gan")
def ablate_gan(
    table: TableArgument,
    output: FolderOption,
    overrides: OverrideArguments = None,
    clips: Annotated[Path | None, typer.Option(help="Measure on these clips. Default: the training clips.", show_default=False)] = None,
    hold_out: Annotated[
        float | None,
        typer.Option(
            help="Training held out this share of the identities, which are measured; 0 measures all. Default: as the recipe says.",
            show_default=False,
        ),
    ] = None,
    every: EveryOption = 5,
    workers: WorkersOption = 1,
    only: OnlyOption = None,
    seed: SeedOption = None,
    tabulate: TabulateOption = False,
    overwrite: AgainOption = False,
) -> None:
    """Train variants of stage 2 from each of their seeds, and compare how they rebuild people held out. Started again, it goes on."""
    require_extra("train", "training")
    require_extra("evaluate", "measuring")
    from dagan.cli.console import warn
    from dagan.evaluate.ablation.stages import GanMeasurement
    from dagan.train.gan.stage import GanStage
    from dagan.train.recipe import GanRecipe

    measure = GanMeasurement(describe=_described, clips=clips, hold_out=hold_out, every=every, workers=workers, warn=warn)
    _ablate(table, overrides, _options(output, only, seed, tabulate, overwrite), (GanRecipe, GanStage), measure)


def _described(weights: Path, device: str) -> ModelSpec:
    from dagan.cli.evaluate import specs_of

    # Figures of several machines go into one table, so every machine measures in the same precision.
    (spec,) = specs_of([str(weights)], False, None, device, "float32", "auto")
    return spec


def _options(output: Path, only: list[str] | None, seeds: list[int] | None, tabulate: bool, overwrite: bool) -> Any:
    from dagan.evaluate.ablation.run import AblateOptions

    return AblateOptions(output=output, only=tuple(only or ()), seeds=tuple(seeds or ()), tabulate=tabulate, overwrite=overwrite)


def _ablate(table: Path, overrides: list[str] | None, options: Any, stage: tuple[Any, Any], measure: Measurement) -> None:
    from dagan.evaluate.ablation.run import Training, ablate
    from dagan.train.loop.training import AUTO, FRESH, train
    from dagan.train.recipe import read_recipe

    recipe_kind, build = stage
    training = Training(partial(read_recipe, recipe_kind), lambda recipe, fresh: train(recipe, build, FRESH if fresh else AUTO))
    found = ablate(table, overrides or [], options, training, measure, partial(print, flush=True))
    print(found.page)
    print(f"{found.files[0]}, {found.files[1].name}")
