"""`dagan bench`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def bench(
    model: Annotated[str, typer.Option("--model", help="As for animate (exported folders too), or a preset without weights.")] = "lite-256",
    naive: Annotated[
        list[str] | None,
        typer.Option(
            help="Model whose naive way to compare with; repeatable; none: no comparison. Default: the model.", show_default=False
        ),
    ] = None,
    runtime: Annotated[list[str] | None, typer.Option(help="Runtime to measure; repeatable. Default: all.", show_default=False)] = None,
    device: Annotated[str, typer.Option(help="Where to compute: auto, cpu, cuda, cuda:N or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16 or int8.")] = "auto",
    batch_size: Annotated[int | None, typer.Option(help="Frames computed at once.", show_default=False)] = None,
    frames: Annotated[int, typer.Option(help="Of the video; 0 leaves videos out.")] = 100,
    naive_frames: Annotated[int, typer.Option(help="Of the naive way's video.")] = 4,
    rounds: Annotated[int, typer.Option(help="Of each comparison.")] = 3,
    seconds: Annotated[float, typer.Option(help="For each part.")] = 2.0,
    crop: Annotated[bool, typer.Option("--crop/--no-crop", help="Find the face in the video.")] = False,
    report: Annotated[Path | None, typer.Option("--json", help="Report to write too (.json).", show_default=False)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing report.")] = False,
) -> None:
    """Measure speed: parts, latency and whole videos, beside the naive way."""
    from dagan.commands.bench import BenchOptions
    from dagan.commands.bench import bench as run

    options = BenchOptions(
        model=model, naive=None if not naive else tuple(name for name in naive if name != "none"),
        runtimes=tuple(runtime) if runtime else None, device=device, precision=precision, batch_size=batch_size,
        frames=frames, naive_frames=naive_frames, rounds=rounds, seconds=seconds, crop=crop,
    )  # fmt: skip
    run(options, report, overwrite)
