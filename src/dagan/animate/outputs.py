"""What the animation job hands out: its file, and the report of what it did and needed, which is for other programs.

The file is a video, or holds image files of all frames, one frame, or a strip of some.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dagan.checks import json_text
from dagan.engine.base import Engine
from dagan.errors import InputError
from dagan.media.images import SequenceWriter, StripWriter, check_stills, is_pattern
from dagan.media.output import atomic_output, check_destination
from dagan.media.provenance import Provenance
from dagan.media.shots import FramingReport
from dagan.media.video import VideoWriter
from dagan.media.writer import VIDEO_SUFFIXES
from dagan.motion.file import DrivingMotion
from dagan.processes import peak_device_memory_mb, peak_memory_mb
from dagan.progress import Warn


@dataclass(frozen=True)
class Wanted:
    """What is to be written, besides its path."""

    still: int | None = None
    """See `AnimateOptions`."""
    strip: int | None = None
    """See `AnimateOptions`."""
    alpha: bool = False
    """Whether frames have a fourth channel, which says how opaque they are."""
    encoder: str | None = None
    """See the codec of `VideoWriter`."""
    overwrite: bool = False

    @property
    def single(self) -> bool:
        """Says whether one picture is written."""
        return self.still is not None or self.strip is not None

    def frames(self, count: int) -> Sequence[int]:
        """Returns the numbers of the frames to write, of `count`. Raises InputError where there are not so many."""
        if self.still is not None:
            if not 0 <= self.still < count:
                raise InputError(f"--still is {self.still}: the driving input has frames 0 to {count - 1}")
            return [self.still]
        if self.strip is not None:
            if self.strip > count:
                raise InputError(f"--strip is {self.strip}: the driving input has {count} frames")
            return [round(i) for i in np.linspace(0, count - 1, self.strip).tolist()]
        return range(count)


def check_output(path: Path, wanted: Wanted) -> None:
    """Raises InputError for what cannot be written, before any work."""
    if wanted.still is not None and wanted.strip is not None:
        raise InputError("--still and --strip give different pictures: choose one")
    if wanted.strip is not None and wanted.strip < 1:
        raise InputError(f"--strip is {wanted.strip}: must be at least 1 frame")
    if wanted.single or is_pattern(path):
        if wanted.encoder is not None:
            raise InputError(f"--encoder is for videos, and {path} holds pictures: leave it out")
        check_stills(path, wanted.single, wanted.alpha, wanted.overwrite)
        return
    check_destination(path, "a video", VIDEO_SUFFIXES, wanted.overwrite)
    # This refuses a name that is no encoder's, and a format that cannot be transparent.
    VideoWriter(path, 256, 256, codec=wanted.encoder, alpha=wanted.alpha, warn=lambda _: None)


def open_writer(
    path: Path, wanted: Wanted, width: int, height: int, motion: DrivingMotion, sound: Path | None, provenance: Provenance, warn: Warn
) -> VideoWriter | SequenceWriter | StripWriter:  # fmt: skip
    """Returns what writes frames of that size. `sound` is the file whose sound goes along; `warn` is told where it cannot."""
    if wanted.single:
        return StripWriter(path, wanted.overwrite, provenance)
    if is_pattern(path):
        if sound is not None:
            warn(f"the sound of {sound} is left out: image files hold none")
        return SequenceWriter(path, wanted.overwrite, provenance)
    return VideoWriter(
        path, width, height, rate=motion.rate, time_base=motion.time_base, audio_from=sound, overwrite=wanted.overwrite,
        codec=wanted.encoder, alpha=wanted.alpha, warn=warn, provenance=provenance,
    )  # fmt: skip


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
