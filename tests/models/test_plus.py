"""What the plus models add, and that all else is what the models are that they extend."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dagan.config import GeneratorConfig, HourglassConfig, ModelConfig, preset
from dagan.models.dagan import DaGAN
from dagan.models.generator import CrossModalAttention
from tiny import TINY

RESIDUAL = replace(TINY, generator=GeneratorConfig(decoder="residual", width=16, max_width=32, downs=2, blocks=1))
SPADE = replace(RESIDUAL, generator=replace(RESIDUAL.generator, decoder="spade"))
BRANCH = HourglassConfig(width=4, max_width=8, levels=2)


def images(batch: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(batch, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def added(name: str) -> bool:
    return name.startswith(("generator.fine_attention.", "keypoint_detector.geometry.", "keypoint_detector.fusion."))


@pytest.mark.parametrize(("plus", "base"), [("plus-256", "paper-256"), ("plus-lite-256", "lite-256")])
def test_parts_that_are_the_same_have_the_same_weights(plus: str, base: str) -> None:
    with torch.device("meta"):
        ours, theirs = ({k: v.shape for k, v in DaGAN(preset(name)).state_dict().items()} for name in (plus, base))
    changed = {k for k in theirs if ours.get(k) != theirs[k]}
    # Only the first layer of the keypoints' hourglass, which sees colours alone, and its last skip differ from the paper's.
    keypoints = {k for k in changed if k.startswith("keypoint_detector.hourglass.downs.0.conv.weight")}
    depth = {k for k in changed if k.startswith("generator.depth.")}
    assert changed == keypoints | depth
    assert keypoints
    assert bool(depth) == (plus == "plus-lite-256"), "the lite depth encoder begins one scale earlier"
    assert all(added(k) for k in ours.keys() - theirs.keys() if not k.startswith("generator.depth."))
    assert {k for k in ours if added(k)}


@pytest.mark.parametrize("base", [RESIDUAL, SPADE], ids=["residual", "spade"])
def test_same_weights_draw_the_same(base: ModelConfig) -> None:
    """A model with attention at all scales starts as the one with attention at the coarsest: its other gammas are zero."""
    torch.manual_seed(0)
    paper = DaGAN(base).eval()
    torch.nn.init.constant_(paper.generator.attention.gamma, 0.5)
    plus = DaGAN(replace(base, generator=replace(base.generator, attention="all"))).eval()
    missing, unexpected = plus.load_state_dict(paper.state_dict(), strict=False)
    assert missing
    assert all(added(key) for key in missing)
    assert not unexpected
    source, keypoints = paper.encode_source(images(1)), paper.keypoints(images(2, 2))
    wanted = paper.drive(source, keypoints).image
    torch.testing.assert_close(plus.drive(plus.encode_source(images(1)), keypoints).image, wanted, atol=1e-6, rtol=0)
    for attention in plus.generator.fine_attention:
        torch.nn.init.constant_(attention.gamma, 0.5)
    assert (plus.drive(plus.encode_source(images(1)), keypoints).image - wanted).abs().max() > 1e-3


def test_pyramid_with_attention_at_all_scales_starts_as_one_without_finer_ones() -> None:
    """Its depth encoder differs, so a coarsest gamma of zero too takes depth out of both."""
    torch.manual_seed(0)
    lite = DaGAN(TINY).eval()
    plus = DaGAN(replace(TINY, generator=replace(TINY.generator, attention="all"))).eval()
    plus.load_state_dict({k: v for k, v in lite.state_dict().items() if not k.startswith("generator.depth.")}, strict=False)
    keypoints = lite.keypoints(images(2, 2))
    wanted = lite.drive(lite.encode_source(images(1)), keypoints).image
    torch.testing.assert_close(plus.drive(plus.encode_source(images(1)), keypoints).image, wanted, atol=1e-6, rtol=0)


def test_keys_are_averaged_to_a_small_map() -> None:
    """With one value everywhere, whatever is asked gets that value; with `keys`, N places ask at most keys^2."""
    torch.manual_seed(0)
    attention = CrossModalAttention(16, channels_out=24, keys=4)
    torch.nn.init.ones_(attention.gamma)
    features, query = torch.rand(2, 16, 40, 40), torch.rand(2, 2, 40, 40)
    key, value = attention.asked(features)
    assert key.shape == (2, 2, 4, 4)
    assert value.shape == (2, 24, 4, 4)
    flat = query.flatten(2).transpose(1, 2) @ key.flatten(2)
    wanted = (torch.softmax(flat, -1) @ value.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, (40, 40))
    torch.testing.assert_close(attention(query, features), wanted, atol=1e-5, rtol=1e-4)
    same = features[:, :, :1, :1].expand(-1, -1, 40, 40)
    everywhere = torch.relu(attention.value(same))
    torch.testing.assert_close(attention(query, same), everywhere, atol=1e-5, rtol=1e-4)


def test_each_branch_sees_its_own() -> None:
    """Colours reach the keypoints through one branch and depth through the other."""
    torch.manual_seed(0)
    config = replace(TINY, keypoints=replace(TINY.keypoints, geometry=BRANCH))
    detector = DaGAN(config).eval().keypoint_detector
    assert detector.geometry is not None
    assert detector.hourglass.downs[0].conv.in_channels == 3
    assert detector.geometry.downs[0].conv.in_channels == 1
    image = images(1).requires_grad_()
    disparity = images(1, 2)[:, :1].requires_grad_()
    found = detector(image, disparity)
    (found.value.square().sum() + found.jacobian.square().sum()).backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0
    assert disparity.grad is not None
    assert disparity.grad.abs().sum() > 0
    # Without depth in keypoints there is one branch, on colours.
    plain = DaGAN(replace(config, keypoints=replace(config.keypoints, depth=False))).keypoint_detector
    assert plain.geometry is None
    assert plain.hourglass.downs[0].conv.in_channels == 3

