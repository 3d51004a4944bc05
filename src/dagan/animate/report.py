"""What a run did and what it took, for the terminal and for `--json`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from dagan.media.output import atomic_output
from dagan.names import json_text


@dataclass(frozen=True)
class AnimateReport:
    """One run of the animation job.

    frames, frame_rate (exact, as text), seconds: of the output. wall_seconds, frames_per_second: of the whole job, model loading
    included. peak_memory_mb, device_memory_mb: MiB (device: CUDA only). reference_frame: None with absolute motion.
    damped_frames: in which a tenth or more of some motion was damped, as it goes farther than the model can draw (see `Animator`).
    keypoints: what drove, landmarks or the learnt keypoints alone.
    pictures_searched, several_faces, shots: what the search for the face saw in the driving video (0, false and 1 without one).
    frames_without_face: frames that do not drive because they show no face (0 where the source picture shows none either).
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
    damped_frames: int
    keypoints: str
    pictures_searched: int
    frames_without_face: int
    several_faces: bool
    shots: int
    truncated: bool
    damaged_parts: int
    sound: bool
    warnings: list[str]


def write_report(path: Path, report: AnimateReport, overwrite: bool) -> None:
    """Writes the report as JSON. Raises InputError as `atomic_output` does."""
    with atomic_output(path, overwrite) as temporary:
        temporary.write_text(json_text(asdict(report)), encoding="utf-8")
