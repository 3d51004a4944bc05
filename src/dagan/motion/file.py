"""A `DrivingMotion` is what a driving video says without its pictures: the keypoints of every frame, with exact times.

A motion file is a safetensors file, from which nothing is ever executed. It takes 360 bytes a frame at 15 keypoints. It drives any
source, but only with models whose keypoint detector is the one that found it. Keypoints are learnt without labels, so another detector's
keypoints mean other places of the face.

A motion has a reference frame: the driving frame that stands for the source's pose (docs/method.md#reference-frame). Relative motion adds
to the source what the driving face did since the reference frame. The result is right only when source and reference agree in head pose
and expression. With the face landmarker, pose and expression are compared (`pose_distance` in `media.landmarks`); without it, the layouts
of the model's keypoints are, here.

Legend: N frames, K keypoints.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dagan.checks import require_file, text_path
from dagan.errors import InputError
from dagan.media.output import atomic_output
from dagan.models.keypoints import Keypoints

FORMAT = 1
MOTION_SUFFIXES = (".motion", ".safetensors")
_NOTE = "dagan.motion"


@dataclass(frozen=True)
class DrivingMotion:
    """The motion of one driving video. Raises InputError when its parts do not fit together."""

    value: np.ndarray
    """The positions of keypoints, N x K x 2 float32, as found on the (cropped) frames."""
    jacobian: np.ndarray
    """Their Jacobians, N x K x 2 x 2 float32."""
    times: tuple[Fraction, ...]
    """N + 1 exact seconds, increasing from 0: the start of each frame, and the end of the last."""
    rate: Fraction
    """The average number of frames a second."""
    time_base: Fraction
    """The clock tick of the video."""
    reference: int
    """The index of the frame that was taken as the source's pose."""
    model: str
    """The name of the model that found the motion."""
    detector: str
    """The digest of its detector (see `Engine.detector_digest`)."""
    image_size: int
    """The side of its pictures."""
    explicit: bool = False
    """Whether keypoints that stand on landmarks were put there; otherwise all are as the detector found them."""

    def __post_init__(self) -> None:
        if self.value.ndim != 3 or self.value.shape[2:] != (2,) or not len(self.value):
            raise InputError(f"keypoint positions are {self.value.shape}: must be frames x keypoints x 2, with at least one frame")
        if self.jacobian.shape != (*self.value.shape, 2):
            raise InputError(f"keypoint Jacobians are {self.jacobian.shape}: must be {(*self.value.shape, 2)}")
        if not (np.isfinite(self.value).all() and np.isfinite(self.jacobian).all()):
            raise InputError("some keypoints are not finite numbers")
        if len(self.times) != len(self.value) + 1:
            raise InputError(f"there are {len(self.times)} times for {len(self.value)} frames: must be one more than frames")
        if any(a >= b for a, b in zip(self.times, self.times[1:], strict=False)):
            raise InputError("frame times do not increase")
        if self.rate <= 0 or self.time_base <= 0:
            raise InputError(f"frame rate {self.rate} and time base {self.time_base} must be above 0")
        if not 0 <= self.reference < len(self.value):
            raise InputError(f"the reference frame {self.reference} is not one of the {len(self.value)} frames")

    def __len__(self) -> int:
        return len(self.value)

    def keypoints(self, frames: slice | list[int]) -> Keypoints:
        """Returns the keypoints of some frames, as tensors on the CPU."""
        return Keypoints(torch.from_numpy(self.value[frames]), torch.from_numpy(self.jacobian[frames]))

    def with_reference(self, reference: int) -> DrivingMotion:
        """Returns the same motion with another frame as the source's pose."""
        return replace(self, reference=reference)


def save_motion(path: Path | str, motion: DrivingMotion, overwrite: bool = False) -> None:
    """Writes a motion file (.motion or .safetensors), whole or not at all. Raises InputError as `atomic_output` does."""
    from safetensors.numpy import save

    path = Path(path)
    if path.suffix.lower() not in MOTION_SUFFIXES:
        raise InputError(f"{path}: the suffix {path.suffix!r} is none of a motion file's, {', '.join(MOTION_SUFFIXES)}")
    note = {
        "format": FORMAT,
        "model": motion.model,
        "detector": motion.detector,
        "image_size": motion.image_size,
        "rate": str(motion.rate),
        "time_base": str(motion.time_base),
        "reference": motion.reference,
        "keypoints": "landmarks" if motion.explicit else "learnt",
    }
    tensors: dict[str, np.ndarray] = {
        "value": np.ascontiguousarray(motion.value, dtype=np.float32),
        "jacobian": np.ascontiguousarray(motion.jacobian, dtype=np.float32),
        "times": np.array([(t.numerator, t.denominator) for t in motion.times], dtype=np.int64),
    }
    with atomic_output(path, overwrite) as temporary:
        # Files that save_file writes can be read only by their owner, so bytes are written here.
        temporary.write_bytes(save(tensors, metadata={_NOTE: json.dumps(note)}))


def holds_motion(path: Path) -> bool:
    """Says whether a file starts as `save_motion` writes it."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(4096)
    return start[8:9] == b"{" and f'"{_NOTE}"'.encode() in start


def read_motion(path: Path | str) -> DrivingMotion:
    """Reads the motion in a file. Raises InputError when it is missing, damaged, of another kind or of a later format."""
    path = Path(path)
    note, tensors = _read(path)
    try:
        times = tuple(Fraction(int(n), int(d)) for n, d in tensors["times"])
        return DrivingMotion(
            value=tensors["value"].astype(np.float32),
            jacobian=tensors["jacobian"].astype(np.float32),
            times=times,
            rate=Fraction(note["rate"]),
            time_base=Fraction(note["time_base"]),
            reference=int(note["reference"]),
            model=str(note["model"]),
            detector=str(note["detector"]),
            image_size=int(note["image_size"]),
            explicit=note.get("keypoints") == "landmarks",
        )
    except InputError as error:
        raise InputError(f"{path} is a damaged motion file ({error}): make it again with --save-motion") from None
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise InputError(f"{path} is a damaged motion file ({type(error).__name__}: {error}): make it again with --save-motion") from None


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    from safetensors import SafetensorError, safe_open

    require_file(path, "motion file")
    try:
        with text_path(path) as name, safe_open(name, framework="numpy") as file:
            metadata = file.metadata() or {}
            if _NOTE not in metadata:
                kind = "a model file" if "dagan" in metadata else "a file of another program"
                raise InputError(f"{path} is {kind}, not a motion file: give one that --save-motion wrote")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        reason = str(error).splitlines()[0][:120]
        raise InputError(f"{path} is not a readable motion file ({reason}): make it again with --save-motion") from None
    try:
        note = json.loads(metadata[_NOTE])
        version = note["format"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is a damaged motion file (its description): make it again with --save-motion") from None
    if version != FORMAT:
        raise InputError(f"{path} has motion format {version!r}, this version reads {FORMAT}: update dagan")
    return note, tensors


def parse_reference(text: str) -> int | None:
    """Returns the frame number of `first` (0) or of digits, and None for `auto`. Raises InputError for anything else."""
    if text == "auto":
        return None
    if text == "first":
        return 0
    if re.fullmatch(r"[0-9]{1,9}", text):
        return int(text)
    raise InputError(f"reference frame is {text!r}: must be auto, first or a frame number, from 0")


def check_reference(reference: int, frames: int) -> None:
    """Raises InputError unless `reference` is the number of one of `frames` frames, counted from 0."""
    if reference >= frames:
        raise InputError(f"reference frame {reference} does not exist: the driving video has {frames} frames, numbered 0 to {frames - 1}")


def normalise(layout: np.ndarray) -> np.ndarray:
    """Moves and scales layouts, ... x K x 2, to mean 0 and root mean square distance 1, which removes place and size in the picture."""
    centred = layout - layout.mean(-2, keepdims=True)
    radius = np.sqrt(np.square(centred).sum(-1, keepdims=True).mean(-2, keepdims=True))
    return centred / np.maximum(radius, 1e-9)


def nearest_layout(source: np.ndarray, driving: np.ndarray) -> int:
    """Returns the index of the driving keypoints (N x K x 2) that lie most like the source's (K x 2), the earliest of equals."""
    return int(np.square(normalise(driving) - normalise(source)).sum(-1).mean(-1).argmin())
