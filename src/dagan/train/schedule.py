"""Learning rate as a function of the step alone."""

from __future__ import annotations

import math

from dagan.train.recipe import OptimiserConfig


def learning_rate(config: OptimiserConfig, step: int, max_steps: int) -> float:
    """The rate of the update that leads from `step` to `step + 1`."""
    share = min(step / max_steps, 1.0)
    factor = 1.0
    if config.schedule == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * share))
    elif config.schedule == "step" and share >= config.drop_at:
        factor = config.drop_factor
    if step < config.warm_up:
        factor *= (step + 1) / config.warm_up
    return config.lr * factor
