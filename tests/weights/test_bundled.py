"""The weights and examples that come with the repository."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.data import astronaut

import dagan
from dagan.cli.animate import MOTION, PORTRAIT
from dagan.config import Gains
from dagan.engine.torch import TorchEngine
from dagan.media.framing import Framing, crop
from dagan.media.images import read_image
from dagan.motion.file import read_motion
from dagan.weights import bundled, read_card


@pytest.fixture(scope="module")
def model() -> dagan.DaGAN:
    return dagan.load("lite-256", device="cpu", precision="float32")


def portrait(shift: int) -> torch.Tensor:
    """1 x 3 x 256 x 256: the astronaut, moved to the right by `shift` of 280 parts."""
    picture = crop(astronaut(), Framing(226 - shift, 150, 280), 256)
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255


def test_bundled_model_is_the_preset_within_its_size(model: dagan.DaGAN) -> None:
    keypoints = model.config.keypoints
    assert replace(model.config, keypoints=replace(keypoints, gains=Gains())) == dagan.preset("lite-256")
    assert min(keypoints.gains.mouth, keypoints.gains.smile, keypoints.gains.eyes, keypoints.gains.gaze) > 1
    assert bundled()["lite-256"].stat().st_size <= 24e6
    assert read_card(bundled()["lite-256"])["data"]


def test_a_shift_is_followed(model: dagan.DaGAN) -> None:
    """Driven by a picture of itself moved to the right, the portrait moves to the right."""
    still, moved = portrait(0), portrait(22)
    source = model.encode_source(still)
    result = model.drive(source, model.keypoints(moved)).image
    face = (..., slice(60, 200), slice(80, 200))  # 22 of 280 is 20 pixels of 256
    assert (result - moved)[face].abs().mean() < 0.5 * (still - moved)[face].abs().mean()
    assert (model.drive(source, source.keypoints).image - still).abs().mean() < 0.02


def test_depth_of_a_face_stands_out(model: dagan.DaGAN) -> None:
    disparity = model.depth(portrait(0))[0, 0]
    # Scale and shift of the map are free.
    assert disparity[100:160, 110:150].mean() > disparity[:40, :40].mean() + 0.3 * (disparity.max() - disparity.min())


def test_the_example_motion_fits_and_moves_the_example_portrait(model: dagan.DaGAN) -> None:
    motion = read_motion(MOTION)
    engine = TorchEngine(model)
    assert motion.value.shape[1:] == (22, 2)
    assert motion.explicit
    assert motion.detector == engine.detector_digest
    portrait = read_image(PORTRAIT)
    assert portrait.shape == (512, 512, 3)
    animator = dagan.Animator(model)
    animator.set_source(crop(portrait, Framing(226, 150, 280), 256))
    keypoints = dagan.Keypoints(torch.from_numpy(motion.value), torch.from_numpy(motion.jacobian))
    animator.set_reference(keypoints[motion.reference : motion.reference + 1])
    frames = animator.drive(keypoints[:: len(keypoints.value) // 8]).astype(int)
    assert np.abs(frames - frames[:1]).mean(axis=(1, 2, 3)).max() > 1


def test_the_demo_is_damped_where_it_would_break_and_nowhere_else(model: dagan.DaGAN) -> None:
    """A chin lifted far in the last half second; the rest is hardly touched."""
    motion = read_motion(MOTION)
    animator = dagan.Animator(model)
    animator.set_source(crop(read_image(PORTRAIT), Framing(226, 150, 280), 256))
    animator.set_reference(motion.keypoints(slice(motion.reference, motion.reference + 1)))
    left = animator.share_left(motion.keypoints(slice(None)))
    assert (left == 1).mean() > 0.35
    assert (left > 0.9).mean() > 0.7
    assert left[-8:].max() < 0.8
