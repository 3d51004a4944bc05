"""`dagan motions` lists the motions that come with the package, and draws them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dagan.cli.animate import PORTRAIT
from dagan.cli.options import ModelOption, OverwriteOption, PrecisionOption, RunDeviceOption, RuntimeOption, open_chosen


def motions(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Draw a strip of each motion into this folder (PNG).", show_default=False)
    ] = None,
    photo: Annotated[
        Path, typer.Option(help="Strips show the face of this photo. Default: the bundled portrait.", show_default=False)
    ] = PORTRAIT,
    model: ModelOption = "lite-256",
    runtime: RuntimeOption = None,
    device: RunDeviceOption = "auto",
    precision: PrecisionOption = "auto",
    overwrite: OverwriteOption = False,
) -> None:
    """List the motions that come with the package: dagan animate me.jpg NAME -o out.mp4 makes one of them."""
    from dagan.animate.made import check_strips, draw_strips
    from dagan.cli.console import progress_bar
    from dagan.motion.pose import MOTIONS

    for name, made in MOTIONS.items():
        print(f"{name:8}{made.seconds:4.1f} s   {made.about}")
    if output is None:
        return
    check_strips(output, overwrite)
    engine = open_chosen(model, runtime, None, device, precision)
    with progress_bar() as progress:
        files = draw_strips(engine, photo, output, overwrite, progress)
    print(f"{output}: {', '.join(file.name for file in files)}")
