"""Jobs without a video that drives: a photo is posed by hand, or moves as a motion of the package does.

The pose job draws a photo in poses that are set by hand: as one picture, as a strip, or as a video that goes through them. Motions that
come with the package become keypoints of the source that they are to move, and strips of pictures show what they look like.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np

from dagan.animate.animator import Animator
from dagan.checks import nearest, printable
from dagan.engine.base import Engine
from dagan.errors import InputError
from dagan.media.framing import FaceFinder
from dagan.media.images import IMAGE_SUFFIXES, is_video, read_image, write_image
from dagan.media.output import check_destination, check_distinct
from dagan.media.provenance import Provenance
from dagan.media.video import VideoWriter
from dagan.media.writer import VIDEO_SUFFIXES
from dagan.motion.file import DrivingMotion
from dagan.motion.pose import MOTIONS, RATE, MadeMotion, Pose, between
from dagan.progress import Progress, Warn, silent, to_stderr

DRAW = "drawing"
SWEEP_RATE = Fraction(25)  # Frames a second of a sweep.
_MOST_PICTURES = 64  # A strip of more pictures is wider than image formats and viewers take.


@dataclass(frozen=True, kw_only=True)
class PoseOptions:
    """What to draw, and how."""

    values: Mapping[str, str] = field(default_factory=dict)
    """For fields of `Pose`: one number, several with commas for a strip, or several with colons for a video that passes through them."""
    seconds: float = 2.0
    """How long a video takes from one value to the next."""
    crop: bool = True
    """Whether the face is found; otherwise the middle of the photo is taken."""
    overwrite: bool = False


@dataclass(frozen=True)
class PoseReport:
    """What was written."""

    output: str
    pictures: int
    """The number of poses that were drawn."""
    sweep: bool
    """Whether the output is a video."""


def pose(
    engine: Engine, photo: Path, output: Path, options: PoseOptions, progress: Progress = silent, warn: Warn = to_stderr
) -> PoseReport:  # fmt: skip
    """Draws the photo in the poses of the options and writes them. Turns that go too far are held back, and `warn` is told.

    Raises InputError for inputs, outputs and values that cannot work. Nothing is left behind then.
    """
    poses, sweep = check_pose_job(photo, output, options)
    finder = FaceFinder()
    animator = Animator(engine, face_finder=finder)
    animator.set_source(read_image(photo), crop=options.crop)
    for sentence in dict.fromkeys(sentence for one in poses for sentence in animator.posed.damped(one)):
        warn(sentence)
    made = Provenance(engine.name)
    if not sweep:
        drawn = [animator.pose_batch([one])[0] for one in poses]
        write_image(output, np.concatenate(drawn, axis=1), options.overwrite, made)
        return PoseReport(str(output), len(poses), False)
    steps = max(1, round(options.seconds * SWEEP_RATE))
    frames = [between(a, b, _eased(i / steps)) for a, b in pairwise(poses) for i in range(steps)] + [poses[-1]]
    with VideoWriter(output, engine.size, engine.size, rate=SWEEP_RATE, overwrite=options.overwrite, provenance=made, warn=warn) as writer:
        for start in range(0, len(frames), engine.batch_size):
            for i, picture in enumerate(animator.pose_batch(frames[start : start + engine.batch_size]), start):
                writer.write(picture, i / SWEEP_RATE)
            progress(DRAW, min(start + engine.batch_size, len(frames)), len(frames))
    return PoseReport(str(output), len(frames), True)


def check_pose_job(photo: Path, output: Path, options: PoseOptions) -> tuple[list[Pose], bool]:
    """Returns the poses that the options name, and whether they are way points of a video.

    Raises InputError for everything that can be refused without a model.
    """
    poses, sweep = read_poses(options.values)
    check_distinct((output,), (photo,))
    if sweep:
        check_destination(output, "a video", VIDEO_SUFFIXES, options.overwrite)
    elif output.suffix.lower() in VIDEO_SUFFIXES and output.suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError(
            f"{output} is a video, and the pose is one that stands still: name an image file such as {output.with_suffix('.png')}, "
            "or give way points with colons, such as --yaw -20:20"
        )
    else:
        check_destination(output, "a picture", IMAGE_SUFFIXES, options.overwrite)
    if is_video(photo):
        raise InputError(f"{photo} is a video: give a photo")
    if not 0 < options.seconds <= 600:
        raise InputError(f"--seconds is {options.seconds:g}: must be above 0, and at most 600")
    return poses, sweep


def read_poses(values: Mapping[str, str]) -> tuple[list[Pose], bool]:
    """Returns the poses that texts name, and whether they are way points of a video.

    Each text is a number, several numbers with commas, or several with colons. A number on its own serves all poses. Raises InputError
    for other texts, for commas beside colons, and for lists of different lengths.
    """
    lists: dict[str, tuple[float, ...]] = {}
    marks: dict[str, str] = {}
    for name, text in values.items():
        mark = ":" if ":" in text else ","
        lists[name] = tuple(_number(name, part, text) for part in text.split(mark))
        if len(lists[name]) > 1:
            marks[name] = mark
    kinds = set(marks.values())
    if len(kinds) > 1:
        raise InputError("some values have commas, which make a strip, and some have colons, which make a video: use one of them")
    lengths = {len(lists[name]) for name in marks}
    if len(lengths) > 1:
        counts = ", ".join(f"{len(lists[name])} of {name.replace('_', ' ')}" for name in marks)
        raise InputError(f"there are {counts}: give as many values of each, or one for all")
    count = lengths.pop() if lengths else 1
    if count > _MOST_PICTURES:
        raise InputError(f"there are {count} values: at most {_MOST_PICTURES} can be drawn")
    known = {one.name for one in fields(Pose)}
    assert set(lists) <= known
    poses = [Pose(**{name: numbers[i if len(numbers) > 1 else 0] for name, numbers in lists.items()}) for i in range(count)]
    return poses, kinds == {":"}


def _number(name: str, part: str, text: str) -> float:
    if not re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)", part.strip()):
        raise InputError(
            f"{name.replace('_', ' ')} is {text!r}: must be a number, several with commas (-20,0,20: a strip) "
            "or several with colons (-20:20: a video)"
        )
    return float(part)


def _eased(share: float) -> float:
    """Rises from 0 to 1, level at both ends, so that a head starts and stops softly."""
    return share * share * (3 - 2 * share)


def described(values: Mapping[str, str]) -> str:
    """Returns what was asked, in words, such as "yaw 20, smile 0.5"."""
    given: Sequence[str] = [f"{name.replace('_', ' ')} {text}" for name, text in values.items()]
    return ", ".join(given) or "as in the photo"


DRAW_STRIPS = "drawing motions"
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
        progress(DRAW_STRIPS, i + 1, len(files))
    return files


def _telling(value: np.ndarray) -> list[int]:
    """Returns the indices of six frames, in their order, each of which lies far from the others (N x K x 2 keypoints)."""
    chosen = [0]
    while len(chosen) < min(_SHOWN, len(value)):
        off = np.min([np.abs(value - value[at]).max((1, 2)) for at in chosen], axis=0)
        chosen.append(int(off.argmax()))
    return sorted(chosen)


