"""Commands that look at something and tell what they find.

`dagan depth` measures the depth of a face in a photo or a video, `dagan bench` the speed of models, of which it prints tables and writes a
report, and `dagan verify` says what marks a file carries about how it was made.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dagan.cli.options import (
    BatchOption,
    CropOption,
    ModelOption,
    OverwriteOption,
    PrecisionOption,
    RateOption,
    ReportOption,
    RunDeviceOption,
    RuntimeOption,
    open_chosen,
    parse_rate,
)  # fmt: skip

if TYPE_CHECKING:
    from dagan.bench.job import BenchOptions
    from dagan.bench.timing import BenchReport

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


def bench(
    model: Annotated[
        str, typer.Option("--model", help="Measure this model, named as for animate, or a preset without weights.")
    ] = "lite-256",
    runtime: Annotated[
        list[str] | None,
        typer.Option(help="Measure this runtime; the option may be repeated. Default: all that are installed.", show_default=False),
    ] = None,
    device: RunDeviceOption = "auto",
    precision: Annotated[str, typer.Option(help="Numbers have this precision: auto, float32, bfloat16, float16 or int8.")] = "auto",
    batch_size: BatchOption = None,
    frames: Annotated[int, typer.Option(help="The video has so many frames; 0 leaves videos out.")] = 100,
    seconds: Annotated[float, typer.Option(help="Each part is measured for so many seconds.")] = 2.0,
    crop: Annotated[bool, typer.Option("--crop/--no-crop", help="Find the face in the video, and measure that too.")] = False,
    report: ReportOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a report that exists already.")] = False,
) -> None:
    """Measure speed: parts, latency and whole videos, in every runtime."""
    from dagan.bench.job import BenchOptions

    options = BenchOptions(
        model=model, runtimes=tuple(runtime) if runtime else None, device=device, precision=precision, batch_size=batch_size,
        frames=frames, seconds=seconds, crop=crop,
    )  # fmt: skip
    _bench(options, report, overwrite)


def _bench(options: BenchOptions, output: Path | None, overwrite: bool) -> None:
    """Measures and prints. Raises InputError for options and outputs that cannot work, before measuring."""
    from dataclasses import asdict
    from functools import partial

    from rich.console import Console

    from dagan.bench.job import measure
    from dagan.checks import json_text
    from dagan.cli.console import check_printed
    from dagan.engine.open import open_engine
    from dagan.export.job import export_graphs
    from dagan.media.output import atomic_output, check_destination
    from dagan.processes import keep_freed_memory

    if output is not None:
        check_destination(output, "a report", (".json",), overwrite)
    keep_freed_memory()
    notices = Console(stderr=True)
    with notices.status("opening the model") as status:
        report = measure(options, partial(open_engine, export=export_graphs), lambda what: status.update(what))
    _print_speed(report)
    if output is not None:
        with atomic_output(output, overwrite) as unfinished:
            unfinished.write_text(json_text(asdict(report)), encoding="utf-8")
    else:
        check_printed()


def _print_speed(report: BenchReport) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=140)  # A file has no width, so nothing is to be cut off.
    peaks = ", ".join(f"{peak:.0f} GFLOP/s in {name}" for name, peak in report.peak_gflops.items())
    weights = "" if report.trained else " (fresh weights)"
    console.print(f"{report.model}{weights} on {report.machine}, {report.threads} threads, torch {report.torch}; matrix products: {peaks}")
    title = "parts, one picture; operations as PyTorch does them"
    parts = Table("runtime", "part", "one, ms: p50", "p90", "p99", "in a batch, ms", "GFLOP", "of peak", title=title)
    whole = Table("runtime", "precision", "batch", "latency, ms: p50", "p90", "p99", "video, frames/s", "difference to float32, 255ths")
    for figures in report.runtimes:
        for part in figures.parts:
            share = "" if part.peak_share is None else f"{part.peak_share:.0%}"
            one = part.single
            parts.add_row(
                figures.runtime, part.name, f"{one.p50:.1f}", f"{one.p90:.1f}", f"{one.p99:.1f}", f"{part.batch_ms:.1f}",
                f"{part.gflop:.2f}", share,
            )  # fmt: skip
        late = figures.latency
        whole.add_row(
            figures.runtime, figures.precision, str(figures.batch_size), f"{late.p50:.1f}", f"{late.p90:.1f}", f"{late.p99:.1f}",
            "" if figures.video_fps is None else f"{figures.video_fps:.1f}",
            "" if figures.difference_mean is None else f"mean {figures.difference_mean:.3f}, at most {figures.difference_max:.0f}",
        )  # fmt: skip
    console.print(parts)
    console.print(whole)
    for runtime, problem in report.left_out.items():
        console.print(f"{runtime} is left out: {problem}")
    console.print(f"peak memory {report.peak_memory_mb:.0f} MB")


UNMARKED, CHANGED = 1, 3  # Exit statuses besides 0, which means that the file says that it is synthetic, and 2, which means bad input.


def verify(file: Annotated[Path, typer.Argument(help="The picture or video to look at.", show_default=False)]) -> None:
    """Say what marks a picture or video carries about how it was made.

    Ends with status 0 where marks say that it is synthetic, 1 where there are none, 2 where the file cannot be read, and 3 where Content
    Credentials show that it was changed.
    """
    from dagan.errors import InputError
    from dagan.media.provenance import SYNTHETIC, TYPES, find_credentials, find_xmp

    kind, packets = find_xmp(file)
    synthetic = any(packet.synthetic for packet in packets)
    if kind == "BMP":
        print("XMP metadata: none, and BMP files cannot hold any")
    for packet in dict.fromkeys(packets):
        print(f"XMP metadata: {packet}")
    if not packets and kind != "BMP":
        print("XMP metadata: none")
    changed = False
    if kind in TYPES:
        try:
            credentials = find_credentials(file)
            print(f"Content Credentials: {credentials or 'none'}")
        except InputError as error:
            credentials = None
            print(f"Content Credentials: not looked for ({error})")
        changed = credentials is not None and not credentials.intact
        synthetic |= credentials is not None and any(word in SYNTHETIC for word in credentials.source_types)
    else:
        print(f"Content Credentials: none, and {kind} files cannot hold any")
    if changed:
        print(f"{file}: do not rely on these marks: the file is not the one that was signed")
        raise typer.Exit(CHANGED)
    if not synthetic:
        print(f"{file}: no mark says that it is synthetic, which proves nothing: marks can be removed")
        raise typer.Exit(UNMARKED)
    print(f"{file}: marks say that it is synthetic")
