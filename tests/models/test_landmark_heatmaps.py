"""Keypoints that stand on landmarks: their own heatmaps in dense motion and decoder, the same in the fast copy for CPUs."""

from dataclasses import replace

import pytest
import torch

from dagan.config import KeypointConfig
from dagan.engine.cpu.fast import prepare
from dagan.errors import InputError
from dagan.models.dagan import DaGAN
from dagan.models.keypoints import Keypoints, on_landmarks
from dagan.weights import fold
from tiny import TINY


def drawn() -> tuple[DaGAN, torch.Tensor]:
    """A model whose decoder listens to heatmaps, which start with weights of zero, and a source picture."""
    torch.manual_seed(0)
    model = DaGAN(TINY).eval()
    assert model.generator.guide is not None
    torch.nn.init.normal_(model.generator.guide.weight, std=0.5)
    return model, torch.rand(1, 3, 64, 64)


def test_heatmaps_start_without_effect_and_may_have_one() -> None:
    torch.manual_seed(0)
    fresh = DaGAN(TINY).eval()
    assert fresh.generator.guide is not None
    assert not fresh.generator.guide.weight.any()
    model, image = drawn()
    source, keypoints = model.encode_source(image), model.keypoints(image)
    still = replace(model.drive(source, keypoints))
    motion = model.dense_motion(source.small, source.keypoints, keypoints)
    with torch.inference_mode():
        moved, _ = model.generator.decode(source.features, image, motion, keypoints.value + 0.3)
    # The motion is the same: only what the decoder is told differs.
    assert (moved - still.image).abs().max() > 1e-3


def test_narrow_heatmaps_are_of_landmarks_alone() -> None:
    model, _ = drawn()
    value = torch.zeros(1, 5, 2)
    maps = model.dense_motion._heatmaps(value, (33, 33))[0]
    assert maps.amax((1, 2)).tolist() == pytest.approx([1] * 5)
    spread = maps.sum((1, 2))
    assert spread[:2].tolist() == pytest.approx([float(spread[0])] * 2)
    assert spread[2] / spread[0] == pytest.approx(TINY.motion.variance / 0.002, rel=0.05)  # sums grow as variances do


def test_the_fast_copy_draws_the_same() -> None:
    model, image = drawn()
    fast = prepare(fold(model))
    for batch in (1, 3):
        driving = torch.rand(batch, 3, 64, 64)
        keypoints = model.keypoints(driving)
        with torch.inference_mode():
            wanted = model.drive(model.encode_source(image), keypoints).image
            found = fast.drive(fast.encode_source(image), keypoints).image
        torch.testing.assert_close(found, wanted, atol=2e-4, rtol=0)


def test_landmarks_take_the_place_of_the_first_keypoints() -> None:
    found = Keypoints(torch.zeros(2, 5, 2), torch.eye(2).expand(2, 5, 2, 2))
    landmarks = torch.full((2, 3, 2), 0.5)
    landmarks[1, 2] = torch.nan
    placed = on_landmarks(found, landmarks)
    assert placed.value[:, :, 0].tolist() == [[0.5, 0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0, 0]]
    assert placed.jacobian is found.jacobian


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(InputError, match="at most 2 different ones"):
        KeypointConfig(count=2, landmarks=(13, 13))
    with pytest.raises(InputError, match="landmarks"):
        KeypointConfig(landmarks=(478,))
    with pytest.raises(InputError, match=r"needs keypoints\.landmarks"):
        replace(TINY, keypoints=replace(TINY.keypoints, landmarks=()))
    with pytest.raises(InputError, match='is for decoder "pyramid" alone'):
        replace(TINY.generator, decoder="residual")
