"""Moving average of a module's weights and buffers."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def moving_average(module: nn.Module, decay: float) -> AveragedModel:
    """An averaged copy in evaluation mode; call `update_parameters(module)` after every step.

    The decay grows from 0.1 towards `decay`, so that short runs do not export their random start.
    """

    def average(averaged: Any, current: Any, count: Any) -> None:
        steps = int(count)
        get_ema_multi_avg_fn(min(decay, (1 + steps) / (10 + steps)))(averaged, current, count)

    copy = AveragedModel(module, multi_avg_fn=average, use_buffers=True)
    copy.requires_grad_(False)
    copy.eval()
    return copy
