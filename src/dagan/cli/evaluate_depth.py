"""`dagan evaluate depth`: measures a depth network on clips, prints the tables, writes report and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dagan.cli.options import HoldOutOption, OverwriteOption, RunDeviceOption

if TYPE_CHECKING:
    from dagan.evaluate.depth.measure import DepthSummary


def evaluate_depth(
    clips: Annotated[
        Path,
        typer.Argument(help="Measure on this folder of clips, from `dagan synth` (with ground truth) or real ones.", show_default=False),
    ],
    weights: Annotated[
        str, typer.Option(help="Measure these weights: a depth file or checkpoint of stage 1, a model file, or a model's name.")
    ] = "lite-256",
    egomotion: Annotated[
        Path | None, typer.Option(help="This checkpoint of stage 1 tells pose and focal length.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write report and pictures to this folder.", show_default=False)
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="The network sees pictures of this side. Default: as it was trained.", show_default=False)
    ] = None,
    every: Annotated[int, typer.Option(help="Measure every n-th frame.")] = 10,
    gap: Annotated[int, typer.Option(help="Motion is measured between two frames that lie so many frames apart.")] = 5,
    limit: Annotated[int | None, typer.Option(help="Measure at most so many clips.", show_default=False)] = None,
    pictures: Annotated[int, typer.Option(help="Draw so many of the clips.")] = 6,
    hold_out: HoldOutOption = 0.0,
    device: RunDeviceOption = "auto",
    overwrite: OverwriteOption = False,
) -> None:
    """Measure depth: against ground truth on synthetic heads, against face landmarks on real clips."""
    from dagan.cli.console import check_printed, progress_bar
    from dagan.evaluate.depth.measure import EvaluateDepthOptions, measure_folder
    from dagan.evaluate.depth.report import write_reports

    options = EvaluateDepthOptions(
        weights=weights, egomotion=egomotion, output=output, size=size, every=every, gap=gap, clips=limit, pictures=pictures,
        hold_out=hold_out, device=device, overwrite=overwrite,
    )  # fmt: skip
    with progress_bar() as progress:
        summary, found = measure_folder(clips, options, progress)
    _print(summary)
    if output is not None:
        files = write_reports(output, summary, found, overwrite)
        print(f"{output}: {len(files)} files, {files[0].name} and {files[1].name} first")
    else:
        check_printed()


def _print(summary: DepthSummary) -> None:
    from rich.console import Console
    from rich.table import Table

    from dagan.evaluate.depth.report import rows

    console = Console()
    for kind, count, table in (("synthetic", summary.synthetic_clips, summary.synthetic), ("real", summary.real_clips, summary.real)):
        if count:
            drawn = Table("figure", "value", "baseline", "baseline is", title=f"{count} {kind} clips")
            for row in rows(table):
                drawn.add_row(*row)
            console.print(drawn)
    for note in summary.notes:
        console.print(note, highlight=False)
    if summary.missing_faces:
        console.print(f"{summary.missing_faces} of {summary.frames} frames without a face found are missing from the landmarker's rows")
