"""`dagan animate`: runs the animation job with a progress bar, and says what came of it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

from dagan.animate.pipeline import AnimateOptions, AnimateReport, animate
from dagan.commands.notices import parse_rate, warn
from dagan.commands.progress import progress_bar
from dagan.device import keep_freed_memory
from dagan.engine.open import open_engine
from dagan.export.job import export_graphs

__all__ = ["AnimateOptions", "animate_file", "parse_rate"]


def animate_file(source: Path, driving: Path, output: Path, options: AnimateOptions, runtime: str | None = None) -> None:
    """Animates with the runtime (see `open_engine`) and prints one line about the result."""
    keep_freed_memory()
    opener = partial(open_engine, options.model, runtime, options.batch_size, options.device, options.precision, warn, export_graphs)
    with progress_bar() as progress:
        report = animate(source, driving, output, replace(options, engine=opener), progress, warn)
    rate = float(Fraction(report.frame_rate))
    print(
        f"{report.output}: {report.frames} frames, {report.seconds:.2f} s at {rate:.4g} a second"
        f"{', with sound' if report.sound else ''}; took {report.wall_seconds:.1f} s ({report.frames_per_second:.1f} frames a second) "
        f"and {report.peak_memory_mb:.0f} MB on {report.device} in {report.precision}"
        f"{_damped(report)}"
    )


def _damped(report: AnimateReport) -> str:
    """What is said of frames whose motion goes beyond what the model can draw; nothing where there are none."""
    if not report.damped_frames:
        return ""
    return (
        f"; motion beyond what the model can draw is damped in {report.damped_frames} frames "
        "(dagan animate --no-limit-motion draws it whole)"
    )
