"""What the animation job writes: a video, image files of all frames, one frame, or a strip of some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dagan.errors import InputError
from dagan.media.images import SequenceWriter, StripWriter, check_stills, is_pattern
from dagan.media.output import check_destination
from dagan.media.provenance import Provenance
from dagan.media.video import VideoWriter
from dagan.media.writer import VIDEO_SUFFIXES
from dagan.motion.file import DrivingMotion
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
