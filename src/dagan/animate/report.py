"""What a run did and what it took, for the terminal and for `--json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from dagan.media.output import atomic_output


@dataclass(frozen=True)
class AnimateReport:
    """One run of the animation job.

    frames, frame_rate (exact, as text), seconds: of the output. wall_seconds, frames_per_second: of the whole job, model loading
    included. peak_memory_mb, device_memory_mb: MiB (device: CUDA only). reference_frame: None with absolute motion.
    pictures_searched, without_face, several_faces: what the face search saw in the driving video (0 without a search).
    truncated, damaged_parts: of the driving file.
    """

    source: str
    driving: str
    output: str
    model: str
    device: str
    precision: str
    frames: int
    frame_rate: str
    seconds: float
    wall_seconds: float
    frames_per_second: float
    peak_memory_mb: float
    device_memory_mb: float | None
    reference_frame: int | None
    pictures_searched: int
    without_face: int
    several_faces: bool
    truncated: bool
    damaged_parts: int
    sound: bool
    warnings: list[str]


def write_report(path: Path, report: AnimateReport, overwrite: bool) -> None:
    """Writes the report as JSON. Raises InputError as `atomic_output` does."""
    with atomic_output(path, overwrite) as temporary:
        temporary.write_text(json.dumps(asdict(report), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
