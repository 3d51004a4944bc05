"""A converted released checkpoint is fine-tuned, with its discriminator, by the recipe that ships."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rich.console import Console

from dagan.engine.torch import TorchEngine
from dagan.errors import InputError
from dagan.train.gan import GanStage
from dagan.train.recipe import GanRecipe, read_recipe
from dagan.train.training import Result, train
from dagan.weights import read_model
from dagan.weights.convert import read_released, released_files, save_released
from dagan.weights.files import DISCRIMINATOR, read_tensors
from parity.released_files import small_config, write_small
from running_samples import moving_pictures

RECIPE = Path(__file__).parents[2] / "recipes" / "finetune.yaml"


def _converted(folder: Path, decoder: str, use_depth: bool, with_discriminator: bool = True) -> Path:
    files = write_small(folder / "released", decoder, use_depth=use_depth)
    released = read_released(files.checkpoint, files.depth_dir, image_size=64, with_discriminator=with_discriminator)
    save_released(folder / "released.safetensors", released, "test")
    return folder / "released.safetensors"


def _finetuned(clips: Path, file: Path, *settings: str, console: Console | None = None) -> Result:
    # Only what a small machine needs is changed; VGG-19's weights are not there.
    small = [
        f"init_from={file}", f"data.train={clips}", f"output={file.parent / 'run'}", "data.size=64", "batch_size=2", "max_steps=3",
        "loss.perceptual=0", "loss.l1=10", "discriminator_width=8", "discriminator_max_width=16", "accelerator=cpu", "threads=1",
        "log_every=1", "validate_every=10", "picture_every=10", "optimiser.warm_up=0", *settings,
    ]  # fmt: skip
    return train(read_recipe(GanRecipe, RECIPE, small), GanStage, "auto", console or Console(quiet=True))


@pytest.mark.slow
@pytest.mark.parametrize(("decoder", "use_depth"), [("residual", True), ("spade", False)])
def test_converted_checkpoints_go_on_learning(decoder: str, use_depth: bool, clips_folder: Path, tmp_path: Path) -> None:
    file = _converted(tmp_path, decoder, use_depth)
    result = _finetuned(clips_folder, file)
    before, after = read_model(file), read_model(result.weights)
    assert after.config == before.config == small_config(decoder, use_depth=use_depth)
    assert not after.config.align_corners, "the released convention stays"
    old, new = before.state_dict(), after.state_dict()
    assert all(torch.equal(new[key], value) for key, value in old.items() if key.startswith("depth_network."))
    learnt = [k for k in old if k.endswith("weight") and not torch.equal(old[k], new[k]) and not k.startswith("depth_network.")]
    assert len(learnt) > 20
    # Adam moves a weight by about the rate in a step.
    assert max(float((old[k] - new[k]).abs().max()) for k in learnt if "parametrizations" not in k) < 4 * 2e-5
    critic = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["modules"]["discriminator"]
    kept = {k.removeprefix(DISCRIMINATOR): v for k, v in read_tensors(file)[0].items() if k.startswith(DISCRIMINATOR)}
    assert critic.keys() == kept.keys()
    assert 0 < max(float((critic[k] - v).abs().max()) for k, v in kept.items()) < 4 * 2e-5
    # The result draws, and is written back in the released layout.
    engine, (photo, *frames) = TorchEngine(after), moving_pictures(3)
    assert engine.render(engine.encode(photo), engine.keypoints(frames)).shape == (2, 64, 64, 3)
    assert "generator" in released_files(result.weights)["checkpoint.pth.tar"]


def test_a_file_without_a_discriminator_is_said(clips_folder: Path, tmp_path: Path) -> None:
    with (tmp_path / "said.txt").open("w") as said:
        _finetuned(clips_folder, _converted(tmp_path, "residual", False, False), "max_steps=1", console=Console(file=said))
    assert "released.safetensors holds no discriminator: training starts with a new one" in (tmp_path / "said.txt").read_text()


def test_the_model_is_that_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"released\.safetensors does not exist"):
        read_recipe(GanRecipe, RECIPE)
    with pytest.raises(InputError, match=r"model\.preset is init_from, but init_from is 'a\.ckpt': name a model file"):
        read_recipe(GanRecipe, RECIPE, ["init_from=a.ckpt"])
    file = _converted(tmp_path, "residual", False)
    recipe = read_recipe(GanRecipe, RECIPE, [f"init_from={file}", "data.size=64", "model.name=mine", "loss.perceptual=0", "loss.l1=1"])
    assert recipe.model.name == "mine"
    assert recipe.model.keypoints == small_config(use_depth=False).keypoints
    assert (recipe.optimiser.lr, recipe.loss.adversarial, recipe.loss.feature_matching) == (2e-5, 1, 10)
