"""`dagan animate` for many pairs at once: a list, or a folder of photos."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dagan.cli.options import open_chosen
from dagan.errors import InputError

if TYPE_CHECKING:
    from dagan.animate.batch import BatchEntry
    from dagan.animate.pipeline import AnimateOptions


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
    _print(entries)
    found = summary_of(entries)
    print(f"{folder}: {found['written']} written, {found['kept']} kept, {found['failed']} failed; summary: {folder / SUMMARY}")
    if found["failed"]:
        sys.exit(1)


def _print(entries: list[BatchEntry]) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = Table("source", "driving", "output", "state", "frames", "seconds")
    for entry in entries:
        numbers = [str(entry.frames), f"{entry.seconds:.1f}"] if entry.state == "written" else ["", ""]
        shown.add_row(*(Path(name).name for name in (entry.source, entry.driving, entry.output)), entry.state, *numbers)
    Console().print(shown)
