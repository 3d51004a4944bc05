"""`dagan depth` estimates the depth of a face in a photo or a video."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dagan.cli.options import (
    BatchOption,
    CropOption,
    ModelOption,
    OverwriteOption,
    PrecisionOption,
    RateOption,
    RunDeviceOption,
    RuntimeOption,
    open_chosen,
    parse_rate,
)  # fmt: skip

PicturesArgument = Annotated[Path, typer.Argument(help="Depth is measured in this photo, video or folder of images.", show_default=False)]
DepthOption = Annotated[
    Path,
    typer.Option(
        "--output", "-o", show_default=False,
        help="Write this file: colours as .png, .mp4 or .gif, numbers as .npz, points as .ply, a mesh as .glb.",
    ),
]


def depth(
    source: PicturesArgument,
    output: DepthOption,
    model: ModelOption = "lite-256",
    runtime: RuntimeOption = None,
    device: RunDeviceOption = "auto",
    precision: PrecisionOption = "auto",
    batch_size: BatchOption = None,
    crop: CropOption = True,
    colours: Annotated[
        str, typer.Option("--colours", help="Depth is drawn in this colour map, such as inferno, turbo or gray.")
    ] = "inferno",
    focal: Annotated[
        float | None, typer.Option("--focal", help="Points assume this focal length, in picture widths. Default: 1.5.", show_default=False)
    ] = None,
    frame_rate: RateOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Measure the depth of a face in a photo or video."""
    from dagan.cli.console import progress_bar, warn
    from dagan.depth import ASSUMED_FOCAL, DepthOptions, check_depth, measure_depth
    from dagan.processes import keep_freed_memory

    options = DepthOptions(
        crop=crop,
        colours=colours,
        focal=ASSUMED_FOCAL if focal is None else focal,
        frame_rate=parse_rate(frame_rate),
        overwrite=overwrite,
    )
    keep_freed_memory()
    check_depth(source, output, options)  # This comes before the model, which may have to be fetched.
    engine = open_chosen(model, runtime, batch_size, device, precision)
    with progress_bar() as progress:
        frames = measure_depth(engine, source, output, options, progress, warn)
    print(f"{output}: depth of {frames} frame{'s' if frames != 1 else ''}")
