"""`dagan depth`: runs the depth job with a progress bar, and says what came of it."""

from __future__ import annotations

from pathlib import Path

from dagan.commands.notices import parse_rate, warn
from dagan.commands.progress import progress_bar
from dagan.depth.job import DepthOptions, measure_depth
from dagan.depth.point_cloud import ASSUMED_FOCAL

__all__ = ["ASSUMED_FOCAL", "DepthOptions", "depth_file", "parse_rate"]


def depth_file(source: Path, output: Path, options: DepthOptions) -> None:
    """Measures depth and prints one line about the result."""
    with progress_bar() as progress:
        frames = measure_depth(source, output, options, progress, warn)
    print(f"{output}: depth of {frames} frame{'s' if frames != 1 else ''}")
