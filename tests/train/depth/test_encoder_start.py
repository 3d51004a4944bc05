"""Stage 1 starts from ImageNet weights that a file of torchvision's ResNet holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dagan.config import DepthConfig
from dagan.errors import InputError
from dagan.models.depth import DepthNetwork, EgomotionConfig, EgomotionNetwork, build_encoder
from dagan.train.depth import start_encoder


@pytest.fixture(scope="module")
def imagenet() -> dict[str, torch.Tensor]:
    """Made-up weights of a ResNet-18 with its classifier, as files from before batches were counted have them."""
    torch.manual_seed(3)
    state = {k: torch.rand_like(v) for k, v in build_encoder(DepthConfig()).state_dict().items() if v.is_floating_point()}
    return state | {"fc.weight": torch.rand(1000, 512), "fc.bias": torch.rand(1000)}


@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_both_networks_start_from_the_file(kind: str, imagenet: dict[str, torch.Tensor], tmp_path: Path) -> None:
    file = tmp_path / f"resnet18.{kind}"
    save_file(imagenet, file) if kind == "safetensors" else torch.save(imagenet, file)
    depth, egomotion = DepthNetwork(DepthConfig()), EgomotionNetwork(EgomotionConfig())
    for encoder in (depth.encoder, egomotion.encoder):
        start_encoder(encoder, file, "resnet18")
        assert torch.equal(encoder.state_dict()["layer4.1.bn2.weight"], imagenet["layer4.1.bn2.weight"])
    assert torch.equal(depth.encoder.conv1.weight, imagenet["conv1.weight"])
    # Two equal frames give what one gives alone.
    frame = torch.rand(1, 3, 64, 64)
    single, double = (network.eval()(x) for network, x in ((depth.encoder, frame), (egomotion.encoder, torch.cat([frame, frame], dim=1))))
    torch.testing.assert_close(double[0], single[0], atol=1e-4, rtol=1e-4)


def test_files_that_do_not_fit_are_refused(imagenet: dict[str, torch.Tensor], tmp_path: Path) -> None:
    encoder = build_encoder(DepthConfig())
    with pytest.raises(InputError, match=r"missing\.pth does not exist: give the file of torchvision's resnet18 with ImageNet weights"):
        start_encoder(encoder, tmp_path / "missing.pth", "resnet18")
    save_file({k: v for k, v in imagenet.items() if not k.startswith("layer3")}, tmp_path / "part.safetensors")
    with pytest.raises(InputError, match=r"part\.safetensors does not fit torchvision's resnet18.*layer3"):
        start_encoder(encoder, tmp_path / "part.safetensors", "resnet18")
    torch.save([imagenet], tmp_path / "list.pth")
    with pytest.raises(InputError, match="holds no plain state dict"):
        start_encoder(encoder, tmp_path / "list.pth", "resnet18")
    torch.save({"run": print}, tmp_path / "code.pth")
    with pytest.raises(InputError, match=r"code\.pth cannot be read as weights"):
        start_encoder(encoder, tmp_path / "code.pth", "resnet18")
