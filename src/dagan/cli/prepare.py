"""`dagan prepare` makes training clips of raw videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dagan.cli.options import parse_rate


def prepare(
    raws: Annotated[list[Path], typer.Argument(help="Clips are made of these raw videos, and of those in these folders.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Write clips, tables and a report to this folder; a stopped run goes on.", show_default=False),
    ],
    size: Annotated[int, typer.Option(help="Clips have this side, in pixels.")] = 256,
    fps: Annotated[
        str | None,
        typer.Option("--fps", help="Clips have so many frames a second. Default: every frame at its own time.", show_default=False),
    ] = None,
    shortest: Annotated[float, typer.Option(help="Leave out clips that are shorter, in seconds.")] = 1.2,
    longest: Annotated[float, typer.Option(help="Divide what is longer, in seconds.")] = 12.0,
    min_face: Annotated[
        float | None,
        typer.Option(help="Leave out faces that are lower, in pixels. Default: 98 for clips of 256, in proportion.", show_default=False),
    ] = None,
    filters: Annotated[
        bool, typer.Option("--filters/--no-filters", help="Leave out faces that are dark, blurred, still, covered or occluded.")
    ] = True,
    lists: Annotated[
        Path | None,
        typer.Option("--list", help="Take only what this table (.csv), or VoxCeleb's text files, name.", show_default=False),
    ] = None,
    identity: Annotated[
        Path | None,
        typer.Option(help="Tell people apart by this ONNX face recognition network. Default: by raw video.", show_default=False),
    ] = None,
    same: Annotated[float, typer.Option(help="Faces that are at least so similar (cosine) are one person's.")] = 0.6,
    hold_out: Annotated[float, typer.Option(help="Set this share of the identities aside for testing.")] = 0.0,
    leak: Annotated[float, typer.Option(help="Set nobody aside who is so similar (cosine) to somebody trained on.")] = 0.45,
    workers: Annotated[int, typer.Option(help="So many videos are prepared at once, each by a process on one core.")] = 1,
    cluster: Annotated[
        str | None,
        typer.Option(help="Share the videos out to the Ray cluster at this address, or local for one made here.", show_default=False),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Remove clips that were made with other options, or before.")] = False,
) -> None:
    """Make training clips of raw videos: shots, faces, fixed squares, filters, identities, and a report."""
    from dagan.cli.console import progress_bar, warn
    from dagan.prepare.job import prepare as job
    from dagan.prepare.options import PrepareOptions

    options = PrepareOptions(
        size=size, rate=parse_rate(fps), shortest=shortest, longest=longest, min_face=min_face, filters=filters, identity=identity,
        hold_out=hold_out, same=same, leak=leak,
    )  # fmt: skip
    with progress_bar() as progress:
        made = job(raws, output, options, progress, warn, lists=lists, workers=workers, cluster=cluster, overwrite=overwrite)
    totals = made.totals
    left_out = ", ".join(f"{count} {reason}" for reason, count in totals["left_out"].items()) or "nothing"
    print(f"{made.folder}: {totals['clips']} clips of {totals['identities']} identities, {totals['seconds']:.1f} s; left out: {left_out}")
    print(f"{made.folder / 'report.md'}{''.join(f', {sheet.name}' for sheet in made.sheets)}")
