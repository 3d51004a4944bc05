import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dagan.checks import dump
from dagan.errors import InputError
from dagan.models.dagan import DaGAN
from dagan.weights import load, read_card, read_model, save_model
from tiny import TINY


@pytest.fixture
def model() -> DaGAN:
    torch.manual_seed(0)
    return DaGAN(TINY).eval()


def test_round_trip_keeps_weights_configuration_and_card(model: DaGAN, tmp_path: Path) -> None:
    save_model(tmp_path / "m.safetensors", model, {"steps": 3})
    again = read_model(tmp_path / "m.safetensors")
    assert again.config == model.config
    assert not again.training
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    assert read_card(tmp_path / "m.safetensors") == {"steps": 3}
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_half_precision_file_is_half_the_size_and_close(model: DaGAN, tmp_path: Path) -> None:
    save_model(tmp_path / "full.safetensors", model)
    save_model(tmp_path / "half.safetensors", model, dtype=torch.float16)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * (tmp_path / "full.safetensors").stat().st_size
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(read_model(tmp_path / "half.safetensors").depth(image), model.depth(image), atol=5e-3, rtol=0)


def test_load_places_and_sets_precision(model: DaGAN, tmp_path: Path) -> None:
    save_model(tmp_path / "m.safetensors", model)
    loaded = load(tmp_path / "m.safetensors", device="cpu", precision="bfloat16")
    assert loaded.compute_dtype == torch.bfloat16
    assert next(loaded.parameters()).device.type == "cpu"


def damaged(kind: str, path: Path, model: DaGAN) -> None:
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    note = {"format": 1, "config": dump(model.config), "card": {}}
    if kind == "truncated":
        save_model(path, model)
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == "pickle":
        torch.save(state, path)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("hello" * 100)
    elif kind == "huge header":
        path.write_bytes((2**62).to_bytes(8, "little") + b"{}" * 100)
    elif kind == "foreign":
        save_file(state, path)
    elif kind == "future":
        save_file(state, path, {"dagan": json.dumps(note | {"format": 99})})
    elif kind == "bad note":
        save_file(state, path, {"dagan": "{"})
    elif kind == "unknown key":
        save_file(state, path, {"dagan": json.dumps(note | {"config": {"imagesize": 64}})})
    elif kind == "missing key":
        state.pop("generator.attention.gamma")
        save_file(state, path, {"dagan": json.dumps(note)})
    elif kind == "extra key":
        save_file(state | {"more": torch.zeros(1)}, path, {"dagan": json.dumps(note)})
    elif kind == "shape":
        state["keypoint_detector.heatmap.bias"] = torch.zeros(7)
        save_file(state, path, {"dagan": json.dumps(note)})


@pytest.mark.parametrize(
    ("kind", "says"),
    [("absent", "does not exist"), ("truncated", "damaged"), ("pickle", "pickled checkpoint"), ("empty", "not a readable"),
     ("text", "not a readable"), ("huge header", "not a readable"), ("foreign", "no dagan configuration"), ("future", "format 99"),
     ("bad note", "configuration is damaged"), ("unknown key", "image_size"), ("missing key", r"1 missing: generator\.attention\.gamma"),
     ("extra key", "1 unexpected: more"), ("shape", r"heatmap\.bias is \(7,\), not \(5,\)")],
)  # fmt: skip
def test_damaged_files_give_one_clear_sentence(kind: str, says: str, model: DaGAN, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    damaged(kind, path, model)
    with pytest.raises(InputError, match=says) as caught:
        read_model(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "says"), [("lite-255", "no model is called"), ("nowhere/model.safetensors", "does not exist")])
def test_unknown_models_are_refused(name: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        load(name)


@pytest.mark.parametrize(("option", "value"), [("device", "tpu9"), ("device", "cuda:77"), ("precision", "int3")])
def test_unknown_devices_and_precisions_are_refused(option: str, value: str, model: DaGAN, tmp_path: Path) -> None:
    save_model(tmp_path / "m.safetensors", model)
    with pytest.raises(InputError, match=value):
        load(tmp_path / "m.safetensors", **{option: value})
