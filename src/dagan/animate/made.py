"""Motions that come with the package, as keypoints of the source that they are to move, and pictures of what they look like."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

from dagan.animate.animator import Animator
from dagan.checks import nearest, printable
from dagan.engine.base import Engine
from dagan.errors import InputError
from dagan.media.framing import FaceFinder
from dagan.media.images import read_image, write_image
from dagan.media.output import check_destination
from dagan.media.provenance import Provenance
from dagan.motion.file import DrivingMotion
from dagan.motion.pose import MOTIONS, RATE, MadeMotion
from dagan.progress import Progress, silent

DRAW = "drawing motions"
_SHOWN = 6  # A strip has so many pictures.


def named_motion(driving: Path) -> MadeMotion | None:
    """Returns the motion of that name, or None for a path. A file or folder of a motion's name goes before it.

    Raises InputError, naming the nearest motions, for a single word that is neither.
    """
    if driving.exists():
        return None
    name = str(driving)
    if name not in MOTIONS and driving.suffix == "" and len(driving.parts) == 1:
        raise InputError(f"{printable(name)} does not exist as a file, and no motion is called so: {nearest(name, MOTIONS)}")
    return MOTIONS.get(name)


def keypoints_of(made: MadeMotion, animator: Animator) -> DrivingMotion:
    """Returns a made motion as keypoints of the animator's source, at rest in frame 0.

    Raises InputError where the motion moves mouth or eyes and the model's keypoints do not stand on them.
    """
    engine = animator.engine
    poses = made.poses()
    keypoints = animator.posed.keypoints(poses)
    return DrivingMotion(
        value=keypoints.value.numpy(),
        jacobian=keypoints.jacobian.numpy(),
        times=tuple(Fraction(i) / RATE for i in range(len(poses) + 1)),
        rate=RATE,
        time_base=1 / RATE,
        reference=0,
        model=engine.name,
        detector=engine.detector_digest,
        image_size=engine.size,
        explicit=animator.by_landmarks,
    )


def made_for(made: MadeMotion, engine: Engine, face: np.ndarray, finder: FaceFinder | None, keypoints: str) -> DrivingMotion:
    """Returns a made motion as keypoints of a source's square, S x S x 3. Raises InputError as `keypoints_of` does."""
    animator = Animator(engine, face_finder=finder, keypoints=keypoints)
    animator.set_source(face)
    return keypoints_of(made, animator)


def check_strips(folder: Path, overwrite: bool) -> list[Path]:
    """Returns where `draw_strips` writes. Raises InputError where it cannot."""
    files = [folder / f"{name}.png" for name in MOTIONS]
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder for the pictures")
    for file in files if folder.is_dir() else []:
        check_destination(file, "a picture", (".png",), overwrite)
    return files


def draw_strips(engine: Engine, photo: Path, folder: Path, overwrite: bool, progress: Progress = silent) -> list[Path]:
    """Draws a strip of pictures of every motion of the package, with the face of a photo, into a folder that is made if need be.

    Returns the files. Raises InputError for inputs and outputs that cannot work.
    """
    files = check_strips(folder, overwrite)
    animator = Animator(engine)
    animator.set_source(read_image(photo), crop=True)
    folder.mkdir(parents=True, exist_ok=True)
    for i, (file, made) in enumerate(zip(files, MOTIONS.values(), strict=True)):
        poses = made.poses()
        # The frames that differ most from those shown so far tell most.
        pictures = animator.pose_batch([poses[at] for at in _telling(keypoints_of(made, animator).value)])
        write_image(file, np.concatenate(list(pictures), axis=1), overwrite, Provenance(engine.name))
        progress(DRAW, i + 1, len(files))
    return files


def _telling(value: np.ndarray) -> list[int]:
    """Returns the indices of six frames, in their order, each of which lies far from the others (N x K x 2 keypoints)."""
    chosen = [0]
    while len(chosen) < min(_SHOWN, len(value)):
        off = np.min([np.abs(value - value[at]).max((1, 2)) for at in chosen], axis=0)
        chosen.append(int(off.argmax()))
    return sorted(chosen)
