"""`dagan evaluate reconstruction`: measure a model on clips and print the table beside the copy baseline."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from dagan.data.clips import clips_for
from dagan.errors import InputError
from dagan.evaluate.faces import open_landmarks
from dagan.evaluate.identity import IdentityNetwork
from dagan.evaluate.lpips import LPIPS
from dagan.evaluate.reconstruction import ClipScores, Rulers, Summary, measure_clip, summarise
from dagan.media.output import atomic_output
from dagan.weights import load


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """model, device, precision: as `dagan.load` takes them. hold_out: share of identities held out, as in the training recipe;
    0 takes all clips. every: measure each n-th frame. lpips, identity, landmarker: files; what is missing is left out."""

    model: str = "lite-256"
    device: str = "auto"
    precision: str = "auto"
    hold_out: float = 0.0
    every: int = 5
    lpips: Path | None = None
    identity: Path | None = None
    landmarker: Path | None = None
    report: Path | None = None
    overwrite: bool = False


def evaluate_reconstruction(folder: Path, options: EvaluateOptions) -> Summary:
    """Measures, prints the table, writes the report. Raises InputError for missing clips or files."""
    if options.every < 1:
        raise InputError(f"--every is {options.every}: must be at least 1")
    clips = clips_for(folder, options.hold_out)
    model = load(options.model, options.device, options.precision)
    rulers = Rulers(
        lpips=LPIPS(options.lpips) if options.lpips else None,
        identity=IdentityNetwork(options.identity) if options.identity else None,
        landmarks=open_landmarks(options.landmarker),
    )
    scores: list[ClipScores] = []
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        for clip in progress.track(clips, description="measuring"):
            scores.append(measure_clip(clip.path, model, rulers, every=options.every))
    summary = summarise(scores)
    _print(summary)
    if options.report is not None:
        with atomic_output(options.report, options.overwrite) as partial:
            partial.write_text(json.dumps(asdict(summary) | {"scores": [{"clip": s.name, **s.means()} for s in scores]}, indent=1))
    return summary


def _print(summary: Summary) -> None:
    table = Table("metric", "model", "copy", "ratio", title=f"{summary.clips} clips, {summary.frames} frames")
    for name, (ours, copied, ratio) in summary.metrics.items():
        table.add_row(name, f"{ours:.4f}", f"{copied:.4f}", f"{ratio:.3f}")
    console = Console()
    console.print(table)
    if summary.depth is not None:
        console.print(f"disparity against the landmarker's z: rank correlation {summary.depth:.3f}")
    if summary.missing_faces:
        console.print(f"{summary.missing_faces} frames without a face found are missing from AKD, CSIM and AED")
