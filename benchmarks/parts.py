"""What moves with --move: a portrait is driven by clips, and the landmarker measures head turn and mouth in the results.

Run: python benchmarks/parts.py PHOTO CLIPS [CLIPS ...] [--hold-out 0.1] [--number 10] [--every 5] [--reference first]
(of the held-out clips, those are taken that move head and mouth most)
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from dagan.animate.animator import Animator
from dagan.data.clips import clips_for
from dagan.engine.open import open_engine
from dagan.media.framing import FaceFinder
from dagan.media.images import read_image
from dagan.media.landmarks import RIGID, Face, FaceLandmarker, expressions, followed, head_pose, pose_distance, rotation_between
from dagan.media.video import open_video
from dagan.motion.head import angles_of

MOVES = ("all", "expression", "pose")


def measured(faces: list[Face | None]) -> tuple[np.ndarray, np.ndarray]:
    """Returns turns in degrees, N x 3, from the first face, and the numbers of `expressions`, N x 7, less those of the first."""
    first = faces[0]
    assert first is not None
    turns, numbers = [], []
    for face in faces:
        points = np.full((478, 3), np.nan) if face is None else face.landmarks.astype(np.float64)
        numbers.append(expressions(lambda i, points=points: points[i, :2]))  # type: ignore[misc]
        rigid = points[list(RIGID)]
        known = face is not None
        turns.append(angles_of(rotation_between(first.landmarks[list(RIGID)].astype(np.float64), rigid).T) if known else [np.nan] * 3)
    return np.array(turns), np.array(numbers) - numbers[0]


def tracked(landmarker: FaceLandmarker, pictures: list[np.ndarray]) -> list[Face | None]:
    """Finds the face in every picture."""
    found: list[Face | None] = []
    for picture in pictures:
        before = next((face for face in reversed(found) if face is not None), None)
        found.append(landmarker.track(picture, before) if before else next(iter(landmarker.detect(picture)), None))
    return found


def main() -> None:
    """Prints a line for each choice of --move."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--hold-out", type=float, default=0.1)
    parser.add_argument("--number", type=int, default=10)
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--reference", choices=("first", "auto"), default="first")
    options = parser.parse_args()
    finder, photo = FaceFinder(), read_image(options.photo)
    engine = open_engine("lite-256", device="cpu", precision="float32")
    lively = []
    for clip in [clip for folder in options.clips for clip in clips_for(folder, options.hold_out)]:
        with open_video(clip.path, 25) as reader:
            pictures = [frame.image for frame in reader.frames(step=options.every)][:32]
        faces = tracked(finder.landmarker, pictures)
        if len(pictures) < 4 or None in faces:
            continue
        turns, numbers = measured(faces)
        lively.append((100 * numbers[:, 0].std() + np.linalg.norm(turns, axis=1).clip(max=15).mean() / 5, clip.name, pictures, faces))
    lively.sort(key=lambda row: -row[0])
    driven, drawn = [], {move: ([], []) for move in MOVES}  # type: ignore[var-annotated]
    for _, _, pictures, faces in lively[: options.number]:
        at = 0
        if options.reference == "auto":
            home = head_pose(finder.landmarker.detect(photo)[0])
            at = int(np.argmin([pose_distance(home, head_pose(face)) for face in faces if face is not None]))
            pictures, faces = [pictures[at], *pictures], [faces[at], *faces]
        driven.append(measured(faces)[1][1:])
        for move in MOVES:
            animator = Animator(engine, face_finder=finder, move=move)
            animator.set_source(photo, crop=True)
            turns, numbers = measured(tracked(finder.landmarker, list(animator.animate_batch(pictures))))
            drawn[move][0].append(turns[1:])
            drawn[move][1].append(numbers[1:])
    for move, (turns, numbers) in drawn.items():
        turned = np.concatenate(turns)
        known = np.isfinite(turned).all(1)
        slopes = followed(np.concatenate(driven)[known], np.concatenate(numbers)[known])
        turn = np.sqrt(np.square(turned[known]).mean())
        told = ", ".join(f"{key} {value:.2f}" for key, value in slopes.items() if key.endswith("slope"))
        print(f"{move}: {known.sum()} frames, head turn (root mean square of yaw, pitch and roll) {turn:.2f} degrees, slopes: {told}")


if __name__ == "__main__":
    main()
