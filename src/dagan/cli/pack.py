"""`dagan pack` packs clips into shards for training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dagan.cli.options import LayoutOption
from dagan.errors import InputError

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
