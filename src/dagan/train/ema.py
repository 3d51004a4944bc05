"""Moving average of a module's weights and buffers."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class MovingAverage(AveragedModel):
    """An averaged copy in evaluation mode; call `update_parameters(module)` after every step.

    The decay grows from 0.1 towards `decay`, so that short runs do not export their random start. The count of steps stays in the
    host's memory, and nothing that is computed on it goes to the device: PyTorch's own average brings it there at every step, which
    waits until the device has finished.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__(module, use_buffers=True)
        self.decay = decay
        self.requires_grad_(False)
        self.eval()

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Moves towards the weights and buffers of `model`; whole numbers, such as counts of batches, are copied."""
        steps = int(self.n_averaged)
        share = 1 - min(self.decay, (1 + steps) / (10 + steps)) if steps else 1.0
        averaged: list[Tensor] = []
        current: list[Tensor] = []
        for mine, new in zip(_tensors(self.module), _tensors(model), strict=True):
            if mine.is_floating_point():
                averaged.append(mine)
                current.append(new)
            else:
                mine.copy_(new)
        torch._foreach_lerp_(averaged, current, share)
        self.n_averaged += 1


def _tensors(module: nn.Module) -> chain[Tensor]:
    return chain(module.parameters(), module.buffers())
