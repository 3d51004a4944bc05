"""What --smooth takes out and what it keeps: jitter of a still face seen with noise, and mouths of speech.

Run: python benchmarks/steady.py PHOTO CLIP [--amounts 0 0.25 0.5 1] [--frames 40] [--noise 8]
(PHOTO is animated by noisy copies of the first frame of CLIP; the mouth is that of CLIP's own keypoints)
"""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from dagan.animate.animator import Animator
from dagan.engine.base import Engine
from dagan.engine.open import open_engine
from dagan.media.framing import FaceFinder, to_square
from dagan.media.images import read_image
from dagan.media.landmarks import Face
from dagan.media.video import open_video
from dagan.models.keypoints import Keypoints
from dagan.motion.file import DrivingMotion
from dagan.motion.transfer import Steadier, smoothed


def motion_of(engine: Engine, finder: FaceFinder, pictures: list[np.ndarray]) -> DrivingMotion:
    """Reads the motion of pictures, 25 a second, with landmarks."""
    values, jacobians = [], []
    face: Face | None = None
    for picture in pictures:
        face = finder.landmarker.track(picture, face) if face is not None else finder.landmarker.detect(picture)[0]
        keypoints = engine.face.put(engine.keypoints([picture]), [engine.face.places(face, engine.size)])
        values.append(keypoints.value[0].numpy())
        jacobians.append(keypoints.jacobian[0].numpy())
    times = tuple(Fraction(i, 25) for i in range(len(values) + 1))
    return DrivingMotion(
        value=np.stack(values), jacobian=np.stack(jacobians), times=times, rate=Fraction(25), time_base=Fraction(1, 25), reference=0,
        model=engine.name, detector=engine.detector_digest, image_size=engine.size, explicit=True,
    )  # fmt: skip


def jitter(animator: Animator, finder: FaceFinder, keypoints: Keypoints) -> float:
    """Returns how far landmarks go from frame to frame in the results, in pixels (mean over 478 points)."""
    places = [finder.landmarker.detect(picture)[0].landmarks[:, :2] for picture in animator.drive(keypoints)]
    return float(np.linalg.norm(np.diff(places, axis=0), axis=2).mean())


def lag(before: np.ndarray, after: np.ndarray) -> float:
    """Returns by how many frames `after` comes later, to a fraction of one: the peak of their correlation."""
    a, b = before - before.mean(), after - after.mean()
    shifts = np.arange(-5, 6)
    products = np.array([(a[5:-5] * np.roll(b, -shift)[5:-5]).sum() for shift in shifts])
    top = int(products[1:-1].argmax()) + 1
    left, middle, right = products[top - 1 : top + 2]
    return float(shifts[top] + 0.5 * (left - right) / (left - 2 * middle + right))


def main() -> None:
    """Prints a line for each amount."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--amounts", type=float, nargs="+", default=[0, 0.25, 0.5, 1])
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--noise", type=float, default=8.0)
    options = parser.parse_args()
    engine, finder = open_engine("lite-256", device="cpu", precision="float32"), FaceFinder()
    with open_video(options.clip, 25) as reader:
        pictures = [to_square(frame.image, engine.size) for frame in reader]
    noise = np.random.default_rng(0).normal(0, options.noise, (options.frames, *pictures[0].shape))
    still = motion_of(engine, finder, list((pictures[0] + noise).clip(0, 255).astype(np.uint8)))
    speech = motion_of(engine, finder, pictures)
    upper, lower = (engine.face.landmarks.index(point) for point in (13, 14))
    animator = Animator(engine, face_finder=finder)
    animator.set_source(read_image(options.photo), crop=True)
    animator.set_reference(still.keypoints(slice(0, 1)))

    def mouth(value: np.ndarray) -> np.ndarray:
        return np.linalg.norm(value[:, upper] - value[:, lower], axis=1)

    spoken = mouth(speech.value)
    for amount in options.amounts:
        own = jitter(animator, finder, smoothed(still, amount).keypoints(slice(None)))
        steady = mouth(smoothed(speech, amount).value)
        live = mouth(Steadier(amount)(Keypoints(torch.from_numpy(speech.value), torch.from_numpy(speech.jacobian))).value.numpy())
        told = [
            f"{name} slope {np.polyfit(spoken, now, 1)[0]:.3f}, lag {lag(spoken, now):+.2f} frames"
            for name, now in (("mouth", steady), ("frame by frame", live))
        ]
        print(f"--smooth {amount:g}: jitter {own:.3f} pixels a frame; {'; '.join(told)}", flush=True)


if __name__ == "__main__":
    main()
