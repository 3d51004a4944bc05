"""An engine's work on several batches at the same time."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from functools import partial
from typing import TypeVar

import torch

from dagan.inference.runner import Runner
from dagan.inference.stages import mapped

T = TypeVar("T")
R = TypeVar("R")


def on_workers(engine: Runner, function: Callable[[T], R], items: Iterable[T]) -> Generator[R]:
    """function(item) for each item, in their order, computed ahead by as many threads as `engine.workers` says.

    Several threads keep to one core each; see `dagan.inference.stages` for what holds when it ends or fails.
    """
    workers = engine.workers
    threads = torch.get_num_threads()
    with closing(mapped(function, items, workers, partial(torch.set_num_threads, 1) if workers > 1 else None)) as results:
        try:
            yield from results
        finally:
            if workers > 1:  # the setting of one thread is the default of all later ones
                torch.set_num_threads(threads)
