"""The model made fast computes what the model computes."""

from dataclasses import replace

import pytest
import torch

from dagan.config import GeneratorConfig, HourglassConfig
from dagan.engine.cpu.fast import prepare
from dagan.models.blocks import UpBlock
from dagan.models.generator import CrossModalAttention
from running_samples import TINY, tiny_model

IMAGES = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
RESIDUAL = GeneratorConfig(decoder="residual", width=8, max_width=32, downs=2, blocks=1)


PLUS = replace(
    TINY, keypoints=replace(TINY.keypoints, geometry=HourglassConfig(width=4, max_width=8, levels=2)),
    generator=replace(TINY.generator, attention="all", attention_keys=4),
)  # fmt: skip


def lively(config, dtype=torch.float32):
    """A random model in which attention counts and normalisations do something."""
    model = tiny_model(config=config)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 2)
            if isinstance(module, CrossModalAttention):
                module.gamma.fill_(0.7)
    model.compute_dtype = dtype
    return model


def draw(model):
    source = model.encode_source(IMAGES[:1])
    return model.drive(source, model.keypoints(IMAGES)).image


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        replace(TINY, generator=RESIDUAL),
        replace(TINY, generator=replace(RESIDUAL, decoder="spade")),
        replace(TINY, use_depth=False),
        PLUS,
        replace(PLUS, generator=replace(RESIDUAL, attention="all", attention_keys=4)),
        replace(TINY, generator=RESIDUAL, align_corners=False),
    ],
    ids=["pyramid", "residual", "spade", "rgb", "plus lite", "plus", "edges"],
)
def test_same_pictures_and_keypoints(config):
    model = lively(config)
    fast = prepare(model)
    torch.testing.assert_close(draw(fast), draw(model), atol=2e-4, rtol=0)
    torch.testing.assert_close(fast.keypoints(IMAGES).jacobian, model.keypoints(IMAGES).jacobian, atol=2e-4, rtol=0)


@pytest.mark.parametrize("generator", [TINY.generator, RESIDUAL, replace(RESIDUAL, decoder="spade")], ids=lambda g: g.decoder)
def test_bfloat16_stays_within_a_255th_on_average(generator):
    config = replace(TINY, generator=generator)
    fast, exact = prepare(lively(config, torch.bfloat16)), lively(config)
    difference = (draw(fast) - draw(exact)).abs()
    assert 0 < difference.mean() < 1 / 255
    # Keypoints are found in float32, on a depth map in bfloat16.
    assert (fast.keypoints(IMAGES).value - exact.keypoints(IMAGES).value).abs().max() < 0.02


def test_the_model_itself_stays_as_it_was():
    model = lively(replace(TINY, generator=RESIDUAL), torch.bfloat16)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    fast = prepare(model)
    after = model.state_dict()
    assert all(torch.equal(after[key], tensor) and after[key].dtype == tensor.dtype for key, tensor in before.items())
    assert any(isinstance(module, UpBlock) for module in model.generator.decoder.modules())
    assert type(model.generator.attention) is CrossModalAttention
    assert fast.generator.appearance.first.conv.weight.dtype == torch.bfloat16
    assert fast.keypoint_detector.heatmap.weight.dtype == torch.float32
    assert fast.generator.appearance.first.conv.weight.is_contiguous(memory_format=torch.channels_last)
