"""The command line: parses, calls one job, prints. Each command's work lives in `dagan.commands` and is imported when called."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dagan.errors import InputError

app = typer.Typer(
    name="dagan", no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False,
    help="Depth-aware talking heads: one portrait and a driving video in, a talking head out.",
)  # fmt: skip
train_app = typer.Typer(no_args_is_help=True, help="Train from a recipe: first the depth network, then the generator.")
app.add_typer(train_app, name="train")


class Device(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


RecipeArgument = Annotated[Path, typer.Argument(help="Recipe, a YAML file such as those in recipes/.")]
OverrideArguments = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change, such as optimiser.lr=1e-4.", show_default=False)
]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", help="Folder of checkpoints, logs and weights.", show_default=False)]
DeviceOption = Annotated[Device | None, typer.Option("--device", help="Where to train.", show_default=False)]
ResumeOption = Annotated[
    bool | None,
    typer.Option("--resume/--fresh", help="Demand a run to continue, or remove one. Default: continue any.", show_default=False),
]


@app.callback(invoke_without_command=True)
def _main(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"dagan {installed('dagan')}")
        raise typer.Exit


@train_app.command("depth")
def train_depth(
    recipe: RecipeArgument,
    overrides: OverrideArguments = None,
    output: OutputOption = None,
    device: DeviceOption = None,
    resume: ResumeOption = None,
) -> None:
    """Stage 1: learn the face depth network from plain videos."""
    from dagan.commands.train import train_stage

    train_stage("depth", recipe, overrides or [], output, device, _start(resume))


@train_app.command("gan")
def train_gan(
    recipe: RecipeArgument,
    overrides: OverrideArguments = None,
    output: OutputOption = None,
    device: DeviceOption = None,
    resume: ResumeOption = None,
) -> None:
    """Stage 2: learn keypoints, motion and generator, on a trained depth network."""
    from dagan.commands.train import train_stage

    train_stage("gan", recipe, overrides or [], output, device, _start(resume))


def _start(resume: bool | None) -> str:
    return "auto" if resume is None else "resume" if resume else "fresh"


def main() -> None:
    """Entry point. Bad input ends in one sentence and status 2, an interrupt in status 130."""
    try:
        app()
    except InputError as error:
        print(f"dagan: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("dagan: interrupted", file=sys.stderr)
        sys.exit(130)
