"""Movement without a video: `dagan pose` sets a photo's pose by hand, `dagan motions` lists and draws the motions of the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dagan.cli.animate import PORTRAIT
from dagan.cli.options import (
    BatchOption,
    CropOption,
    ModelOption,
    OverwriteOption,
    PrecisionOption,
    RunDeviceOption,
    RuntimeOption,
    open_chosen,
)  # fmt: skip

PhotoArgument = Annotated[Path, typer.Argument(help="The photo shows the face to pose.", show_default=False)]
PoseOutput = Annotated[
    Path,
    typer.Option(
        "--output", "-o", help="Write this image file, or this video or animated picture where values have colons.", show_default=False
    ),
]


def pose(
    photo: PhotoArgument,
    output: PoseOutput,
    yaw: Annotated[str, typer.Option(help="The head turns by so many degrees to the right of the picture.")] = "0",
    pitch: Annotated[str, typer.Option(help="The head looks up by so many degrees.")] = "0",
    roll: Annotated[str, typer.Option(help="The head leans by so many degrees clockwise.")] = "0",
    zoom: Annotated[str, typer.Option(help="The head becomes so many times as large, from 0.5 to 2.")] = "1",
    shift: Annotated[
        tuple[str, str], typer.Option(help="The head moves to the right and upwards by these shares of the picture's side.")
    ] = ("0", "0"),
    mouth: Annotated[str, typer.Option(help="A mouth of -1 closes, 0 is the photo's, and 1 is wide open.")] = "0",
    smile: Annotated[str, typer.Option(help="A smile of 1 is broad, 0 is the photo's, and -1 is the opposite.")] = "0",
    lids: Annotated[str, typer.Option(help="Lids at -1 close the eyes, 0 is the photo's, and 1 opens them wide.")] = "0",
    gaze: Annotated[
        tuple[str, str], typer.Option(help="The eyes look to the right and up by these shares, from -1 to 1, of how far eyes go.")
    ] = ("0", "0"),
    seconds: Annotated[float, typer.Option(help="A video takes so long from one value to the next.")] = 2.0,
    model: ModelOption = "lite-256",
    runtime: RuntimeOption = None,
    device: RunDeviceOption = "auto",
    precision: PrecisionOption = "auto",
    batch_size: BatchOption = None,
    crop: CropOption = True,
    overwrite: OverwriteOption = False,
) -> None:
    """Turn and set the face of a photo by hand. Values with commas make a strip, and values with colons make a video."""
    import time

    from dagan.animate.pose import PoseOptions, check_pose_job, described
    from dagan.animate.pose import pose as draw
    from dagan.cli.console import progress_bar, warn

    given = {
        "yaw": yaw, "pitch": pitch, "roll": roll, "zoom": zoom, "shift_x": shift[0], "shift_y": shift[1], "mouth": mouth, "smile": smile,
        "lids": lids, "gaze_x": gaze[0], "gaze_y": gaze[1],
    }  # fmt: skip
    values = {name: text for name, text in given.items() if text != ("1" if name == "zoom" else "0")}
    options = PoseOptions(values=values, seconds=seconds, crop=crop, overwrite=overwrite)
    check_pose_job(photo, output, options)  # This comes before the model, which may have to be fetched.
    engine = open_chosen(model, runtime, batch_size, device, precision)
    began = time.monotonic()
    with progress_bar() as progress:
        report = draw(engine, photo, output, options, progress, warn)
    what = "frames" if report.sweep else "pictures" if report.pictures > 1 else "picture"
    print(f"{report.output}: {report.pictures} {what}, {described(values)}; took {time.monotonic() - began:.1f} s on {engine.device}")


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
    from dagan.animate.pose import check_strips, draw_strips
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
