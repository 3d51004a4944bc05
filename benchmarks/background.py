"""How much of what swims behind heads `--still-background` holds: evaluate's background deviation, with it and without.

Run: python benchmarks/background.py MOTION PORTRAITS [PORTRAITS ...] [--hold-out 0.15] [--most 10] [--every 5] [--pictures FOLDER]
(MOTION is a motion file, such as `dagan animate --save-motion` writes; PORTRAITS are folders; --pictures writes a strip for each portrait,
with it above and without below)

Evaluate's measure leaves out a box about the head. Hair often reaches above it, and must move with the head. So a second figure is given
of what lies beside the box alone, not above it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from dagan.animate.animator import Animator
from dagan.animate.finish import Finish
from dagan.data.clips import find_stills, held_out
from dagan.engine.open import open_engine
from dagan.evaluate.metrics import Background
from dagan.media.framing import FaceFinder
from dagan.media.images import read_image, write_image
from dagan.media.landmarks import Face
from dagan.motion.file import read_motion


def main() -> None:
    """Prints a line for each portrait, and what it comes to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("motion", type=Path)
    parser.add_argument("portraits", type=Path, nargs="+")
    parser.add_argument("--hold-out", type=float, default=0.15)
    parser.add_argument("--most", type=int, default=10)
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--pictures", type=Path)
    options = parser.parse_args()
    finder, engine = FaceFinder(), open_engine("lite-256", device="cpu")
    motion = read_motion(options.motion)
    driving = motion.keypoints(slice(None, None, options.every))
    rows: list[list[float | None]] = []
    for folder in options.portraits:
        stills = find_stills(folder)
        names = held_out({still.identity for still in stills}, options.hold_out)
        for still in (still for still in stills if still.identity in names):
            photo = read_image(still.path)
            if len(rows) == options.most or not finder.landmarker.detect(photo):
                continue
            drawn = []
            for finish in (Finish(), Finish(still_background=True)):
                animator = Animator(engine, face_finder=finder, finish=finish)
                animator.set_source(photo)
                animator.set_reference(motion.keypoints([motion.reference]))
                drawn.append([picture for i in range(len(driving.value)) for picture in animator.drive(driving[i : i + 1])])
            faces = [next(iter(finder.landmarker.detect(picture)), None) for picture in drawn[0]]
            found = [deviation(pictures, faces, above) for above in (True, False) for pictures in drawn]
            if None in found:
                continue
            rows.append(found)
            around, beside = (f"{before:.2f} grey levels without, {after:.2f} with" for before, after in (found[:2], found[2:]))
            print(f"{still.path.name}: {around}; beside it {beside}", flush=True)
            if options.pictures is not None:
                options.pictures.mkdir(parents=True, exist_ok=True)
                chosen = np.linspace(0, len(drawn[0]) - 1, 6).astype(int)
                strip = np.vstack([np.hstack([pictures[i] for i in chosen]) for pictures in reversed(drawn)])
                write_image(options.pictures / f"{still.path.stem}.png", strip, overwrite=True)
    if not rows:
        raise SystemExit("no portrait that is held out shows a face with something behind it: raise --hold-out, or name other folders")
    figures = np.array(rows, float).T
    for name, before, after in (("outside of heads", *figures[:2]), ("beside heads", *figures[2:])):
        share, each = after.mean() / before.mean(), after / before
        print(f"{name}, {len(rows)} portraits: {before.mean():.2f} without, {after.mean():.2f} with: {share:.2f} of it; "
              f"each by itself {each.mean():.2f}, median {np.median(each):.2f}")  # fmt: skip


def deviation(pictures: list[np.ndarray], faces: list[Face | None], above: bool) -> float | None:
    """Returns the background deviation of a video, in grey levels, None where heads fill the pictures. Heads are where faces are.

    Without `above`, what lies above heads does not count.
    """
    background = Background(len(pictures[0]))
    for picture, face in zip(pictures, faces, strict=True):
        if face is not None:
            points = face.landmarks[:, :2]
            low, high = points.min(axis=0), points.max(axis=0)
            higher = [(low[0] + high[0]) / 2, 2 * low[1] - high[1]]  # A point a face's height above the face makes the box high.
            background.add(picture, [points if above else np.vstack([points, higher])])
    return background.deviation()


if __name__ == "__main__":
    main()
