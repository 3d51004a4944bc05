"""`dagan evaluate depth`: measures a depth network on clips, prints the tables, writes report and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from dagan.commands.progress import progress_bar
from dagan.console import check_printed
from dagan.data.clips import clips_for
from dagan.data.truth import read_truth, truth_of
from dagan.errors import InputError
from dagan.evaluate.depth.measure import ClipDepth, DepthSummary, measure_depth, summarise_depth
from dagan.evaluate.depth.networks import open_networks
from dagan.evaluate.depth.report import rows, write_reports
from dagan.evaluate.faces import Landmarks


@dataclass(frozen=True, kw_only=True)
class EvaluateDepthOptions:
    """weights: a depth file, a stage 1 checkpoint, or what `dagan.load` takes. egomotion: stage 1 checkpoint. output: folder of the report.
    every: measure each n-th frame. gap: frames between two of which motion is measured. clips: at most so many, spread over the folder.
    pictures: clips that are drawn. hold_out: share of identities held out, as in the training recipe; 0 takes all clips."""

    weights: str = "lite-256"
    egomotion: Path | None = None
    output: Path | None = None
    size: int | None = None
    every: int = 10
    gap: int = 5
    clips: int | None = None
    pictures: int = 6
    hold_out: float = 0.0
    device: str = "auto"
    overwrite: bool = False


def evaluate_depth(folder: Path, options: EvaluateDepthOptions) -> DepthSummary:
    """Measures, prints, writes. Raises InputError for missing clips or files, and for an output that is there already."""
    summary, found = measure_folder(folder, options)
    _print(summary)
    if options.output is not None:
        files = write_reports(options.output, summary, found, options.overwrite)
        print(f"{options.output}: {len(files)} files, {files[0].name} and {files[1].name} first")
    else:
        check_printed()
    return summary


def measure_folder(folder: Path, options: EvaluateDepthOptions) -> tuple[DepthSummary, list[ClipDepth]]:
    """Figures over the clips of a folder, and each clip's. Raises InputError for missing clips or files."""
    _check(options)
    clips = clips_for(folder, options.hold_out)
    if options.clips is not None and options.clips < len(clips):
        clips = [clips[i] for i in np.linspace(0, len(clips) - 1, options.clips).astype(int)]
    networks = open_networks(options.weights, options.egomotion, options.size, options.device)
    landmarks = Landmarks()
    found: list[ClipDepth] = []
    with progress_bar() as show:
        for number, clip in enumerate(clips):
            show("measuring", number, len(clips))
            description = truth_of(clip.path)
            truth = read_truth(description) if description else None
            shown = 3 if options.output is not None and number < options.pictures else 0
            found.append(measure_depth(clip.path, networks, truth, landmarks, every=options.every, gap=options.gap, show=shown))
            found[-1].name = clip.name  # below the folder: names in sub-folders may be the same
    notes = []
    if networks.egomotion is None and any(clip.synthetic for clip in found):
        notes.append("Pose and focal length are not measured: the motion network's weights are not there (--egomotion last.ckpt).")
    return summarise_depth(found, networks, notes), found


def _check(options: EvaluateDepthOptions) -> None:
    for name, value in (("--every", options.every), ("--gap", options.gap), ("--clips", options.clips)):
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}: must be at least 1")
    if options.pictures < 0:
        raise InputError(f"--pictures is {options.pictures}: must not be negative")
    if options.output is not None and (options.output / "depth.json").exists() and not options.overwrite:
        raise InputError(f"{options.output} holds a report already: choose another folder, or replace it with --overwrite")


def _print(summary: DepthSummary) -> None:
    console = Console()
    for kind, count, table in (("synthetic", summary.synthetic_clips, summary.synthetic), ("real", summary.real_clips, summary.real)):
        if count:
            drawn = Table("figure", "value", "baseline", "baseline is", title=f"{count} {kind} clips")
            for row in rows(table):
                drawn.add_row(*row)
            console.print(drawn)
    for note in summary.notes:
        console.print(note, highlight=False)
    if summary.missing_faces:
        console.print(f"{summary.missing_faces} of {summary.frames} frames without a face found are missing from the landmarker's rows")
