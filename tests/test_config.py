import dataclasses

import pytest

from dagan.checks import dump, parse
from dagan.config import PRESETS, ModelConfig, preset
from dagan.errors import InputError


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_writing_and_reading(name: str) -> None:
    assert parse(ModelConfig, dump(preset(name)), "test") == preset(name)


def test_rgb_twin_differs_only_in_depth_and_name() -> None:
    config = preset("paper-256")
    assert dataclasses.replace(preset("paper-256-rgb"), name=config.name, use_depth=True) == config


def test_unknown_key_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"x\.yaml: unknown key 'motion\.varance': nearest: variance"):
        parse(ModelConfig, {"motion": {"varance": 1}}, "x.yaml")


def test_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(InputError, match="nearest: lite-256"):
        preset("lite256")


@pytest.mark.parametrize(
    "change",
    [{"image_size": 100}, {"motion_size": 48}, {"keypoints": {"count": 0}}, {"keypoints": {"kernel": 4}}, {"depth": {"min_depth": 200}},
     {"generator": {"decoder": "none"}}, {"motion": {"variance": 0}}, {"keypoints": {"count": "many"}}],
)  # fmt: skip
def test_values_out_of_range_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(change))[:5]):
        parse(ModelConfig, change, "x.yaml")
