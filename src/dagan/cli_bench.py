"""`dagan bench`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def bench(
    model: Annotated[
        str, typer.Option("--model", help="Measure this model, named as for animate, or a preset without weights.")
    ] = "lite-256",
    naive: Annotated[
        list[str] | None,
        typer.Option(
            help="Compare with this model's naive way; the option may be repeated, none compares nothing. Default: the model's own.",
            show_default=False,
        ),
    ] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(help="Measure this runtime; the option may be repeated. Default: all that are installed.", show_default=False),
    ] = None,
    device: Annotated[str, typer.Option(help="This device computes: auto, cpu, cuda, cuda:N or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="Numbers have this precision: auto, float32, bfloat16, float16 or int8.")] = "auto",
    batch_size: Annotated[
        int | None, typer.Option(help="So many frames are computed at once. Default: what suits the device.", show_default=False)
    ] = None,
    frames: Annotated[int, typer.Option(help="The video has so many frames; 0 leaves videos out.")] = 100,
    naive_frames: Annotated[int, typer.Option(help="The naive way's video has so many frames.")] = 4,
    rounds: Annotated[int, typer.Option(help="Each comparison is repeated so often.")] = 3,
    seconds: Annotated[float, typer.Option(help="Each part is measured for so many seconds.")] = 2.0,
    crop: Annotated[bool, typer.Option("--crop/--no-crop", help="Find the face in the video, and measure that too.")] = False,
    report: Annotated[Path | None, typer.Option("--json", help="Write a report too, to this file (.json).", show_default=False)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a report that exists already.")] = False,
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
