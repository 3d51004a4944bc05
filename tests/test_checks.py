"""Every number of every configuration is refused where it makes no sense."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator
from typing import Any

import pytest

from dagan.checks import Checked, parse
from dagan.config import DepthConfig, Gains, GeneratorConfig, HourglassConfig, KeypointConfig, ModelConfig, MotionConfig
from dagan.data.config import AugmentConfig, DataConfig, PairConfig, TripletConfig
from dagan.data.pack import PackConfig
from dagan.engine.sessions import ExportNote, GraphNote
from dagan.errors import InputError
from dagan.evaluate.ablation import AblationTable, Variant
from dagan.models.depth import EgomotionConfig
from dagan.prepare.raws import PrepareOptions
from dagan.train.recipe import DepthLossConfig, DepthRecipe, GanLossConfig, GanRecipe, OptimiserConfig, ViewsConfig
from dagan.weights.released import ReleasedNote

DATA = DataConfig(train="clips")  # type: ignore[arg-type]
NEEDED: dict[type[Any], dict[str, Any]] = {
    DataConfig: {"train": "clips"},
    GanLossConfig: {"l1": 1.0},
    DepthRecipe: {"output": "out", "data": DATA},
    GanRecipe: {"output": "out", "data": DATA, "model": ModelConfig(), "depth_weights": "depth.safetensors"},
    AblationTable: {"recipe": "a.yaml", "variants": [{"name": "a"}]},
    Variant: {"name": "a"},
}
CONFIGS = (
    HourglassConfig, DepthConfig, Gains, KeypointConfig, MotionConfig, GeneratorConfig, ModelConfig, DataConfig, TripletConfig, PairConfig,
    AugmentConfig, EgomotionConfig, DepthLossConfig, GanLossConfig, ViewsConfig, OptimiserConfig, DepthRecipe, GanRecipe, Variant,
    PackConfig, PrepareOptions,
)  # fmt: skip
# Fields in which nothing is a value like others: where 0 leaves a term out or asks for none, and where a first number is 0.
ZERO_IS_FINE = {
    "blocks", "workers", "hold_out", "min_motion", "still", "portrait", "affine_sigma", "tps_sigma", "flip", "brightness", "contrast",
    "saturation", "hue", "shift", "rotate", "principal_range", "smoothness", "intrinsics_prior", "flip_consistency", "consistency", "level",
    "start_share", "start_relief", "aligned_share", "imitation", "perceptual", "l1", "warped", "guide", "detail", "crops", "explicit",
    "adversarial",
    "adversarial_start", "feature_matching", "equivariance_value", "equivariance_jacobian", "keypoint_distance", "keypoint_alpha", "rounds",
    "explicit_noise", "expressive", "lively", "landmarks",
    "leak", "start", "betas", "weight_decay", "warm_up", "drop_at", "seed", "seeds", "ema", "checkpoint_minutes",
}  # fmt: skip
# A number of steps so large that it stands for "never"; any seed; a number of bytes.
BILLION_IS_FINE = {
    "shard_bytes", "budget", "adversarial_start", "warm_up", "max_steps", "log_every", "picture_every", "validate_every", "seed", "seeds",
}  # fmt: skip


def numbers(config: type[Any]) -> Iterator[tuple[str, Any]]:
    """Each numeric field of a configuration, or place of a field of several numbers, with a builder of its value."""
    for name, hint in typing.get_type_hints(config).items():
        if name.startswith("_"):
            continue
        members = typing.get_args(hint)
        several = typing.get_origin(hint) is tuple
        if hint in (int, float) or (not several and {int, float} & set(members)):
            yield name, lambda value: value
        elif several and members[0] in (int, float):
            count = 1 if members[-1] is Ellipsis else len(members)
            yield name, lambda value, count=count: (value,) * count


PLACES = [(config, name, make) for config in CONFIGS for name, make in numbers(config)]


def refused(config: type[Any], name: str, value: object) -> str | None:
    """The sentence, from Python and from a file alike; None where the value is taken."""
    sentences = []
    for build in (lambda given: config(**given), lambda given: parse(config, given, "x.yaml")):
        try:
            build(NEEDED.get(config, {}) | {name: value})
        except InputError as error:
            sentences.append(str(error))
    assert len(sentences) != 1, f"{config.__name__}.{name} = {value}: Python and files do not agree: {sentences}"
    return sentences[0] if sentences else None


def test_all_configurations_are_here() -> None:
    read = set(CONFIGS) | {AblationTable, ExportNote, GraphNote, ReleasedNote}
    found = {c for c in _below(Checked) if c.__module__.startswith("dagan.") and c.__name__ != "Recipe"}
    assert found == read
    assert len(PLACES) > 90


@pytest.mark.parametrize(("config", "name", "make"), PLACES, ids=[f"{config.__name__}-{name}" for config, name, _ in PLACES])
def test_absurd_numbers_are_refused_by_name(config: type[Any], name: str, make: Any) -> None:
    for value, fine in ((math.nan, ()), (math.inf, ()), (-1, ()), (0, ZERO_IS_FINE), (10**9, BILLION_IS_FINE), (10**30, ())):
        sentence = refused(config, name, make(value))
        if name in fine:
            continue
        assert sentence is not None, f"{config.__name__}.{name} = {value} is taken"
        assert name in sentence
        assert "\n" not in sentence
        assert "pydantic" not in sentence


@pytest.mark.parametrize("name", sorted(ZERO_IS_FINE))
def test_zero_is_taken_where_it_means_something(name: str) -> None:
    places = [(config, make) for config, other, make in PLACES if other == name]
    assert places, f"there is no field {name} any more"
    assert all(refused(config, name, make(0)) is None for config, make in places)


def _below(cls: type[Any]) -> Iterator[type[Any]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _below(sub)


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (GeneratorConfig, {"decoder": "spade", "downs": 3}, "generator downs is 3: must be 2, as decoder spade enlarges twice"),
        (GeneratorConfig, {"width": 64, "max_width": 32}, "generator max_width is 32: must be at least width 64"),
        (KeypointConfig, {"kernel": 4}, "kernel is 4: must be odd"),
        (KeypointConfig, {"count": "many"}, "count is 'many': must be a valid integer"),
        (DepthConfig, {"size": 0}, "size is 0: must be at least 64"),
        (DepthConfig, {"encoder": "resnet50", "encoder_widths": (8,) * 5}, r"encoder_widths is \[8, .*: must be \[64, .* resnet50"),
        (DepthConfig, {"min_depth": 3, "max_depth": 2}, "min_depth is 3.*: must be below max_depth 2"),
        (ModelConfig, {"motion_size": 48}, "motion_size is 48: must divide image_size 256"),
        (GanLossConfig, {"equivariance_value": -10}, "equivariance_value is -10: must be at least 0"),
        (GanLossConfig, {"perceptual_scales": 0}, "perceptual_scales is 0: must be at least 1"),
        (GanLossConfig, {"perceptual": 0}, "l1, warped and detail are all 0"),
        (TripletConfig, {"gap": (5, 2)}, r"sampling gap is \[5, 2\]: must be \[smallest, largest\]"),
        (OptimiserConfig, {"betas": (0.9, 1)}, r"betas\.1 is 1: must be below 1"),
        (GanRecipe, NEEDED[GanRecipe] | {"devices": 0}, "devices is 0: must be at least 1, or must be 'auto'"),
        (GanRecipe, NEEDED[GanRecipe] | {"loss": {"perceptual_scales": 5}}, "perceptual_scales is 5: its smallest pictures .* 16 pixels"),
        (GanRecipe, NEEDED[GanRecipe] | {"discriminator_max_width": 8}, "max_width is 8: must be at least discriminator_width 64"),
        (DepthRecipe, {"output": "out", "data": {"train": "clips", "size": 32}}, r"data\.size is 32: must be at least 64"),
        (DepthRecipe, {"output": "out"}, "data is missing"),
        (DepthRecipe, {"output": "out", "data": 3}, "data is 3: must be a mapping of keys to values"),
        (AblationTable, {"recipe": "a", "variants": [{"name": "a", "seed": 1}]}, r"unknown key 'variants\.0\.seed': nearest: seeds"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused(config: type[Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(config, settings, "x.yaml")


def test_changed_copies_are_checked_too() -> None:
    with pytest.raises(InputError, match="generator blocks is -1: must be at least 0"):
        dataclasses.replace(GeneratorConfig(), blocks=-1)
