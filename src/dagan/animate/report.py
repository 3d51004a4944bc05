"""The report of one run of the animation job: what it did and needed, as a file for other programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dagan.checks import json_text
from dagan.engine.base import Engine
from dagan.media.output import atomic_output
from dagan.media.shots import FramingReport
from dagan.motion.file import DrivingMotion
from dagan.processes import peak_device_memory_mb, peak_memory_mb
from dagan.progress import Warn


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


def make_report(
    source: Path, driving: Path, output: Path, engine: Engine, motion: DrivingMotion, faces: FramingReport | None, *, frames: int,
    wall: float, relative: bool, **rest: Any,
) -> AnimateReport:  # fmt: skip
    """Makes the report of a run that wrote so many frames and took `wall` seconds. `rest` are further fields of the report, as they are.

    `faces` is what the search for the face saw, None where none was made.
    """
    device_memory = peak_device_memory_mb(engine.device)
    return AnimateReport(
        source=str(source),
        driving=str(driving),
        output=str(output),
        model=engine.name,
        device=engine.device,
        precision=engine.precision,
        frames=frames,
        frame_rate=str(motion.rate),
        seconds=float(motion.times[-1]),
        wall_seconds=round(wall, 3),
        frames_per_second=round(frames / wall, 3),
        peak_memory_mb=round(peak_memory_mb(), 1),
        device_memory_mb=None if device_memory is None else round(device_memory, 1),
        reference_frame=motion.reference if relative else None,
        keypoints="landmarks" if motion.explicit else "learnt",
        pictures_searched=faces.frames if faces else 0,
        shots=faces.shots if faces else 1,
        several_faces=bool(faces and faces.several),
        **rest,
    )


class Notices:
    """Passes each warning on once, and keeps all of them for the report."""

    def __init__(self, warn: Warn) -> None:
        self.messages: list[str] = []
        self._warn = warn

    def __call__(self, message: str) -> None:
        if message not in self.messages:
            self.messages.append(message)
            self._warn(message)
