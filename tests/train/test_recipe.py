"""Recipes: those that ship can be read, overrides apply, mistakes are named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dagan.checks import dump, parse
from dagan.config import preset
from dagan.errors import InputError
from dagan.train.recipe import DepthRecipe, GanRecipe, OptimiserConfig, Recipe, read_recipe
from dagan.train.stage import learning_rate
from dagan.weights import bundled

RECIPES = Path(__file__).parents[2] / "recipes"


def _kind(path: Path) -> type[DepthRecipe] | type[GanRecipe]:
    return DepthRecipe if "depth" in path.stem else GanRecipe


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_recipes(path: Path) -> None:
    given = [f"init_from={bundled()['lite-256']}"] if path.stem == "finetune" else []
    recipe: Recipe = read_recipe(_kind(path), path, given)
    assert recipe.output == Path("runs") / path.stem
    # A checkpoint keeps the dumped recipe, which reads back to an equal one.
    assert parse(type(recipe), dump(recipe), "dump") == recipe


def test_shipped_recipes_are_all_there() -> None:
    wanted = "finetune tiny-depth tiny-gan depth-lite gan-lite-128 gan-lite-256 depth-paper gan-paper-256 gan-paper-spade-256"
    assert {p.stem for p in RECIPES.glob("*.yaml")} >= set(wanted.split())


def test_recipes_build_on_each_other() -> None:
    lite = preset("lite-256")
    assert read_recipe(DepthRecipe, RECIPES / "depth-lite.yaml").model == lite.depth
    small, large = (read_recipe(GanRecipe, RECIPES / f"gan-lite-{s}.yaml").model for s in (128, 256))
    assert dataclasses.replace(small, name=large.name, image_size=256) == large
    # The recipes are ahead of the bundled weights by keypoints that stand on landmarks, and what is made of them.
    landmarks = ("keypoints", "motion", "generator")
    assert dataclasses.replace(large, **{part: getattr(lite, part) for part in landmarks}) == lite
    assert set(large.keypoints.landmarks) >= {13, 14, 159, 145, 386, 374, 468, 473}
    assert read_recipe(GanRecipe, RECIPES / "gan-paper-256.yaml").model == preset("paper-256")
    assert read_recipe(GanRecipe, RECIPES / "gan-paper-spade-256.yaml").model == preset("paper-spade-256")
    assert read_recipe(DepthRecipe, RECIPES / "depth-paper.yaml").model == preset("paper-256").depth
    tiny = read_recipe(GanRecipe, RECIPES / "tiny-gan.yaml").model
    assert tiny.depth == read_recipe(DepthRecipe, RECIPES / "tiny-depth.yaml").model


def test_plus_recipes_are_those_that_they_extend() -> None:
    changed = {"output", "depth_weights", "init_from", "model", "egomotion"}
    for plus, base, kind in (
        ("depth-plus", "depth-paper", DepthRecipe), ("depth-plus-lite", "depth-lite", DepthRecipe),
        ("gan-plus-lite-128", "gan-lite-128", GanRecipe), ("gan-plus-lite-256", "gan-lite-256", GanRecipe),
    ):  # fmt: skip
        ours, theirs = (dump(read_recipe(kind, RECIPES / f"{name}.yaml")) for name in (plus, base))
        assert {k: v for k, v in ours.items() if k not in changed} == {k: v for k, v in theirs.items() if k not in changed}
        if kind is DepthRecipe:
            assert ours["egomotion"] == theirs["egomotion"] | {"uncertainty": True}
    for size, name in ((128, "gan-plus-lite-128"), (256, "gan-plus-lite-256")):
        model = read_recipe(GanRecipe, RECIPES / f"{name}.yaml").model
        assert model == dataclasses.replace(preset("plus-lite-256"), name=f"plus-lite-{size}", image_size=size)
    large = read_recipe(GanRecipe, RECIPES / "gan-plus-256.yaml")
    assert large.model == preset("plus-256")
    assert read_recipe(DepthRecipe, RECIPES / "depth-plus.yaml").model == large.model.depth
    assert (large.loss.perceptual_pyramid, large.loss.detector_batches, large.loss.transformed_depth) == ("average", "pooled", "moved")


def test_paper_settings() -> None:
    gan = read_recipe(GanRecipe, RECIPES / "gan-paper-256.yaml")
    assert (gan.optimiser.lr, gan.optimiser.betas, gan.augment.flip, gan.augment.hue) == (2e-4, (0.5, 0.999), 0.5, 0.1)
    loss = gan.loss
    weights = (loss.perceptual, loss.adversarial, loss.feature_matching, loss.equivariance_value, loss.equivariance_jacobian)
    assert weights == (10, 1, 10, 10, 10)
    assert (loss.keypoint_distance, loss.keypoint_alpha, loss.perceptual_features, loss.perceptual_scales) == (10, 0.2, "vgg19", 4)
    assert (loss.affine_sigma, loss.tps_sigma, loss.tps_points) == (0.05, 0.005, 5)
    # What an audit of the released code found, and the other recipes do in ways of their own.
    for name, pyramid, batches, depth_map in (
        ("gan-paper-256", "band-limited", "separate", "estimated"), ("gan-paper-spade-256", "band-limited", "separate", "estimated"),
        ("gan-lite-128", "average", "pooled", "moved"), ("gan-lite-256", "average", "pooled", "moved"),
    ):  # fmt: skip
        loss = read_recipe(GanRecipe, RECIPES / f"{name}.yaml").loss
        assert (loss.perceptual_pyramid, loss.detector_batches, loss.transformed_depth) == (pyramid, batches, depth_map)
    assert read_recipe(DepthRecipe, RECIPES / "depth-paper.yaml").encoder_weights is not None
    with pytest.raises(InputError, match=r"encoder_weights is 'a\.pth': must be null with encoder lite"):
        read_recipe(DepthRecipe, RECIPES / "depth-lite.yaml", ["encoder_weights=a.pth"])
    depth = read_recipe(DepthRecipe, RECIPES / "depth-paper.yaml")
    assert (depth.optimiser.lr, depth.optimiser.schedule, depth.optimiser.drop_at, depth.optimiser.drop_factor) == (1e-4, "step", 0.75, 0.1)
    assert (depth.loss.scales, depth.loss.smoothness, depth.loss.automask) == (4, 1e-3, True)


def test_overrides() -> None:
    path = RECIPES / "tiny-gan.yaml"
    settings = "optimiser.lr=1e-5 max_minutes=2.5 loss.adversarial=0 data.portraits=faces model.keypoints.count=7 threads=null"
    recipe = read_recipe(GanRecipe, path, settings.split())
    assert (recipe.optimiser.lr, recipe.max_minutes, recipe.loss.adversarial, recipe.threads) == (1e-5, 2.5, 0, None)
    assert recipe.data.portraits == Path("faces")
    assert recipe.model.keypoints.count == 7
    assert recipe.optimiser.betas == (0.5, 0.999), "what stands beside stays"
    assert read_recipe(GanRecipe, path, ["discriminator_optimiser.lr=1e-5"]).discriminator_optimiser == OptimiserConfig(lr=1e-5)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optimizer.lr=1", "unknown key 'optimizer': nearest: optimiser"),
        ("optimiser.rl=1", r"unknown key 'optimiser\.rl'.*lr"),
        ("loss.perceptul=1", r"nearest: perceptual"),
        ("batch_size=none", "batch_size"),
        ("batch_size=0", "batch_size is 0"),
        ("optimiser.lr=-1", r"optimiser\.lr is -1: must be above 0"),
        ("max_steps", "write key=value"),
        ("max_steps.x=1", "max_steps is a single value"),
        ("data.size=96", "data.size is 96, but model.image_size is 64"),
        ("depth_weights=null", "depth_weights is missing"),
        ("loss.guide=1", "set data.landmarks to true"),
        ("model.preset=lite", "nearest: lite-256"),
        ("data.size=50", r"data\.size is 50: must be a multiple of 32"),
        ("augment.zoom=[1.2, 0.8]", "augment zoom"),
        ("output=[", "not valid YAML"),
    ],
)
def test_mistakes_are_named(setting: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_recipe(GanRecipe, RECIPES / "tiny-gan.yaml", [setting])


def test_files_that_are_no_recipes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml does not exist"):
        read_recipe(GanRecipe, tmp_path / "none.yaml")
    path = tmp_path / "a.yaml"
    path.write_text("- a\n")
    with pytest.raises(InputError, match="must hold a mapping"):
        read_recipe(GanRecipe, path)
    path.write_text("a: [1\n")
    with pytest.raises(InputError, match="not valid YAML"):
        read_recipe(GanRecipe, path)


def test_schedules() -> None:
    def rates(config: OptimiserConfig) -> list[float]:
        return [learning_rate(config, step, 100) for step in range(100)]

    assert rates(OptimiserConfig(lr=1.0)) == [1.0] * 100
    cosine = rates(OptimiserConfig(lr=1.0, schedule="cosine"))
    assert cosine[0] == 1
    assert cosine[50] == pytest.approx(0.5)
    assert cosine == sorted(cosine, reverse=True)
    assert cosine[99] < 1e-3
    step = rates(OptimiserConfig(lr=1.0, schedule="step", drop_at=0.75, drop_factor=0.1))
    assert step == [1.0] * 75 + [0.1] * 25
    warm = rates(OptimiserConfig(lr=1.0, warm_up=10))
    assert warm[:10] == pytest.approx([0.1 * i for i in range(1, 11)])
    assert warm[10:] == [1.0] * 90
