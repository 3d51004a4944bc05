"""Processor time of a frame, naive and fast, on one thread: a ratio that other programs on the machine hardly disturb.

Run: OMP_NUM_THREADS=1 python benchmarks/processor_time.py [MODEL ...] (presets without weights come freshly initialised)
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import islice

import torch
from naive import Naive

from dagan.animate.animator import Animator
from dagan.bench.job import open_model
from dagan.bench.timing import swaying
from dagan.processes import keep_freed_memory

ROUNDS = 3


def seconds(call: Callable[[], object]) -> float:
    """Processor seconds of one call, of all threads of this process."""
    began = time.process_time()
    call()
    return time.process_time() - began


def main(names: list[str]) -> None:
    """Prints one line for each round."""
    keep_freed_memory()
    torch.set_num_threads(1)
    pictures = list(islice(swaying(), 8))
    for name in names:
        model, _ = open_model(name, "cpu", "auto")
        naive, animator = Naive(model, pictures[0]), Animator(model)
        animator.set_source(pictures[0])
        batch = pictures[: animator.engine.batch_size]
        naive.frame(pictures[0])  # both warm
        animator.animate_batch(batch)
        for _ in range(ROUNDS):
            slow = seconds(partial(naive.frame, pictures[1]))
            fast = seconds(partial(animator.animate_batch, batch)) / len(batch)
            print(f"{name}: naive {slow:.3f} s, fast {fast:.3f} s a frame (batches of {len(batch)}): {slow / fast:.1f} times", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or ["lite-256", "paper-256", "paper-spade-256"])
