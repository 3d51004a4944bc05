"""Folding: the same results with fewer steps, and a model that stays as it was."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from released_files import random_model, small_config
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

from dagan.errors import InputError
from dagan.models.blocks import ResidualBlock
from dagan.models.dagan import DaGAN, Output
from dagan.weights import fold, save_model
from tiny import TINY

CONFIGS = {
    "residual": small_config(),
    "spade": small_config("spade"),
    "rgb": small_config(use_depth=False),
    "resnet50": replace(small_config(), depth=replace(small_config().depth, encoder="resnet50")),
    "pyramid": TINY,
}


@pytest.fixture(scope="module", params=list(CONFIGS))
def model(request: pytest.FixtureRequest) -> DaGAN:
    return random_model(CONFIGS[request.param])


@pytest.fixture(scope="module")
def folded(model: DaGAN) -> DaGAN:
    return fold(model)


def images(batch: int, seed: int) -> torch.Tensor:
    small = torch.rand(batch, 3, 9, 9, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(small, size=(64, 64), mode="bilinear", align_corners=True)


def run(model: DaGAN) -> Output:
    return model.drive(model.encode_source(images(1, 0)), model.keypoints(images(2, 1)))


def test_results_agree(model: DaGAN, folded: DaGAN) -> None:
    plain, fast = run(model), run(folded)
    for name in ("image", "deformation", "occlusion", "mask", "warped"):
        torch.testing.assert_close(getattr(fast, name), getattr(plain, name), atol=1e-4, rtol=0)
    if model.config.use_depth:
        torch.testing.assert_close(folded.depth(images(1, 0)), model.depth(images(1, 0)), atol=1e-4, rtol=0)


def test_only_norms_before_an_activation_are_left(folded: DaGAN) -> None:
    left = [name for name, module in folded.named_modules() if isinstance(module, nn.BatchNorm2d)]
    blocks = [name for name, module in folded.named_modules() if isinstance(module, ResidualBlock)]
    assert left == [f"{name}.norm1" for name in blocks]
    assert not any(parametrize.is_parametrized(module) for module in folded.modules())


def test_the_model_itself_stays(model: DaGAN) -> None:
    """Folded while it trains, it goes on training with the same weights."""
    before, result = copy.deepcopy(model.state_dict()), run(model).image
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    model.train()
    try:
        folded = fold(model)
        assert model.training
        assert not any(module.training for module in folded.modules())
    finally:
        model.eval()
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == flags
    assert torch.equal(run(model).image, result)


def test_tensors_that_folding_leaves_alone_are_shared() -> None:
    model = random_model(small_config("spade"))
    folded = fold(model)
    assert folded.generator.decoder.middle[0].norm_0.gamma.weight is model.generator.decoder.middle[0].norm_0.gamma.weight
    assert folded.keypoint_detector.heatmap.weight is model.keypoint_detector.heatmap.weight


def test_folded_models_can_be_counted_and_folded_again(folded: DaGAN) -> None:
    """The counter's hooks do not stand the parametrised convolutions of an unfolded SPADE decoder."""
    again = fold(folded)
    with FlopCounterMode(display=False) as counter:
        run(again)
    assert counter.get_total_flops() > 1e6


def test_folded_models_are_not_saved(folded: DaGAN, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="folded for inference"):
        save_model(tmp_path / "m.safetensors", folded)
    assert not list(tmp_path.iterdir())


def test_precision_and_configuration_are_taken_over() -> None:
    model = random_model(small_config(use_depth=False))
    model.compute_dtype = torch.bfloat16
    folded = fold(model)
    assert folded.compute_dtype == torch.bfloat16
    assert folded.config == model.config
