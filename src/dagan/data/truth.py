"""Reads and writes a clip's files: NAME.mp4 (what training sees), NAME.npz (ground truth) and NAME.json (what the numbers mean).

The JSON file is written last, so that a clip that has one is whole.

Legend: N frames, S side, L landmarks.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dagan.checks import read_arrays
from dagan.errors import InputError
from dagan.media.output import atomic_output

FORMAT = 1
# Depth is stored in steps of so many metres. That is finer than a face's surface needs (0.5 degrees of its normals) and can be compressed.
STEP = 5e-5

Floats = NDArray[np.float32]


class Label(IntEnum):
    """What a pixel shows.

    FACE is the skin from hairline to chin and from ear to ear, with eyes and lips. The inside of the mouth, ears and hair are HEAD. Neck
    and shoulders are BODY.
    """

    BACKGROUND = 0
    BODY = 1
    HEAD = 2
    FACE = 3


@dataclass(frozen=True)
class ClipTruth:
    """The ground truth of a clip."""

    depth: Floats
    """N x S x S metres along the camera's z."""
    label: NDArray[np.uint8]
    """N x S x S of Label."""
    rotation: Floats
    """N x 3 x 3, from head to camera coordinates."""
    translation: Floats
    """N x 3 metres, likewise."""
    focal: tuple[float, float]
    """The focal lengths (x, y) in pixels."""
    principal: tuple[float, float]
    """The principal point (x, y) in pixels."""
    landmarks: Floats
    """N x L x 3: x and y in pixels, and the depth in metres."""
    visible: NDArray[np.bool_]
    """Which landmarks can be seen, N x L."""
    landmark_names: tuple[str, ...]
    """The names of the L landmarks."""
    rate: float
    """Frames a second."""
    recipe: dict[str, Any]
    """What the clip was drawn from."""

    @property
    def face(self) -> NDArray[np.bool_]:
        """N x S x S, True where a pixel shows the face, as `Label.FACE` says what belongs to it."""
        return self.label == Label.FACE

    @property
    def normalised_camera(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Focal length and principal point as fractions of the image (width, height), as `geometry` has them."""
        height, width = self.depth.shape[1:]
        (fx, fy), (cx, cy) = self.focal, self.principal
        return (fx / width, fy / height), ((cx + 0.5) / width, (cy + 0.5) / height)


def truth_of(video: Path) -> Path | None:
    """Returns the JSON file that describes a video's ground truth, or None for a video without."""
    path = video.with_suffix(".json")
    return path if path.is_file() and _described(path) is not None else None


def write_truth(video: Path, truth: ClipTruth) -> None:
    """Writes NAME.npz, then NAME.json, beside the video."""
    wall = truth.label == Label.BACKGROUND
    offset = float(truth.depth[~wall].min())
    codes = np.rint((truth.depth - offset) / STEP) + 1
    if codes[~wall].max() > np.iinfo(np.uint16).max:
        raise ValueError("depth range does not fit 16 bits")
    codes = np.where(wall, 0, codes).astype(np.uint16)
    arrays = {
        # Differences along the rows are small numbers, which compress to half the size.
        "depth": np.diff(codes, axis=2, prepend=np.uint16(0)), "label": truth.label, "rotation": truth.rotation,
        "translation": truth.translation, "landmarks": truth.landmarks, "visible": truth.visible,
    }  # fmt: skip
    background = float(truth.depth[wall].max()) if wall.any() else 0.0
    with atomic_output(video.with_suffix(".npz"), overwrite=True) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # stubs take any keyword for one that older numpy has not
    note = {
        "format": FORMAT,
        "kind": "dagan synthetic head",
        "video": video.name,
        "frames": len(codes),
        "rate": truth.rate,
        "size": codes.shape[1],
        "intrinsics": {
            "fx": truth.focal[0], "fy": truth.focal[1], "cx": truth.principal[0], "cy": truth.principal[1],
            "unit": "pixels; pixel centres are whole numbers from 0; x to the right, y down, z away from the camera",
        },
        "arrays": {
            "file": video.with_suffix(".npz").name,
            "depth": {
                "step": STEP, "offset": offset, "background": background,
                "meaning": "code = cumulative sum along each row, modulo 65536; metres along z = offset + step (code - 1); code 0 is the "
                "background, at `background` metres",
            },
            "label": {label.name.lower(): int(label) for label in Label},
            "rotation": "N x 3 x 3; camera point = rotation @ head point + translation",
            "translation": "N x 3, metres",
            "landmarks": "N x L x 3: pixel x, pixel y, metres along z; \"right\" and \"left\" are the person's",
            "visible": "N x L: the landmark is inside the image and nothing hides it",
        },
        "landmark_names": truth.landmark_names,
        "recipe": truth.recipe,
    }  # fmt: skip
    with atomic_output(video.with_suffix(".json"), overwrite=True) as partial:
        partial.write_text(json.dumps(note, indent=1), encoding="utf-8")


def read_truth(path: Path) -> ClipTruth:
    """Reads the ground truth that a JSON file describes. Raises InputError when it is of another kind, or its arrays are damaged."""
    note = _described(path)
    if note is None:
        raise InputError(f"{path} describes no synthetic clip: give the .json that `dagan synth` writes beside a video")
    place = path.with_name(note["arrays"]["file"])
    remedy = "write the clip again with `dagan synth`"
    data = read_arrays(place, remedy, ("depth", "label", "rotation", "translation", "landmarks", "visible"))
    count, names = len(data["rotation"]), len(note["landmark_names"])
    shapes = {
        "label": data["depth"].shape, "rotation": (count, 3, 3), "translation": (count, 3), "landmarks": (count, names, 3),
        "visible": (count, names),
    }  # fmt: skip
    if data["depth"].ndim != 3 or len(data["depth"]) != count or any(data[name].shape != shape for name, shape in shapes.items()):
        raise InputError(f"{place} is damaged (its arrays do not fit together): {remedy}")
    scale = note["arrays"]["depth"]
    codes = np.cumsum(data["depth"], axis=2, dtype=np.uint16)
    depth = np.where(codes == 0, scale["background"], scale["offset"] + scale["step"] * (codes.astype(np.float32) - 1)).astype(np.float32)
    k = note["intrinsics"]
    return ClipTruth(
        depth, data["label"], data["rotation"], data["translation"], (k["fx"], k["fy"]), (k["cx"], k["cy"]),
        data["landmarks"], data["visible"], tuple(note["landmark_names"]), note["rate"], note["recipe"],
    )  # fmt: skip


def recipe_of(path: Path) -> dict[str, Any] | None:
    """Returns what the clip described at `path` was drawn from, or None where there is no such clip."""
    note = _described(path) if path.is_file() else None
    return None if note is None else dict(note["recipe"])


def _described(path: Path) -> dict[str, Any] | None:
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) and note.get("kind") == "dagan synthetic head" and note.get("format") == FORMAT else None
