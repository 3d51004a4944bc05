"""The tiny model with each decoder."""

from dataclasses import replace

import pytest

from dagan.config import GeneratorConfig, ModelConfig
from tiny import TINY


@pytest.fixture(params=["residual", "spade", "pyramid", "rgb"])
def tiny(request: pytest.FixtureRequest) -> ModelConfig:
    if request.param == "rgb":
        return TINY.rgb_only()
    if request.param == "pyramid":
        return TINY
    return replace(TINY, generator=GeneratorConfig(decoder=request.param, width=8, max_width=32, blocks=1))
