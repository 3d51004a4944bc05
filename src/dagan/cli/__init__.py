"""The command line. Commands of one kind share a file.

Each command parses its options, opens an engine where it needs one, calls one job, and prints. Jobs are imported when their command runs,
so that `dagan --help` costs nothing.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dagan.cli import animate, convert, evaluate, measure, pose, prepare, train
from dagan.cli import app as page
from dagan.cli.console import check_printed, lenient_streams
from dagan.errors import InputError, missing_module

app = typer.Typer(
    name="dagan", no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False,
    help="Depth-aware talking heads: one portrait and a driving video in, a talking head out.",
)  # fmt: skip


@app.callback(invoke_without_command=True)
def _main(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"dagan {installed('dagan')}")
        raise typer.Exit


# Help lists panels and commands in the order in which they are registered here: single commands, then groups.
ANIMATE, MEASURE, TRAIN, MODELS = "Animate", "Measure", "Train", "Models"
app.command("animate", rich_help_panel=ANIMATE)(animate.animate)
app.command("demo", rich_help_panel=ANIMATE)(animate.demo)
app.command("pose", rich_help_panel=ANIMATE)(pose.pose)
app.command("motions", rich_help_panel=ANIMATE)(pose.motions)
app.command("app", rich_help_panel=ANIMATE)(page.app)
app.command("live", rich_help_panel=ANIMATE)(page.live)
app.command("verify", rich_help_panel=ANIMATE)(measure.verify)
app.command("depth", rich_help_panel=MEASURE)(measure.depth)
app.command("bench", rich_help_panel=MEASURE)(measure.bench)
app.command("prepare", rich_help_panel=TRAIN)(prepare.prepare)
app.command("synth", rich_help_panel=TRAIN)(prepare.synth)
app.command("pack", rich_help_panel=TRAIN)(prepare.pack)
app.command("convert", rich_help_panel=MODELS)(convert.convert)
app.command("export", rich_help_panel=MODELS)(convert.export)
app.add_typer(evaluate.app, name="evaluate", rich_help_panel=MEASURE)
app.add_typer(train.app, name="train", rich_help_panel=TRAIN)
app.add_typer(train.ablations, name="ablate", rich_help_panel=TRAIN)


def main() -> None:
    """Runs the command line. Bad input ends in one sentence and status 2, and an interrupt in status 130."""
    with lenient_streams():
        try:
            app()
        except SystemExit:
            if {"--help", "--version"} & set(sys.argv):
                check_printed()
            raise
        except InputError as error:
            print(f"dagan: {error}", file=sys.stderr)
            sys.exit(2)
        except ImportError as error:
            sentence = missing_module(error)
            if sentence is None:
                raise
            print(f"dagan: {sentence}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print("dagan: interrupted", file=sys.stderr)
            sys.exit(130)
