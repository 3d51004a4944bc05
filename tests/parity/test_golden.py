"""Our networks on the recipe's weights meet the golden outputs of the released architecture."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from rebuild import released_state

from dagan.animate.transfer import transfer
from dagan.config import DepthConfig, preset
from dagan.models.dagan import DaGAN, Output
from dagan.models.depth import DepthNetwork
from dagan.models.discriminator import Discriminator
from dagan.models.keypoints import Keypoints
from dagan.weights.released import from_released

TOLERANCE = 1e-3


def close(actual: torch.Tensor, expected: np.ndarray) -> None:
    assert tuple(actual.shape) == expected.shape
    assert np.abs(actual.detach().numpy() - expected).max() < TOLERANCE


def thinned(x: torch.Tensor) -> torch.Tensor:
    return x[..., ::4, ::4]


def released_model(name: str, generator: str) -> DaGAN:
    model = DaGAN(replace(preset(name), align_corners=False))
    state = {}
    for part, module in (("depth_encoder", "depth_encoder_18"), ("depth_decoder", "depth_decoder_18"), ("kp_detector", "kp_detector"), ("generator", generator)):
        state |= from_released(part, released_state(module))
    model.load_state_dict(state)
    return model.eval()


@pytest.fixture(scope="module")
def paper() -> DaGAN:
    return released_model("paper-256", "generator")


@pytest.fixture(scope="module")
def keypoints(paper: DaGAN, images: dict[str, torch.Tensor]) -> dict[str, Keypoints]:
    return {name: paper.keypoints(image) for name, image in images.items()}


@pytest.mark.parametrize("depth", [18, 50])
def test_depth(depth: int, golden: dict[str, np.ndarray], images: dict[str, torch.Tensor]) -> None:
    network = DepthNetwork(DepthConfig(encoder=f"resnet{depth}"))
    state = from_released("depth_encoder", released_state(f"depth_encoder_{depth}")) | from_released(
        "depth_decoder", released_state(f"depth_decoder_{depth}")
    )
    network.load_state_dict({key.removeprefix("depth_network."): value for key, value in state.items()})
    with torch.inference_mode():
        disparities = network.eval()(images["source"])
    for scale, disparity in enumerate(disparities):
        close(thinned(disparity[0, 0]) if scale == 0 else disparity[0, 0], golden[f"depth{depth}/disp_{scale}"])


@pytest.mark.parametrize("name", ["source", "driving", "initial"])
def test_keypoints(name: str, keypoints: dict[str, Keypoints], golden: dict[str, np.ndarray]) -> None:
    close(keypoints[name].value[0], golden[f"kp/{name}/value"])
    close(keypoints[name].jacobian[0], golden[f"kp/{name}/jacobian"])


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("adapt", [False, True])
def test_transfer(relative: bool, adapt: bool, keypoints: dict[str, Keypoints], golden: dict[str, np.ndarray]) -> None:
    moved = transfer(keypoints["source"], keypoints["driving"], keypoints["initial"], relative=relative, adapt_scale=adapt)
    key = f"transfer/relative{relative:d}_adapt{adapt:d}"
    close(moved.value[0], golden[f"{key}/value"])
    close(moved.jacobian[0], golden[f"{key}/jacobian"])


def check_output(out: Output, prefix: str, golden: dict[str, np.ndarray]) -> None:
    close(thinned(out.image[0]), golden[f"{prefix}/prediction"])
    close(out.occlusion[0, 0], golden[f"{prefix}/occlusion_map"])
    close(thinned(out.mask[0]), golden[f"{prefix}/mask"])
    close(out.deformation[0, ::4, ::4], golden[f"{prefix}/deformation"])


def test_paper_generator(paper: DaGAN, images: dict[str, torch.Tensor], keypoints: dict[str, Keypoints], golden: dict[str, np.ndarray]) -> None:
    check_output(paper.drive(paper.encode_source(images["source"]), keypoints["driving"]), "generator", golden)


def test_spade_generator(images: dict[str, torch.Tensor], keypoints: dict[str, Keypoints], golden: dict[str, np.ndarray]) -> None:
    model = released_model("paper-spade-256", "spade_generator")
    check_output(model.drive(model.encode_source(images["source"]), keypoints["driving"]), "spade_generator", golden)


def test_discriminator(images: dict[str, torch.Tensor], keypoints: dict[str, Keypoints], golden: dict[str, np.ndarray]) -> None:
    network = Discriminator(15)
    network.load_state_dict(from_released("discriminator", released_state("discriminator")))
    with torch.inference_mode():
        features, prediction = network.eval()(images["driving"], keypoints["driving"].value)
    close(prediction[0, 0], golden["discriminator/prediction_map"])
    for i, feature in enumerate(features):
        close(feature[0].mean((1, 2)), golden[f"discriminator/feature_{i}_mean"])
