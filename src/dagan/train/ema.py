"""Moving average of a module's weights and buffers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


def moving_average(module: nn.Module, decay: float) -> AveragedModel:
    """An averaged copy in evaluation mode; call `update_parameters(module)` after every step.

    The decay grows from 0.1 towards `decay`, so that short runs do not export their random start.
    """

    def average(averaged: Any, current: Any, count: Any) -> None:
        # The number of steps lies on the device: asking for it as a number would wait for the device at every step.
        share = 1 - torch.clamp((1 + count) / (10 + count), max=decay)
        for mine, theirs in zip(averaged, current, strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs.to(mine.dtype), share.to(mine))
            else:
                mine.copy_(theirs)

    copy = AveragedModel(module, multi_avg_fn=average, use_buffers=True)
    copy.requires_grad_(False)
    copy.eval()
    return copy
