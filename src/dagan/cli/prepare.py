"""Clips to train on: `dagan prepare` makes them of raw videos, `dagan synth` draws them, and `dagan pack` packs them into shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dagan.cli.options import LayoutOption, OverwriteOption, parse_rate
from dagan.errors import InputError


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
    from dagan.prepare.raws import PrepareOptions

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


_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def pack(
    clips: Annotated[Path, typer.Argument(help="Pack the clips of this folder.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Write shards to this folder; a run that was stopped goes on there.", show_default=False)
    ],
    portraits: Annotated[Path | None, typer.Option(help="Pack the still pictures of this folder too.", show_default=False)] = None,
    size: Annotated[int, typer.Option(help="Frames have this side, in pixels.")] = 256,
    every: Annotated[int, typer.Option(help="Pack every n-th frame.")] = 1,
    encoding: Annotated[str, typer.Option(help="Frames are written as jpeg, which is fast, or webp, which takes fewer bytes.")] = "jpeg",
    quality: Annotated[int, typer.Option(help="Frames are encoded with this quality, from 1 to 100.")] = 90,
    landmarks: Annotated[
        bool, typer.Option("--landmarks/--no-landmarks", help="Find landmarks and pack them too, for training on landmarks.")
    ] = True,
    layout: LayoutOption = "auto",
    shard_size: Annotated[str, typer.Option(help="A shard is no larger than this, such as 256MB, unless one clip is.")] = "256MB",
    budget: Annotated[
        str | None,
        typer.Option(help="All files together are no larger than this, such as 60MB; clips then give fewer frames.", show_default=False),
    ] = None,
    workers: Annotated[int, typer.Option(help="So many processes encode clips.")] = 1,
) -> None:
    """Pack clips into shards, which training reads faster than videos and from object storage too."""
    import time

    from dagan.checks import parse
    from dagan.cli.console import progress_bar, warn
    from dagan.data.pack import PackConfig
    from dagan.data.pack import pack as run

    settings = {
        "size": size, "every": every, "encoding": encoding, "quality": quality, "landmarks": landmarks, "layout": layout,
        "shard_bytes": _bytes(shard_size, "--shard-size"), "budget": None if budget is None else _bytes(budget, "--budget"),
    }  # fmt: skip
    config = parse(PackConfig, settings, "pack")
    begun = time.monotonic()
    with progress_bar() as progress:
        report = run(clips, output, config, portraits=portraits, workers=workers, progress=progress, warn=warn)
    left = f"; {report.left_out} clips had no room in the budget" if report.left_out else ""
    kept = f", {report.kept} of them by an earlier run" if report.kept else ""
    bad = f"; {len(report.skipped)} could not be decoded" if report.skipped else ""
    print(
        f"{output}: {report.clips} clips of {report.frames} frames in {report.shards} shards, {report.bytes / 1e6:.1f} MB{kept}{bad}{left}"
        f"; took {time.monotonic() - begun:.1f} s"
    )


def _bytes(text: str, option: str) -> int:
    """Reads a number of bytes such as 60MB or 64MiB. Raises InputError for anything else."""
    import re

    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if found is None or found[2].upper() not in _UNITS:
        raise InputError(f"{option} is {text!r}: must be a number of bytes such as 60MB or 2GiB")
    return round(float(found[1]) * _UNITS[found[2].upper()])
