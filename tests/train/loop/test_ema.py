"""The moving average: its decay, and that no step of it waits for the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dagan.train.log import MovingAverage


def network(device: str) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4, device=device), nn.BatchNorm1d(4, device=device))


def test_the_average_begins_at_the_weights_and_its_decay_grows() -> None:
    module = nn.Linear(1, 1, bias=False)
    average = MovingAverage(module, 0.5)
    assert not average.training
    wanted = 0.0
    for step, weight in enumerate([8.0, 4.0, 2.0, -6.0, 3.0, 5.0, 1.0, 0.0, 7.0, 2.0]):
        module.weight.data.fill_(weight)
        average.update_parameters(module)
        decay = min(0.5, (1 + step) / (10 + step)) if step else 0.0
        wanted = decay * wanted + (1 - decay) * weight
        assert abs(average.module.weight.item() - wanted) < 1e-6
    assert int(average.n_averaged) == 10
    assert not average.module.weight.requires_grad


def test_buffers_are_averaged_and_counts_copied() -> None:
    module = network("cpu")
    average = MovingAverage(module, 0.999)
    for _ in range(2):
        module(torch.randn(8, 4))
        average.update_parameters(module)
    assert average.module[1].num_batches_tracked == module[1].num_batches_tracked == 2
    assert not torch.equal(average.module[1].running_mean, module[1].running_mean)


class Crossings(TorchDispatchMode):
    """Notes operators that bring numbers from one device to another. On the meta device, reading a number is an error anyway."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [x for x in (*args, result) if isinstance(x, torch.Tensor)]
        if len({x.device.type for x in tensors}) > 1:
            self.seen.append(str(func))
        return result


def test_no_step_waits_for_the_device() -> None:
    module = network("meta")
    average = MovingAverage(module, 0.999)
    with Crossings() as crossings:
        for _ in range(3):
            average.update_parameters(module)
    assert crossings.seen == []
    assert average.n_averaged.device.type == "cpu"
