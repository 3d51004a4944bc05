"""`dagan depth`: runs the depth job with a progress bar, and says what came of it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from dagan.commands.notices import parse_rate, warn
from dagan.commands.progress import progress_bar
from dagan.depth.job import DepthOptions, measure_depth
from dagan.depth.outputs import ASSUMED_FOCAL
from dagan.device import keep_freed_memory
from dagan.engine.open import open_engine
from dagan.export.job import export_graphs

__all__ = ["ASSUMED_FOCAL", "DepthOptions", "depth_file", "parse_rate"]


def depth_file(source: Path, output: Path, options: DepthOptions, runtime: str | None = None) -> None:
    """Measures depth with the runtime (see `open_engine`) and prints one line about the result."""
    keep_freed_memory()
    opener = partial(open_engine, options.model, runtime, options.batch_size, options.device, options.precision, warn, export_graphs)
    with progress_bar() as progress:
        frames = measure_depth(source, output, replace(options, engine=opener), progress, warn)
    print(f"{output}: depth of {frames} frame{'s' if frames != 1 else ''}")
