"""The model behind plain arrays."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dagan.engine.torch import TorchEngine
from dagan.errors import InputError
from dagan.models.keypoints import Keypoints
from running_samples import TINY, moving_pictures, tiny_model

PICTURES = moving_pictures(3)


def test_it_tells_what_the_model_is():
    engine = TorchEngine(tiny_model())
    assert (engine.name, engine.size, engine.keypoint_count, engine.has_depth) == ("tiny-64", 64, 6, True)
    assert (engine.device, engine.precision, engine.batch_size) == ("cpu", "float32", 8)
    assert TorchEngine(tiny_model(), 9).batch_size == 9
    half = tiny_model()
    half.compute_dtype = torch.bfloat16
    assert TorchEngine(half).precision == "bfloat16"


def test_a_source_driven_by_its_own_keypoints_is_what_the_model_makes_of_it():
    model = tiny_model()
    engine = TorchEngine(model)
    source = engine.encode(PICTURES[0])
    image = torch.from_numpy(PICTURES[0]).permute(2, 0, 1)[None].float() / 255
    encoded = model.encode_source(image)
    wanted = model.drive(encoded, encoded.keypoints).image[0].permute(1, 2, 0)
    got = engine.render(source, source.keypoints)
    assert got.shape == (1, 64, 64, 3)
    assert np.abs(got[0] / 255 - wanted.numpy()).max() <= 0.5 / 255 + 1e-6  # rounded, not cut off
    torch.testing.assert_close(source.keypoints.value, encoded.keypoints.value)


def test_batches():
    engine = TorchEngine(tiny_model())
    keypoints = engine.keypoints(PICTURES)
    assert keypoints.value.shape == (3, 6, 2)
    assert keypoints.jacobian.shape == (3, 6, 2, 2)
    assert keypoints.value.std(0).max() > 1e-3  # the tiny model sees that pictures differ
    assert engine.render(engine.encode(PICTURES[0]), Keypoints(keypoints.value, keypoints.jacobian)).shape == (3, 64, 64, 3)
    disparity = engine.disparity(PICTURES)
    assert disparity.shape == (3, 64, 64)
    assert disparity.dtype == np.float32
    assert 0 < disparity.min() < disparity.max() < 1


def test_bfloat16_gives_float32_keypoints_and_bytes():
    model = tiny_model()
    model.compute_dtype = torch.bfloat16
    engine = TorchEngine(model)
    keypoints = engine.keypoints(PICTURES)
    assert keypoints.value.dtype == torch.float32
    assert engine.render(engine.encode(PICTURES[0]), keypoints).dtype == np.uint8


def test_what_cannot_work_is_said():
    engine = TorchEngine(tiny_model())
    with pytest.raises(InputError, match="takes uint8"):
        engine.keypoints([np.zeros((32, 64, 3), np.uint8)])
    flat = TorchEngine(tiny_model(config=replace(TINY, name="tiny-rgb", use_depth=False)))
    assert not flat.has_depth
    with pytest.raises(InputError, match="no depth network"):
        flat.disparity(PICTURES)
