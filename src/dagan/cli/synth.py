"""`dagan synth`: clips of synthetic heads with ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dagan.cli.options import OverwriteOption


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
