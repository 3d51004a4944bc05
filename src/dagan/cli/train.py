"""`dagan synth` makes clips to train on; `dagan train depth` and `dagan train gan` read a recipe and train."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from dagan.cli.options import HoldOutOption, LayoutOption, OverwriteOption
from dagan.errors import InputError, require_extra

if TYPE_CHECKING:
    from dagan.data.clips import LayoutChoice
    from dagan.train.loop.training import Result

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


def synth(
    output: Annotated[Path, typer.Argument(help="Clips are written to this folder.", show_default=False)],
    clips: Annotated[int, typer.Option(help="Make so many clips; a folder can grow later.")] = 10,
    size: Annotated[int, typer.Option(help="Pictures have this side, in pixels.")] = 256,
    seed: Annotated[int, typer.Option(help="Other seeds give other heads.")] = 0,
    frames: Annotated[int, typer.Option(help="A clip has so many frames, 25 a second.")] = 100,
    workers: Annotated[int, typer.Option(help="Make so many clips at once, each by a process of its own.")] = 1,
    overwrite: OverwriteOption = False,
) -> None:
    """Make clips of synthetic talking heads with exact depth, camera, pose and landmarks."""
    import time

    from dagan.cli.console import progress_bar
    from dagan.synthetic.clip import synthesise

    start = time.monotonic()
    with progress_bar() as progress:
        written, kept = synthesise(output, clips, size, seed, frames, overwrite=overwrite, workers=workers, progress=progress)
    seconds = time.monotonic() - start
    rate = f", {written * frames / seconds:.1f} frames a second" if written else ""
    print(f"{output}: {written} clips of {frames} frames written in {seconds:.0f} s{rate}{f'; {kept} were there already' if kept else ''}")


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
    from dagan.train.gan.calibrate import calibrate, with_gains
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
    from dagan.train.depth.stage import DepthStage
    from dagan.train.gan.stage import GanStage
    from dagan.train.loop.training import train
    from dagan.train.recipe import DepthRecipe, GanRecipe, read_recipe

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
