"""Both stages on small clips: they learn, hand over, survive kills, and refuse what does not fit."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from compiled_objectives import compiled_by
from dagan.data.pack import PackConfig, pack
from dagan.errors import InputError
from dagan.models.depth import DepthNetwork
from dagan.train.depth import DepthStage, save_depth
from dagan.train.gan import GanStage
from dagan.train.recipe import DepthRecipe, GanRecipe, read_recipe
from dagan.train.training import Result, train
from dagan.weights.files import read_card, read_model, read_tensors, write_tensors
from killed_runs import KILLS, dagan_command, kill, started, succeed, wait_until
from run_files import assert_same, lines, trained_parts

RECIPES = Path(__file__).parents[2] / "recipes"
QUIET = Console(quiet=True)


def _depth(clips: Path, output: Path, *settings: str, start: str = "auto") -> Result:
    recipe = read_recipe(DepthRecipe, RECIPES / "tiny-depth.yaml", [f"data.train={clips}", f"output={output}", *settings])
    return train(recipe, DepthStage, start, QUIET)


def _gan(clips: Path, output: Path, depth: Path, *settings: str, start: str = "auto") -> Result:
    recipe = read_recipe(GanRecipe, RECIPES / "tiny-gan.yaml", [*_gan_settings(clips, output, depth), *settings])
    return train(recipe, GanStage, start, QUIET)


def _gan_settings(clips: Path, output: Path, depth: Path) -> list[str]:
    return [f"data.train={clips}", f"output={output}", f"depth_weights={depth}"]


@pytest.fixture(scope="module")
def depth_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A depth network of the tiny recipe as it is before training."""
    path = tmp_path_factory.mktemp("depth") / "depth.safetensors"
    torch.manual_seed(0)
    save_depth(path, DepthNetwork(read_recipe(DepthRecipe, RECIPES / "tiny-depth.yaml").model), {})
    return path


def test_stage_1_writes_what_stage_2_takes(clips_folder: Path, tmp_path: Path) -> None:
    first = _depth(clips_folder, tmp_path / "depth", "max_steps=10")
    assert first.weights.name == "depth.safetensors"
    figures = lines(tmp_path / "depth")
    assert {"depth/total", "depth/monitor/explained", "lr/depth"} <= figures[0].keys()
    assert any("validation/monitor/explained" in line for line in figures)
    second = _gan(clips_folder, tmp_path / "gan", first.weights, "max_steps=8", "picture_every=4", "validate_every=4")
    named = {key for line in lines(tmp_path / "gan") for key in line}
    assert {"validation/l1", "validation/psnr", "validation/ssim", "validation/still_l1"} <= named
    assert (tmp_path / "gan" / "pictures" / "transfer-00000008.png").is_file()
    model = read_model(second.weights)
    assert model.depth_network is not None
    # The depth network of stage 1 is frozen: averaging and training leave it as it was.
    depth = load_file(first.weights)
    for key, value in model.depth_network.state_dict().items():
        assert torch.equal(value, depth[key]), key
    out = model(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64)).output.image
    assert out.shape == (1, 3, 64, 64)
    assert 0 <= out.min() <= out.max() <= 1
    card = json.dumps(read_card(second.weights))
    assert '"steps": 8' in card
    assert str(tmp_path) not in card, "folders of the machine stay on it"
    assert str(clips_folder) not in card


@pytest.mark.slow
def test_generator_learns(clips_folder: Path, depth_weights: Path, tmp_path: Path) -> None:
    settings = ("max_steps=60", "loss.adversarial=0", "loss.equivariance_value=0", "loss.equivariance_jacobian=0", "optimiser.lr=5e-3")
    _gan(clips_folder, tmp_path, depth_weights, *settings, "log_every=10", "validate_every=5", "picture_every=100")
    log = lines(tmp_path)
    l1 = [line["validation/l1"] for line in log if "validation/l1" in line]
    assert len(l1) == 12
    # About 0.9, a little above or below by how sums are rounded in threads.
    assert l1[-1] < 0.93 * l1[0]
    training = [line["generator/l1"] for line in log if "generator/l1" in line]
    assert sum(training[-3:]) / 3 < 0.85 * training[0]
    assert not any("discriminator/total" in line for line in log)


def test_discriminator_starts_when_told(clips_folder: Path, depth_weights: Path, tmp_path: Path) -> None:
    _gan(clips_folder, tmp_path, depth_weights, "max_steps=4", "log_every=1", "loss.adversarial_start=2")
    names = ("discriminator/total", "generator/adversarial")
    adversary = {line["step"]: tuple(name in line for name in names) for line in lines(tmp_path) if "minutes" in line}
    assert adversary == {1: (False, False), 2: (False, False), 3: (True, True), 4: (True, True)}


def _process(clips: Path, output: Path, depth: Path) -> AbstractContextManager[subprocess.Popen[str]]:
    return started(dagan_command("train", "gan", RECIPES / "tiny-gan.yaml", *_gan_settings(clips, output, depth), *KILLED))


# A checkpoint after every step; the adversary joins half-way.
KILLED = (
    f"max_steps={2 * KILLS + 8}", "checkpoint_minutes=0", "accumulate=2", "optimiser.schedule=cosine", "loss.adversarial_start=6",
    "batch_size=2",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_killed_and_resumed_run_is_the_uninterrupted_one(clips_folder: Path, depth_weights: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    with _process(clips_folder, whole, depth_weights) as process:
        succeed(process)
    moment = random.Random(4)
    for reached in range(1, 2 * KILLS, 2):
        with _process(clips_folder, parts, depth_weights) as process:
            # Wait for the run to pass a step, then kill it at any moment of the next ones.
            _wait_for(parts, reached, process)
            time.sleep(moment.uniform(0, 0.2))
            assert kill(process), "the run was over before it was killed"
    with _process(clips_folder, parts, depth_weights) as process:
        succeed(process)
    assert_same(trained_parts(whole), trained_parts(parts))
    assert_same(load_file(whole / "model.safetensors"), load_file(parts / "model.safetensors"))
    keep = ("step", "generator/total", "discriminator/total", "validation/l1")
    assert _shorten(lines(whole), keep)[-1:] == _shorten(lines(parts), keep)[-1:]
    assert [line["step"] for line in lines(parts)] == [line["step"] for line in lines(whole)]
    assert sorted(p.name for p in parts.iterdir()) == sorted(p.name for p in whole.iterdir())


def _shorten(log: Sequence[dict[str, Any]], keep: Sequence[str]) -> list[dict[str, Any]]:
    return [{k: line[k] for k in keep if k in line} for line in log]


def _wait_for(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    weights = folder / "model.safetensors"  # Cheaper to read than the checkpoint, and written right after it.
    assert wait_until(lambda: weights.is_file() and read_card(weights)["steps"] >= step, process), f"step {step} was not reached"


@pytest.mark.slow
def test_compiled_objectives_take_the_same_steps(
    clips_folder: Path, depth_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are traced and differentiated ahead of time, as for any device, but no machine code is made, which takes minutes."""
    compiled = compiled_by(monkeypatch, "aot_eager")
    settings = ("max_steps=2", "log_every=1", "loss.adversarial_start=1", "validation_samples=2", "batch_size=2")
    found = []
    for name in ("plain", "compiled"):
        _gan(clips_folder, tmp_path / name, depth_weights, *settings, f"compile={name == 'compiled'}".lower())
        found.append({k: v for line in lines(tmp_path / name) for k, v in line.items() if k.endswith("/total")})
    assert {"DiscriminatorObjective", "GanObjective"} <= set(compiled)
    assert found[1].keys() == found[0].keys() >= {"generator/total", "discriminator/total"}
    for key, value in found[0].items():
        assert found[1][key] == pytest.approx(value, rel=1e-3), key


def test_start_from_a_model_of_another_size(clips_folder: Path, depth_weights: Path, tmp_path: Path) -> None:
    small = _gan(clips_folder, tmp_path / "64", depth_weights, "max_steps=2")
    larger = ("data.size=128", "model.image_size=128", "model.name=tiny-128", "max_steps=1", "optimiser.lr=1e-9", "augment.flip=0")
    recipe = ["depth_weights=null", f"init_from={small.weights}", f"data.train={clips_folder}", f"output={tmp_path / '128'}", *larger]
    large = train(read_recipe(GanRecipe, RECIPES / "tiny-gan.yaml", recipe), GanStage, "auto", QUIET)
    before, after = load_file(small.weights), load_file(large.weights)
    weights = [k for k in before if k.endswith(("conv.weight", "heatmap.weight"))]
    assert weights
    for key in weights:
        assert torch.allclose(before[key], after[key], atol=1e-6), key
    assert read_model(large.weights).config.image_size == 128


def test_a_better_depth_network_takes_the_place_of_the_models(clips_folder: Path, depth_weights: Path, tmp_path: Path) -> None:
    first = _gan(clips_folder, tmp_path / "first", depth_weights, "max_steps=1")
    tensors, metadata = read_tensors(depth_weights)
    better = tmp_path / "better.safetensors"
    write_tensors(better, {k: v + 0.5 if k.endswith("conv.bias") else v for k, v in tensors.items()}, metadata)
    second = _gan(clips_folder, tmp_path / "second", better, f"init_from={first.weights}", "max_steps=1")
    wanted, found = load_file(better), load_file(second.weights)
    depth = [k for k in found if k.startswith("depth_network.")]
    assert depth
    for key in depth:
        assert torch.equal(found[key], wanted[key.removeprefix("depth_network.")]), key


def test_a_discriminator_kept_in_the_file_is_taken_up(clips_folder: Path, depth_weights: Path, tmp_path: Path) -> None:
    first = _gan(clips_folder, tmp_path / "first", depth_weights, "max_steps=1", "seed=1")
    kept = torch.load(tmp_path / "first" / "last.ckpt", weights_only=True)["modules"]["discriminator"]
    tensors, metadata = read_tensors(first.weights)
    whole = tmp_path / "whole.safetensors"
    write_tensors(whole, tensors | {f"discriminator.{key}": value.contiguous() for key, value in kept.items()}, metadata)
    _gan(clips_folder, tmp_path / "second", depth_weights, f"init_from={whole}", "max_steps=1", "optimiser.lr=1e-12", "seed=2")
    again = torch.load(tmp_path / "second" / "last.ckpt", weights_only=True)["modules"]["discriminator"]
    assert all(torch.allclose(kept[key], again[key], atol=1e-6) for key in kept)


def test_weights_that_do_not_fit_are_named(clips_folder: Path, depth_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"depth\.safetensors does not fit the recipe's depth network"):
        _gan(clips_folder, tmp_path, depth_weights, "model.depth.encoder_widths=[8,8,12,16,32]")
    with pytest.raises(InputError, match=r"nothing\.safetensors does not exist"):
        _gan(clips_folder, tmp_path, tmp_path / "nothing.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"other\.safetensors does not fit the recipe's model"):
        _gan(clips_folder, tmp_path / "out", depth_weights, f"init_from={tmp_path / 'other.safetensors'}")
    with pytest.raises(InputError, match="data folder missing does not exist"):
        _gan(Path("missing"), tmp_path / "out", depth_weights)


def test_stages_do_not_continue_each_other(clips_folder: Path, depth_weights: Path, tmp_path: Path) -> None:
    _gan(clips_folder, tmp_path, depth_weights, "max_steps=1")
    with pytest.raises(InputError, match="is of stage 'gan', not 'depth'"):
        _depth(clips_folder, tmp_path)
    with pytest.raises(InputError, match=r"another network \(model\.keypoints\.count: 4 -> 5\)"):
        _gan(clips_folder, tmp_path, depth_weights, "model.keypoints.count=5")


def test_rgb_twin_needs_no_depth(clips_folder: Path, tmp_path: Path) -> None:
    settings = ["model.use_depth=false", "depth_weights=null", "max_steps=2", "data.hold_out=0"]
    recipe = [*settings, f"data.train={clips_folder}", f"output={tmp_path}"]
    result = train(read_recipe(GanRecipe, RECIPES / "tiny-gan.yaml", recipe), GanStage, "auto", QUIET)
    assert read_model(result.weights).depth_network is None


@pytest.mark.parametrize("order", ["random", "epochs"])
def test_both_stages_train_from_shards(clips_folder: Path, depth_weights: Path, tmp_path: Path, order: str) -> None:
    pack(clips_folder, tmp_path / "shards", PackConfig(size=64, landmarks=False, shard_bytes=100_000))
    settings = (f"data.order={order}", "data.balance=clip", "max_steps=4", "log_every=4", "data.workers=2")
    _depth(tmp_path / "shards", tmp_path / "depth", *settings, "sampling.min_motion=0.02")
    assert lines(tmp_path / "depth")[-1]["step"] == 4
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    _gan(tmp_path / "shards", whole, depth_weights, *settings)
    _gan(tmp_path / "shards", parts, depth_weights, *settings, "max_steps=1")
    _gan(tmp_path / "shards", parts, depth_weights, *settings, start="resume")
    assert_same(trained_parts(whole), trained_parts(parts))
