"""`dagan train depth` and `dagan train gan` read a recipe and train; `dagan ablate ...` finds out which part of a recipe does what."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from dagan.cli.options import EveryOption, HoldOutOption, LayoutOption, OverwriteOption, WorkersOption
from dagan.errors import InputError, require_extra

if TYPE_CHECKING:
    from dagan.data.clips import LayoutChoice
    from dagan.evaluate.figures import Measurement
    from dagan.evaluate.methods import ModelSpec
    from dagan.train.training import Result

app = typer.Typer(no_args_is_help=True, help="Train from a recipe: first the depth network, then the generator.")
RecipeArgument = Annotated[Path, typer.Argument(help="The recipe is a YAML file, such as those in recipes/.")]
OverrideArguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...", help="These settings take the place of the recipe's, such as optimiser.lr=1e-4.", show_default=False
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="This folder takes checkpoints, logs and weights. Default: as the recipe says.", show_default=False
    ),
]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="The device trains: auto, cpu, cuda or mps. Default: as the recipe says.", show_default=False)
]
ResumeOption = Annotated[
    bool | None,
    typer.Option(
        "--resume/--fresh",
        help="Demand a run to continue, or remove the one that is there. By default a run goes on where there is one.",
        show_default=False,
    ),
]


@app.command("depth")
def train_depth(
    recipe: RecipeArgument,
    overrides: OverrideArguments = None,
    output: OutputOption = None,
    device: DeviceOption = None,
    resume: ResumeOption = None,
) -> None:
    """Learn the face depth network from plain videos (stage 1)."""
    require_extra("train", "training")
    train_stage("depth", recipe, overrides or [], output, device, _start(resume))


@app.command("gan")
def train_gan(
    recipe: RecipeArgument,
    overrides: OverrideArguments = None,
    output: OutputOption = None,
    device: DeviceOption = None,
    resume: ResumeOption = None,
) -> None:
    """Learn keypoints, motion and generator on a trained depth network (stage 2)."""
    require_extra("train", "training")
    train_stage("gan", recipe, overrides or [], output, device, _start(resume))


@app.command("gains")
def train_gains(
    model: Annotated[str, typer.Argument(help="The trained model is a model file or a bundled one's name.", show_default=False)],
    clips: Annotated[Path, typer.Argument(help="Pairs of frames come from this folder of training clips.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Write the model with its gains to this file (.safetensors).")],
    pairs: Annotated[int, typer.Option(help="So many pairs of frames are drawn.")] = 240,
    hold_out: HoldOutOption = 0.1,
    layout: LayoutOption = "auto",
    overwrite: OverwriteOption = False,
) -> None:
    """Measure, after training, by how much mouths, eyes and gaze must be exaggerated, and keep that with the weights."""
    from dagan.cli.console import progress_bar
    from dagan.data.config import DataConfig
    from dagan.data.store import open_dataset
    from dagan.engine.open import open_engine
    from dagan.train.calibrate import calibrate, with_gains
    from dagan.weights.files import find

    if output.exists() and not overwrite:
        raise InputError(f"{output} exists already: choose another name, or replace it with --overwrite")
    if pairs < 1:
        raise InputError(f"--pairs is {pairs}: must be at least 1")
    engine = open_engine(model, precision="float32")
    data = DataConfig(train=clips, size=engine.size, hold_out=hold_out, layout=cast("LayoutChoice", layout), storage="disk")
    with progress_bar() as progress:
        found = calibrate(engine, open_dataset(data), pairs, progress)
    with_gains(find(model), output, found.gains)
    for movement, (plain, exaggerated) in found.slopes.items():
        gain = getattr(found.gains, movement)
        print(f"{movement}: gain {gain:g}; results move by {plain:.2f} of what drives them without it, by {exaggerated:.2f} with it")
    print(f"{output}: gains from {found.pairs} pairs of frames")


def _start(resume: bool | None) -> str:
    return "auto" if resume is None else "resume" if resume else "fresh"


def train_stage(
    stage: Literal["depth", "gan"], recipe: Path, overrides: list[str], output: Path | None, device: str | None, start: str
) -> Result:
    """Trains one stage. `output` and `device` override the recipe's."""
    from dagan.train.depth import DepthStage
    from dagan.train.gan import GanStage
    from dagan.train.recipe import DepthRecipe, GanRecipe, read_recipe
    from dagan.train.training import train

    settings = [*overrides]
    if output is not None:
        settings.append(f"output={_quoted(output)}")
    if device is not None:
        settings.append(f"accelerator={device}")
    if stage == "depth":
        return train(read_recipe(DepthRecipe, recipe, settings), DepthStage, start)
    return train(read_recipe(GanRecipe, recipe, settings), GanStage, start)


def _quoted(path: Path) -> str:
    """Returns the path as a YAML string, whatever characters it has."""
    import json

    from dagan.checks import printable

    return printable(json.dumps(str(path), ensure_ascii=False))


ablations = typer.Typer(no_args_is_help=True, help="Train variants of a recipe and tabulate what each part brings.")
TableArgument = Annotated[
    Path, typer.Argument(help="The table lists the variants, such as those in recipes/ablations/.", show_default=False)
]
FolderOption = Annotated[Path, typer.Option("--output", "-o", help="Runs and tables are written to this folder.", show_default=False)]
EveryRunArguments = Annotated[
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


@ablations.command("depth")
def ablate_depth(
    table: TableArgument,
    output: FolderOption,
    overrides: EveryRunArguments = None,
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
    """Train variants of stage 1 with every seed of the table, and measure them as `dagan evaluate depth` does. What was stopped goes on."""
    require_extra("train", "training")
    from dagan.evaluate.figures import DepthMeasurement
    from dagan.train.depth import DepthStage
    from dagan.train.recipe import DepthRecipe

    measure = DepthMeasurement(synthetic=synthetic, real=real, hold_out=hold_out, every=every)
    _ablate(table, overrides, _options(output, only, seed, tabulate, overwrite), (DepthRecipe, DepthStage), measure)


@ablations.command("gan")
def ablate_gan(
    table: TableArgument,
    output: FolderOption,
    overrides: EveryRunArguments = None,
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
    """Train variants of stage 2 with every seed of the table, and compare how they rebuild people held out. What was stopped goes on."""
    require_extra("train", "training")
    require_extra("evaluate", "measuring")
    from dagan.cli.console import warn
    from dagan.evaluate.figures import GanMeasurement
    from dagan.train.gan import GanStage
    from dagan.train.recipe import GanRecipe

    measure = GanMeasurement(describe=_described, clips=clips, hold_out=hold_out, every=every, workers=workers, warn=warn)
    _ablate(table, overrides, _options(output, only, seed, tabulate, overwrite), (GanRecipe, GanStage), measure)


def _described(weights: Path, device: str) -> ModelSpec:
    from dagan.cli.evaluate import specs_of

    # Figures of several machines go into one table, so every machine measures in the same precision.
    (spec,) = specs_of([str(weights)], False, None, device, "float32", "auto")
    return spec


def _options(output: Path, only: list[str] | None, seeds: list[int] | None, tabulate: bool, overwrite: bool) -> Any:
    from dagan.evaluate.ablation import AblateOptions

    return AblateOptions(output=output, only=tuple(only or ()), seeds=tuple(seeds or ()), tabulate=tabulate, overwrite=overwrite)


def _ablate(table: Path, overrides: list[str] | None, options: Any, stage: tuple[Any, Any], measure: Measurement) -> None:
    from dagan.evaluate.ablation import Training, ablate
    from dagan.train.recipe import read_recipe
    from dagan.train.training import AUTO, FRESH, train

    recipe_kind, build = stage
    training = Training(partial(read_recipe, recipe_kind), lambda recipe, fresh: train(recipe, build, FRESH if fresh else AUTO))
    found = ablate(table, overrides or [], options, training, measure, partial(print, flush=True))
    print(found.page)
    print(f"{found.files[0]}, {found.files[1].name}")
