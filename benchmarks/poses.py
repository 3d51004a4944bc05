"""How far heads turn that are posed by hand: portraits are turned, and the landmarker measures by how much, beside identity.

Run: python benchmarks/poses.py PORTRAITS [PORTRAITS ...] --identity ARCFACE [--hold-out 0.15] [--most 10] [--facing 15]
(only portraits are taken that look into the camera within `--facing` degrees of yaw; PORTRAITS are folders)
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from dagan.animate.animator import Animator
from dagan.data.clips import find_stills, held_out
from dagan.engine.open import open_engine
from dagan.evaluate.face_metrics import IdentityNetwork
from dagan.media.framing import FaceFinder
from dagan.media.images import read_image
from dagan.media.landmarks import RIGID, rotation_between
from dagan.motion.head import angles_of
from dagan.motion.pose import Pose

POSES = [Pose(yaw=-20), Pose(yaw=20), Pose(pitch=-12), Pose(pitch=12), Pose(yaw=-30), Pose(yaw=30)]
_CHEEKS = (234, 454)  # These mesh points are level on a face that looks into the camera.


def main() -> None:
    """Prints a line for each portrait and each pose."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("portraits", type=Path, nargs="+")
    parser.add_argument("--identity", type=Path, required=True)
    parser.add_argument("--hold-out", type=float, default=0.15)
    parser.add_argument("--most", type=int, default=10)
    parser.add_argument("--facing", type=float, default=15.0)
    options = parser.parse_args()
    identity, finder = IdentityNetwork(options.identity), FaceFinder()
    engine = open_engine("lite-256", device="cpu", precision="float32")
    rows: dict[Pose, list[tuple[float, float]]] = {pose: [] for pose in POSES}
    taken = 0
    for folder in options.portraits:
        stills = find_stills(folder)
        names = held_out({still.identity for still in stills}, options.hold_out)
        for still in stills:
            photo = read_image(still.path) if still.identity in names else None
            face = next(iter(finder.landmarker.detect(photo)), None) if photo is not None else None
            if photo is None or face is None or taken == options.most:
                continue
            across = face.landmarks[_CHEEKS[1]] - face.landmarks[_CHEEKS[0]]
            if abs(np.degrees(np.arctan2(across[2], across[0]))) > options.facing:
                continue
            taken += 1
            animator = Animator(engine, face_finder=finder)
            animator.set_source(photo)
            rest = animator.pose()
            before = finder.landmarker.detect(rest)[0].landmarks
            own = identity.embed(rest, before)
            line = []
            for pose, picture in zip(POSES, animator.pose_batch(POSES), strict=True):
                after = next(iter(finder.landmarker.detect(picture)), None)
                if after is None:
                    line.append("no face")
                    continue
                turn = angles_of(rotation_between(*(x[list(RIGID)].astype(np.float64) for x in (before, after.landmarks))).T)
                angle = float(turn[0] if pose.yaw else turn[1])
                rows[pose].append((angle, float(own @ identity.embed(picture, after.landmarks))))
                line.append(f"{angle:+.1f} ({rows[pose][-1][1]:.2f})")
            print(f"{still.name}: {', '.join(line)}")
    for pose, found in rows.items():
        angles, alike = np.array(found).T
        asked = pose.yaw or pose.pitch
        print(
            f"{'yaw' if pose.yaw else 'pitch'} {asked:+.0f}: {len(angles)} of {taken}, mean {angles.mean():+.1f}, "
            f"farthest off {np.abs(angles - asked).max():.1f}, identity mean {alike.mean():.2f}, least {alike.min():.2f}"
        )


if __name__ == "__main__":
    main()
