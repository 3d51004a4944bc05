"""The report of one run of the animation job: what it did and needed, as a file for other programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from dagan.media.output import atomic_output
from dagan.names import json_text


@dataclass(frozen=True)
class AnimateReport:
    """A report of one run of the animation job."""

    source: str
    driving: str
    output: str
    model: str
    device: str
    precision: str
    frames: int
    """The number of the output's frames."""
    frame_rate: str
    """The output's exact frame rate, as text."""
    seconds: float
    """The length of the output."""
    wall_seconds: float
    """How long the whole job took, without loading the model."""
    frames_per_second: float
    """Frames over these seconds."""
    peak_memory_mb: float
    """The most memory that was used, in MiB."""
    device_memory_mb: float | None
    """The most memory that was used on a CUDA device, in MiB."""
    reference_frame: int | None
    """The reference frame; None with absolute motion."""
    damped_frames: int
    """The number of frames in which a tenth or more of some motion was damped, because it goes farther than the model can draw."""
    keypoints: str
    """What drove: landmarks, or learnt keypoints alone."""
    pictures_searched: int
    """The number of the driving video's pictures that were searched for the face."""
    frames_without_face: int
    """The number of frames that do not drive because they show no face; 0 where the source picture shows none either."""
    several_faces: bool
    """Whether the search saw several faces."""
    shots: int
    """The number of shots that the search saw; 1 without a search."""
    truncated: bool
    """Whether the driving file is cut off."""
    damaged_parts: int
    """The number of damaged pieces of the driving file."""
    sound: bool
    """Whether the output has sound."""
    warnings: list[str]
    """What the user was warned of."""


def write_report(path: Path, report: AnimateReport, overwrite: bool) -> None:
    """Writes the report as JSON. Raises InputError as `atomic_output` does."""
    with atomic_output(path, overwrite) as temporary:
        temporary.write_text(json_text(asdict(report)), encoding="utf-8")
