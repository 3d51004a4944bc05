"""`dagan animate` and `dagan demo` make a photo move as a video does, or many: the pairs of a list, or the photos of a folder."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dagan.cli.options import (
    AbsoluteOption,
    BatchOption,
    ClusterOption,
    CredentialsOption,
    CropOption,
    KeypointsOption,
    LimitOption,
    ModelOption,
    MoveOption,
    OverwriteOption,
    PrecisionOption,
    RateOption,
    ReportOption,
    RunDeviceOption,
    RuntimeOption,
    StrengthOption,
    VideoOption,
    open_chosen,
    parse_rate,
)  # fmt: skip
from dagan.errors import InputError
from dagan.examples import MOTION, PORTRAIT

if TYPE_CHECKING:
    from dagan.animate.batch import BatchEntry
    from dagan.animate.outputs import AnimateReport
    from dagan.animate.pipeline import AnimateOptions

SourceArgument = Annotated[
    Path | None,
    typer.Argument(
        help="The photo shows the face to animate; of a video, its own motion goes on, and a folder of photos gives a video of each.",
        show_default=False,
    ),
]
DrivingArgument = Annotated[
    Path | None,
    typer.Argument(
        help="A video, a folder of images, a motion file or a motion's name (dagan motions lists them) drives the photo.",
        show_default=False,
    ),
]


def animate(
    output: VideoOption,
    source: SourceArgument = None,
    driving: DrivingArgument = None,
    model: ModelOption = "lite-256",
    runtime: RuntimeOption = None,
    device: RunDeviceOption = "auto",
    precision: PrecisionOption = "auto",
    batch_size: BatchOption = None,
    crop: CropOption = True,
    absolute: AbsoluteOption = False,
    adapt_scale: Annotated[
        bool, typer.Option("--adapt-scale/--no-adapt-scale", help="Fit the size of movements to the size of the source's face.")
    ] = True,
    limit_motion: LimitOption = True,
    reference: Annotated[
        str | None,
        typer.Option(help="This driving frame stands for the source's pose: auto, first or a number. Default: auto.", show_default=False),
    ] = None,
    side_by_side: Annotated[bool, typer.Option("--side-by-side", help="Show source, driving frame, depth and result.")] = False,
    paste_back: Annotated[bool, typer.Option("--paste-back", help="Put the result back into the whole photo.")] = False,
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            help="The result has so many pixels a side (512, 1024), or as many as the photo shows (photo). Default: what the model draws.",
            show_default=False,
        ),
    ] = None,
    max_side: Annotated[
        int,
        typer.Option(
            "--max-side",
            help="With --paste-back, a photo whose longer side has more pixels is shrunk; with --size photo, the result has no more.",
        ),
    ] = 1920,
    still_background: Annotated[
        bool, typer.Option("--still-background", help="Keep what is behind the head as it is in the photo, so that nothing swims or bends.")
    ] = False,
    grid: Annotated[
        bool, typer.Option("--grid", help="Animate many photos as tiles: those of the folder SOURCE, or SOURCE and those of --also.")
    ] = False,
    also: Annotated[
        list[Path] | None, typer.Option("--also", help="Add this photo to the grid. It may be given several times.", show_default=False)
    ] = None,
    show_driving: Annotated[bool, typer.Option("--show-driving", help="Show the driving frame in the first tile of a grid.")] = False,
    alpha: Annotated[
        bool, typer.Option("--alpha", help="Cut the person out: all else is transparent (.webm, .mov, .gif, .webp, .png).")
    ] = False,
    still: Annotated[
        int | None, typer.Option("--still", help="Write the frame of this number, from 0, as a picture (.png, .jpg).", show_default=False)
    ] = None,
    strip: Annotated[
        int | None, typer.Option("--strip", help="Write so many frames side by side as a picture (.png, .jpg).", show_default=False)
    ] = None,
    mark: Annotated[bool, typer.Option("--mark", help="Draw a small mark into a corner that says that an AI made the picture.")] = False,
    credentials: CredentialsOption = None,
    save_motion: Annotated[
        Path | None,
        typer.Option(help="Write the motion too, to this file (.motion), which drives again without the video.", show_default=False),
    ] = None,
    report: ReportOption = None,
    frame_rate: RateOption = None,
    on_missing: Annotated[
        str,
        typer.Option(
            "--on-missing",
            help="This takes the place of driving frames without a face: hold keeps the nearest motion, rest lets the source rest, "
            "error refuses the video.",
        ),
    ] = "hold",
    keypoints: KeypointsOption = "auto",
    move: MoveOption = "all",
    strength: StrengthOption = 1.0,
    smooth: Annotated[float, typer.Option(help="Take so much noise out of the motion: 0 takes none, 1 the most.")] = 0.0,
    loop: Annotated[bool, typer.Option("--loop", help="Let the end of the motion pass into its start, for repeating.")] = False,
    encoder: Annotated[
        str | None,
        typer.Option(
            "--encoder",
            help="Encode with the machine's own encoder (hardware), where there is one, or with the encoder of this name.",
            show_default=False,
        ),
    ] = None,
    batch: Annotated[
        Path | None,
        typer.Option(
            help="Animate the pairs of this table, a CSV file with the columns source and driving, perhaps output and options; "
            "-o names a folder then.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[int, typer.Option(help="So many processes animate the pairs of --batch or of a folder.")] = 1,
    cluster: ClusterOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Animate a photo with the motion of a video, or many."""
    from dagan.animate.pipeline import AnimateOptions

    options = AnimateOptions(
        crop=crop,
        relative=not absolute,
        adapt_scale=adapt_scale,
        limit_motion=limit_motion,
        reference=reference,
        side_by_side=side_by_side,
        paste_back=paste_back,
        max_side=max_side,
        size=size,
        still_background=still_background,
        grid=grid,
        also=tuple(also or ()),
        show_driving=show_driving,
        cutout=alpha,
        still=still,
        strip=strip,
        mark=mark,
        credentials=credentials,
        save_motion=save_motion,
        report=report,
        frame_rate=parse_rate(frame_rate),
        encoder=encoder,
        on_missing=on_missing,
        keypoints=keypoints,
        move=move,
        strength=strength,
        smooth=smooth,
        loop=loop,
        overwrite=overwrite,
    )
    computing = (model, runtime, batch_size, device, precision)
    many = source is not None and source.is_dir() and not output.suffix and driving is not None
    if batch is not None or many:
        animate_batch(batch, source, driving, output, options, computing, workers, cluster)
    elif source is None or driving is None:
        raise InputError("a photo and what drives it are missing: give SOURCE and DRIVING, or a table of pairs with --batch")
    else:
        _animate(source, driving, output, options, computing)


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Write this video (.mp4, .mov, .mkv, .webm) or animated picture (.gif, .webp, .png).")
    ] = Path("demo.mp4"),
    overwrite: OverwriteOption = False,
) -> None:
    """Animate the portrait that ships in the package, with the motion that ships beside it."""
    from dagan.animate.pipeline import AnimateOptions

    # The motion holds keypoints that this model found.
    _animate(PORTRAIT, MOTION, output, AnimateOptions(overwrite=overwrite), ("lite-256", None, None, "auto", "auto"))


def _animate(
    source: Path, driving: Path, output: Path, options: AnimateOptions, computing: tuple[str, str | None, int | None, str, str]
) -> None:
    """Animates with the engine that `computing` describes, as `open_chosen` takes it, and prints one line about the result."""
    from fractions import Fraction

    from dagan.animate.pipeline import animate, check_animate
    from dagan.cli.console import progress_bar, warn
    from dagan.processes import keep_freed_memory

    keep_freed_memory()
    check_animate(source, driving, output, options)  # This comes before the model, which may have to be fetched.
    engine = open_chosen(*computing)
    with progress_bar() as progress:
        report = animate(engine, source, driving, output, options, progress, warn)
    rate = float(Fraction(report.frame_rate))
    print(
        f"{report.output}: {report.frames} frames, {report.seconds:.2f} s at {rate:.4g} a second"
        f"{', with sound' if report.sound else ''}; took {report.wall_seconds:.1f} s ({report.frames_per_second:.1f} frames a second) "
        f"and {report.peak_memory_mb:.0f} MB on {report.device} in {report.precision}"
        f"{_damped(report)}"
    )


def _damped(report: AnimateReport) -> str:
    """Returns what is said of frames whose motion goes beyond what the model can draw, or nothing where there are none."""
    if not report.damped_frames:
        return ""
    return (
        f"; motion beyond what the model can draw is damped in {report.damped_frames} frames "
        "(dagan animate --no-limit-motion draws it whole)"
    )


def animate_batch(
    table: Path | None, photos: Path | None, driving: Path | None, folder: Path, options: AnimateOptions,
    computing: tuple[str, str | None, int | None, str, str], workers: int, cluster: str | None,
) -> None:  # fmt: skip
    """Animates the pairs of a table, or the photos of a folder, and prints a table of what came of them. Ends with status 1 after failures.

    `computing` describes the engine, as `open_chosen` takes it.
    """
    from dagan.animate.batch import SUMMARY, animate_many, pairs_of, read_pairs, summary_of
    from dagan.cli.console import progress_bar, warn

    if options.report is not None or options.save_motion is not None:
        raise InputError("--json and --save-motion name one file, but there are several results: leave them out")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: give the name of a folder for the results")
    if table is not None:
        if photos is not None or driving is not None:
            raise InputError("--batch names photos and driving inputs in its table: leave out SOURCE and DRIVING")
        pairs = read_pairs(table, folder, options)
    else:
        assert photos is not None
        assert driving is not None
        pairs = pairs_of(photos, driving, folder, options)
    with progress_bar() as progress:
        opener = partial(open_chosen, *computing)
        entries = animate_many(pairs, opener, folder, workers=workers, cluster=cluster, progress=progress, warn=warn)
    _print_pairs(entries)
    found = summary_of(entries)
    print(f"{folder}: {found['written']} written, {found['kept']} kept, {found['failed']} failed; summary: {folder / SUMMARY}")
    if found["failed"]:
        sys.exit(1)


def _print_pairs(entries: list[BatchEntry]) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = Table("source", "driving", "output", "state", "frames", "seconds")
    for entry in entries:
        numbers = [str(entry.frames), f"{entry.seconds:.1f}"] if entry.state == "written" else ["", ""]
        shown.add_row(*(Path(name).name for name in (entry.source, entry.driving, entry.output)), entry.state, *numbers)
    Console().print(shown)
