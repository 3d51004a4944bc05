"""Released files into model files and back: what is found, what is kept, and the command."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from released_files import ReleasedFiles, random_model, released_states, small_config, write, write_small

import dagan
from dagan import cli
from dagan.config import DepthConfig, GeneratorConfig, ModelConfig
from dagan.errors import InputError
from dagan.models.dagan import DaGAN
from dagan.models.generator import Discriminator
from dagan.weights import load, read_card, read_model, save_model
from dagan.weights.convert import load_discriminator, read_released, released_files, save_released
from dagan.weights.files import load_weights, read_tensors

KINDS = [("residual", True), ("residual", False), ("spade", True), ("spade", False)]


def images(batch: int, seed: int = 0) -> torch.Tensor:
    small = torch.rand(batch, 3, 9, 9, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(small, size=(64, 64), mode="bilinear", align_corners=True)


def convert(files: ReleasedFiles, path: Path, **how: Any) -> Path:
    save_released(path, read_released(files.checkpoint, files.depth_dir, image_size=64, **how), "a test")
    return path


def assert_same(states: dict[str, dict[str, Any]], path: Path) -> None:
    """The model file gives back every key, type and byte."""
    back = released_files(path)
    assert back["checkpoint.pth.tar"]["epoch"] == 99
    parts = {**back["checkpoint.pth.tar"], "depth_encoder": back.get("encoder.pth"), "depth_decoder": back.get("depth.pth")}
    for part, state in states.items():
        assert parts[part].keys() == state.keys()
        for key, value in state.items():
            if isinstance(value, torch.Tensor):
                assert parts[part][key].dtype == value.dtype
                assert parts[part][key].shape == value.shape
                assert parts[part][key].numpy().tobytes() == value.numpy().tobytes(), key
            else:
                assert parts[part][key] == value


@pytest.mark.parametrize(
    "config",
    [
        replace(small_config(use_depth=False), keypoints=replace(small_config().keypoints, count=10, kernel=5)),
        replace(small_config(use_depth=False), generator=GeneratorConfig(width=8, downs=3, blocks=1)),
        replace(small_config(use_depth=False), motion_size=32),
        replace(small_config(use_depth=False), motion=replace(small_config().motion, kernel=3)),
    ],
    ids=["keypoints", "generator", "factor", "motion"],
)
def test_other_settings_are_found_too(config: ModelConfig, tmp_path: Path) -> None:
    files = write(tmp_path, released_states(random_model(config)))
    assert read_released(files.checkpoint, image_size=64).config == config


@pytest.mark.parametrize(("decoder", "use_depth"), KINDS)
def test_configuration_is_found_and_every_tensor_kept(decoder: str, use_depth: bool, tmp_path: Path) -> None:
    wrapped = ("generator", "depth_encoder") if use_depth else ()
    files = write_small(tmp_path, decoder, use_depth=use_depth, wrapped=wrapped, legacy=not use_depth)
    released = read_released(files.checkpoint, files.depth_dir, image_size=64, with_discriminator=True)
    assert released.config == small_config(decoder, use_depth=use_depth)
    assert released.has_discriminator
    save_released(tmp_path / "m.safetensors", released, "a test")
    assert_same(files.states, tmp_path / "m.safetensors")


def test_round_trip_keeps_half_precision_and_odd_values(tmp_path: Path) -> None:
    states = released_states(random_model(small_config(use_depth=False)))
    states["generator"] = {key: t.half() if t.is_floating_point() else t for key, t in states["generator"].items()}
    states["kp_detector"]["kp.bias"] = states["kp_detector"]["kp.bias"].double() / 3
    # One memory for two tensors, and one that is not contiguous.
    states["kp_detector"]["jacobian.weight"] = states["kp_detector"]["jacobian.weight"].transpose(2, 3)
    states["generator"]["first.norm.bias"] = states["generator"]["first.conv.bias"]
    files = write(tmp_path, states)
    path = convert(files, tmp_path / "m.safetensors")
    assert_same(files.states, path)
    assert next(read_model(path).parameters()).dtype == torch.float32


@pytest.mark.parametrize(("decoder", "use_depth"), [("residual", True), ("spade", False)])
def test_loaded_model_computes_what_was_saved(decoder: str, use_depth: bool, tmp_path: Path) -> None:
    """By `load_released` and by `load` of the converted file."""
    saved = random_model(small_config(decoder, use_depth=use_depth))
    files = write(tmp_path, released_states(saved))
    path = convert(files, tmp_path / "m.safetensors")
    for model in (
        dagan.load_released(files.checkpoint, files.depth_dir, device="cpu", precision="float32", image_size=64),
        load(path, device="cpu", precision="float32"),
    ):
        assert not model.training
        assert not model.config.align_corners
        out = model.drive(model.encode_source(images(1)), model.keypoints(images(2, 1)))
        assert torch.equal(out.image, saved.drive(saved.encode_source(images(1)), saved.keypoints(images(2, 1))).image)


def test_discriminator_is_kept_for_fine_tuning(tmp_path: Path) -> None:
    files = write_small(tmp_path, use_depth=False)
    network = Discriminator(4, width=8, max_width=16)
    assert not load_discriminator(network, convert(files, tmp_path / "without.safetensors"))
    path = convert(files, tmp_path / "with.safetensors", with_discriminator=True)
    assert load_discriminator(network, path)
    assert torch.equal(network.final.weight, files.states["discriminator"]["discs.1.conv.weight"])
    with pytest.raises(InputError, match=r"with\.safetensors does not fit this one: .*convs\.2\.bias is \(16,\), not \(32,\)"):
        load_discriminator(Discriminator(4, width=8, max_width=32), path)
    # The model alone takes its own tensors from the file, as fine-tuning does.
    model = DaGAN(small_config(use_depth=False))
    load_weights(model, read_tensors(path)[0], "the file")
    assert torch.equal(model.dense_motion.mask.bias, files.states["generator"]["dense_motion_network.mask.bias"])


def test_models_trained_here_can_be_released(tmp_path: Path) -> None:
    """Without a note of released files: blur kernels are made, and what we never had is left out."""
    model = random_model(small_config())
    save_model(tmp_path / "m.safetensors", model)
    for name, content in released_files(tmp_path / "m.safetensors").items():
        torch.save(content, tmp_path / name)
    again = dagan.load_released(tmp_path / "checkpoint.pth.tar", tmp_path, device="cpu", precision="float32", image_size=64)
    assert again.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"align_corners": True}, "align_corners is True, those have False"),
        ({"generator": GeneratorConfig(decoder="pyramid", width=8, max_width=16)}, "decoder is pyramid, those have residual or spade"),
        ({"generator": GeneratorConfig(width=8, max_width=16, align_depth=True)}, "align_depth is True"),
        ({"use_depth": True, "depth": DepthConfig(encoder="lite", encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)}, "encoder is lite"),
        ({"use_depth": True, "depth": DepthConfig(decoder_widths=(8,) * 5, size=64)}, "depth.size is 64, those have None"),
    ],
)
def test_models_that_the_released_networks_cannot_compute_stay_here(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    save_model(tmp_path / "m.safetensors", DaGAN(replace(small_config(use_depth=False), **change)))
    with pytest.raises(InputError, match=says):
        released_files(tmp_path / "m.safetensors")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["dagan", "convert", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_command_converts_and_goes_back(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    files = write_small(tmp_path / "released", wrapped=("kp_detector",))
    output = tmp_path / "new" / "m.safetensors"
    there = (files.checkpoint, "--depth-dir", files.depth_dir, "-o", output, "--image-size", 64, "--with-discriminator")
    assert run(monkeypatch, *there) == 0
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    for word in ("released-64", "residual", "4 keypoints", "resnet18", "discriminator"):
        assert word in said
    assert "model.pth.tar" in read_card(output)["source"]
    assert run(monkeypatch, *there) == 2  # it exists
    assert run(monkeypatch, *there, "--overwrite") == 0
    back = (output, "--to-released", tmp_path / "back")
    assert run(monkeypatch, *back) == 0
    assert names(tmp_path / "back") == ["checkpoint.pth.tar", "depth.pth", "encoder.pth"]
    assert names(tmp_path / "new") == ["m.safetensors"]
    written = torch.load(tmp_path / "back" / "encoder.pth", weights_only=True)
    assert written["use_stereo"] is False
    assert torch.equal(written["encoder.fc.weight"], files.states["depth_encoder"]["encoder.fc.weight"])
    assert run(monkeypatch, *back) == 2
    assert run(monkeypatch, *back, "--overwrite") == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("c.pth.tar",), "nothing to write"),
        (("c.pth.tar", "-o", "m.safetensors"), "c.pth.tar does not exist"),
        (("c.pth.tar", "-o", "m.pth"), "end it in .safetensors"),
        (("m.safetensors", "--to-released", "d"), "m.safetensors does not exist"),
        (("m.safetensors", "--to-released", "d", "-o", "n.safetensors"), "--to-released stands alone"),
    ],
)
def test_command_refuses_in_one_sentence(
    arguments: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert says in error
    assert names(tmp_path) == []


def test_image_size_must_fit(tmp_path: Path) -> None:
    files = write_small(tmp_path, use_depth=False)
    with pytest.raises(InputError, match="image_size is 100: must be a multiple of 32"):
        read_released(files.checkpoint, image_size=100)
    with pytest.raises(InputError, match="must be a multiple of 4"):
        read_released(files.checkpoint, image_size=62)


