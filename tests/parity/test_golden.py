"""Released files, converted and loaded, meet the golden outputs of the released architecture.

Largest differences on a CPU (`pytest -s tests/parity` prints each array's), where 1e-3 is allowed:
disparities 1.4e-6 (ResNet-18) and 5.4e-6 (ResNet-50); keypoints 7.6e-7, Jacobians 2.4e-7; transfer in four modes 9.1e-7;
decoder A: picture 2.0e-6, deformation 3.6e-7, mask 6.9e-7, occlusion 1.6e-6; SPADE: 1.5e-5, 3.6e-7, 8.2e-7, 1.4e-6;
discriminator: prediction 1.6e-5, features 2.4e-7. Folded and unfolded networks differ by no more.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rebuild import LAYOUT
from released_files import ReleasedFiles, full_depth, random_model, released_states, small_config, write

from dagan.config import DepthConfig, preset
from dagan.models.dagan import DaGAN, Output
from dagan.models.generator import Discriminator
from dagan.models.keypoints import Keypoints
from dagan.motion.transfer import transfer
from dagan.weights import fold, load_released
from dagan.weights.convert import load_discriminator, released_files

TOLERANCE = 1e-3
FOLDED_TOLERANCE = 1e-4
Check = Callable[[str, torch.Tensor], None]


@pytest.fixture
def check(golden: dict[str, np.ndarray], largest: dict[str, float]) -> Check:
    def compare(name: str, actual: torch.Tensor) -> None:
        expected = golden[name]
        assert tuple(actual.shape) == expected.shape
        difference = float(np.abs(actual.detach().numpy() - expected).max())
        largest[name] = max(difference, largest.get(name, 0.0))
        assert difference < TOLERANCE

    return compare


def thinned(x: torch.Tensor) -> torch.Tensor:
    return x[..., ::4, ::4]


@pytest.fixture(scope="module")
def keypoints(paper: DaGAN, images: dict[str, torch.Tensor]) -> dict[str, Keypoints]:
    return {name: paper.keypoints(image) for name, image in images.items()}


def check_depth(resnet: int, model: DaGAN, image: torch.Tensor, check: Check) -> None:
    assert model.depth_network is not None
    for network in (model.depth_network, fold(model).depth_network):
        with torch.inference_mode():
            disparities = network(image)
        for scale, disparity in enumerate(disparities):
            check(f"depth{resnet}/disp_{scale}", thinned(disparity[0, 0]) if scale == 0 else disparity[0, 0])


def test_depth_18(paper: DaGAN, images: dict[str, torch.Tensor], check: Check) -> None:
    check_depth(18, paper, images["source"], check)


def test_depth_50(images: dict[str, torch.Tensor], check: Check, tmp_path: Path) -> None:
    """The depth network at full size, beside a small generator."""
    small = released_states(random_model(small_config()))
    files = write(tmp_path, small | full_depth(50))
    model = load_released(files.checkpoint, files.depth_dir, device="cpu", precision="float32", image_size=64)
    assert model.config.depth == DepthConfig(encoder="resnet50")
    check_depth(50, model, images["source"], check)


def test_detected_configurations(paper: DaGAN, spade: DaGAN) -> None:
    assert paper.config == replace(preset("paper-256"), name="released-256", align_corners=False)
    assert spade.config == replace(preset("paper-spade-256"), name="released-spade-256", align_corners=False)


@pytest.mark.parametrize("name", ["source", "driving", "initial"])
def test_keypoints(name: str, keypoints: dict[str, Keypoints], check: Check) -> None:
    check(f"kp/{name}/value", keypoints[name].value[0])
    check(f"kp/{name}/jacobian", keypoints[name].jacobian[0])


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("adapt", [False, True])
def test_transfer(relative: bool, adapt: bool, keypoints: dict[str, Keypoints], check: Check) -> None:
    source, driving, initial = (keypoints[name] for name in ("source", "driving", "initial"))
    moved = transfer(source, driving, initial, relative=relative, adapt_scale=adapt, limit_motion=False)
    check(f"transfer/relative{relative:d}_adapt{adapt:d}/value", moved.value[0])
    check(f"transfer/relative{relative:d}_adapt{adapt:d}/jacobian", moved.jacobian[0])


def check_agreement(folded: Output, plain: Output) -> None:
    for name in ("image", "occlusion", "mask", "deformation"):
        assert (getattr(folded, name) - getattr(plain, name)).abs().max() < FOLDED_TOLERANCE, name


def check_output(out: Output, prefix: str, check: Check) -> None:
    check(f"{prefix}/prediction", thinned(out.image[0]))
    check(f"{prefix}/occlusion_map", out.occlusion[0, 0])
    check(f"{prefix}/mask", thinned(out.mask[0]))
    check(f"{prefix}/deformation", out.deformation[0, ::4, ::4])


def test_paper_generator(paper: DaGAN, images: dict[str, torch.Tensor], keypoints: dict[str, Keypoints], check: Check) -> None:
    """As it is and folded, both meet the golden arrays, and each other more closely."""
    folded = fold(paper)
    outputs = [model.drive(model.encode_source(images["source"]), keypoints["driving"]) for model in (paper, folded)]
    for out in outputs:
        check_output(out, "generator", check)
    check_agreement(*outputs)
    found = folded.keypoints(images["driving"])
    assert (found.value - keypoints["driving"].value).abs().max() < FOLDED_TOLERANCE
    assert (found.jacobian - keypoints["driving"].jacobian).abs().max() < FOLDED_TOLERANCE


def test_spade_generator(spade: DaGAN, images: dict[str, torch.Tensor], keypoints: dict[str, Keypoints], check: Check) -> None:
    check_output(spade.drive(spade.encode_source(images["source"]), keypoints["driving"]), "spade_generator", check)


def test_folded_spade_decoder_agrees(spade: DaGAN, images: dict[str, torch.Tensor]) -> None:
    """At full width, on a sixteenth of the area: this decoder takes most of the time of these tests."""
    features = [torch.randn(1, 256, 16, 16, generator=torch.Generator().manual_seed(0))]
    small = images["source"][..., ::4, ::4]
    with torch.inference_mode():
        plain, folded = (model.generator.decoder(features, small) for model in (spade, fold(spade)))
    assert (plain - folded).abs().max() < FOLDED_TOLERANCE


def test_discriminator(paper_file: Path, images: dict[str, torch.Tensor], keypoints: dict[str, Keypoints], check: Check) -> None:
    network = Discriminator(15)
    assert load_discriminator(network, paper_file)
    with torch.inference_mode():
        features, prediction = network.eval()(images["driving"], keypoints["driving"].value)
    check("discriminator/prediction_map", prediction[0, 0])
    for i, feature in enumerate(features):
        check(f"discriminator/feature_{i}_mean", feature[0].mean((1, 2)))


def test_every_golden_array_was_met(golden: dict[str, np.ndarray], largest: dict[str, float], request: pytest.FixtureRequest) -> None:
    """Stands last in the file; in a run of the whole file nothing of the golden arrays is left over."""
    ran = {item.originalname for item in request.session.items if item.path == Path(__file__)}  # type: ignore[attr-defined]
    if {name for name in globals() if name.startswith("test_")} <= ran:
        assert largest.keys() == golden.keys()
    assert all(difference < TOLERANCE for difference in largest.values())


def test_full_size_files_come_back_tensor_for_tensor(paper_files: ReleasedFiles, paper_file: Path) -> None:
    back = released_files(paper_file)
    checkpoint = back["checkpoint.pth.tar"]
    parts = {"depth_encoder": back["encoder.pth"], "depth_decoder": back["depth.pth"], **checkpoint}
    assert checkpoint["epoch"] == 99
    for part, state in paper_files.states.items():
        assert parts[part].keys() == state.keys()
        for key, value in state.items():
            same = torch.equal(parts[part][key], value) if isinstance(value, torch.Tensor) else parts[part][key] == value
            assert same, key


@pytest.mark.parametrize("generator", ["generator", "spade_generator"])
def test_key_names_are_those_of_the_published_layout(generator: str, paper: DaGAN, spade: DaGAN) -> None:
    """Independent of any file: what our networks would write has exactly the keys and shapes of the layout."""
    states = released_states(paper if generator == "generator" else spade, Discriminator(15))
    layouts = {part: f"{part}_18" if part.startswith("depth") else part for part in states} | {"generator": generator}
    for part, layout in layouts.items():
        assert {key: list(tensor.shape) for key, tensor in states[part].items()} == {key: shape for key, shape, _ in LAYOUT[layout]}
