"""Records functions of tensors once on a CUDA device and replays them: one launch takes the place of hundreds.

At small batches a GPU finishes a layer before Python has asked for the next one. A CUDA graph removes the asking.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]
# A function runs this many times on inputs of one shape before it is recorded, because a shape that never comes back is not worth it.
_CALLS_BEFORE = 2
_WARM_UP = 2  # The function runs so often on the recording stream first, while libraries choose algorithms and workspaces.


class Record(Protocol):
    """Records a function for inputs of one shape. The result computes the function for other inputs of that shape."""

    def __call__(self, function: Callable[..., Tensors], inputs: Tensors) -> Callable[..., Tensors]: ...


class Replayed:
    """`function`, recorded for each shape of its inputs that comes back, and replayed from then on.

    Where recording fails (for want of memory, or because an operation cannot be recorded) `function` goes on being called for that
    shape. Several threads must not call it at once.
    """

    def __init__(self, function: Callable[..., Tensors], record: Record | None = None) -> None:
        self._function = function
        self._record = record or record_graph
        self._calls: dict[tuple[torch.Size, ...], int] = {}
        self._recorded: dict[tuple[torch.Size, ...], Callable[..., Tensors]] = {}

    def __call__(self, *inputs: Tensor) -> Tensors:
        shape = tuple(tensor.shape for tensor in inputs)
        calls = self._calls[shape] = self._calls.get(shape, 0) + 1
        if calls == _CALLS_BEFORE + 1:
            try:
                self._recorded[shape] = self._record(self._function, inputs)
            except RuntimeError:  # This includes running out of memory.
                self._recorded[shape] = self._function
        return self._recorded.get(shape, self._function)(*inputs)


def record_graph(function: Callable[..., Tensors], inputs: Tensors) -> Callable[..., Tensors]:
    """Returns the function as a CUDA graph. Raises RuntimeError where it cannot be recorded."""
    held = tuple(tensor.clone() for tensor in inputs)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            function(*held)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # Only calls of this thread are recorded, because others may use the device meanwhile (depth does for --side-by-side).
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outputs = function(*held)

    def replay(*given: Tensor) -> Tensors:
        for target, tensor in zip(held, given, strict=True):
            target.copy_(tensor)
        graph.replay()
        return tuple(output.clone() for output in outputs)  # The next replay overwrites `outputs`.

    return replay
