from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dagan.errors import InputError
from dagan.losses.gan import FeatureNetwork, PerceptualLoss, _squeezenet, discriminator_loss, feature_matching, generator_loss
from dagan.models.blocks import BandLimitedDown


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Random weights under torchvision's names."""
    torch.manual_seed(0)
    layers, _ = _squeezenet()
    save_file({f"features.{key}": value for key, value in layers.state_dict().items()}, tmp_path / "squeezenet.safetensors")
    return tmp_path / "squeezenet.safetensors"


@pytest.mark.parametrize("relative", [False, True])
def test_zero_for_equal_images_and_gradient_for_others(file: Path, relative: bool) -> None:
    loss = PerceptualLoss(FeatureNetwork("squeezenet", file), scales=2, relative=relative)
    target = torch.rand(2, 3, 64, 64)
    assert loss(target, target).item() == 0
    result = torch.rand(2, 3, 64, 64, requires_grad=True)
    loss(result, target).backward()
    assert result.grad is not None
    assert result.grad.abs().sum() > 0
    assert all(p.grad is None for p in loss.parameters())


def test_the_pyramid_is_averaged_or_band_limited(file: Path) -> None:
    network, result, target = FeatureNetwork("squeezenet", file), torch.rand(2, 3, 128, 128), torch.rand(2, 3, 128, 128)

    def distance(a: torch.Tensor, b: torch.Tensor) -> float:
        return PerceptualLoss(network, scales=1)(a, b).item()

    for pyramid, down in (
        ("average", lambda x, f: torch.nn.functional.interpolate(x, scale_factor=1 / f, mode="area")),
        ("band-limited", lambda x, f: BandLimitedDown(3, f)(x)),
    ):
        wanted = sum(distance(down(result, f), down(target, f)) for f in (1, 2, 4))
        assert PerceptualLoss(network, scales=3, pyramid=pyramid)(result, target).item() == pytest.approx(wanted, rel=1e-5)


def test_feature_network_stays_frozen_in_training_mode(file: Path) -> None:
    network = FeatureNetwork("squeezenet", file).train()
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


def test_squeezenet_layers_are_those_of_lpips(file: Path) -> None:
    shapes = [tuple(x.shape[1:]) for x in FeatureNetwork("squeezenet", file)(torch.rand(1, 3, 64, 64))]
    assert shapes == [(64, 31, 31), (128, 15, 15), (256, 7, 7), (384, 3, 3), (384, 3, 3), (512, 3, 3), (512, 3, 3)]


@pytest.mark.parametrize("fault", ["missing", "other", "text"])
def test_unfit_files_are_refused(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "weights.safetensors"
    if fault == "other":
        save_file({"features.0.weight": torch.zeros(3)}, path)
    elif fault == "text":
        path.write_text("not weights")
    with pytest.raises(InputError, match=r"weights\.safetensors"):
        FeatureNetwork("squeezenet", path)


def test_squeezenet_needs_no_file_and_others_say_what_to_do() -> None:
    """The bundled weights tell a picture from noise; what is not bundled is asked for."""
    network = FeatureNetwork("squeezenet")
    assert len(network(torch.rand(1, 3, 64, 64))) == 7
    assert all(torch.isfinite(value).all() for value in network.state_dict().values())
    with pytest.raises(InputError, match="alexnet features need their weights"):
        FeatureNetwork("alexnet")


def test_least_squares_gan() -> None:
    one, zero = torch.ones(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    assert discriminator_loss(one, zero).item() == 0
    assert discriminator_loss(zero, one).item() == 2
    assert generator_loss(one).item() == 0
    assert generator_loss(zero).item() == 1


def test_feature_matching_gives_no_gradient_to_the_real_side() -> None:
    real, made = torch.rand(2, 3, requires_grad=True), torch.rand(2, 3, requires_grad=True)
    feature_matching([real], [made]).backward()
    assert real.grad is None
    assert made.grad is not None
