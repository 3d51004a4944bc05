"""Simulates the readers and processes of a large training run, to tell how often accelerators wait for reading and for one another.

python benchmarks/scale.py prints it. docs/scale.md says which of the figures below are measured, and where, and which are assumed.

A step ends when the slowest process has its batch and has computed it. Each process has `readers` threads that prepare batches ahead, at
most `ahead` of them. A batch's reading takes its usual time, spread by a log-normal factor; now and then a reader stalls, as where a
request to storage is repeated. One step in many is slow for one of the processes (a straggler).
"""

from __future__ import annotations

import argparse
import heapq
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Run:
    """A run to simulate. Times are in seconds."""

    processes: int = 8
    batch: int = 64
    """Pairs a step and process."""
    compute: float = 0.128
    """The time of a step without waiting: 64 pairs at 500 a second."""
    read: float = 0.0023
    """The time of one core for a pair."""
    readers: int = 4
    ahead: int = 8
    spread: float = 0.31
    """The standard deviation of the logarithm of a batch's reading time."""
    stall: float = 0.002
    """The share of batches whose reading stalls."""
    stall_time: float = 2.0
    straggle: float = 0.001
    """The share of steps in which a process is slow."""
    straggle_time: float = 0.5
    steps: int = 3000


def simulate(run: Run, seed: int = 0) -> tuple[float, float, float]:
    """Returns steps a second over those without any waiting, and the shares of time lost to reading and to stragglers."""
    rng = np.random.default_rng(seed)
    free = [[0.0] * run.readers for _ in range(run.processes)]
    taken = [[0.0] * run.ahead for _ in range(run.processes)]  # When the batch that many before was taken.
    now, waited, straggled = 0.0, 0.0, 0.0
    for step in range(run.steps):
        ready = []
        for process in range(run.processes):
            # A reader begins when it is free and when there is room for its batch.
            begin = max(heapq.heappop(free[process]), taken[process][step % run.ahead])
            time = run.batch * run.read * float(rng.lognormal(-(run.spread**2) / 2, run.spread))
            time += run.stall_time * (rng.random() < run.stall)
            heapq.heappush(free[process], begin + time)
            ready.append(begin + time)
        start = max(now, *ready)
        slow = run.straggle_time * (rng.random(run.processes) < run.straggle).any()
        waited += start - now
        straggled += slow
        now = start + run.compute + slow
        for process in range(run.processes):
            taken[process][step % run.ahead] = start
    return run.steps * run.compute / now, waited / now, straggled / now


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    base = Run()
    cases = {
        "8 processes, shards on disk": base,
        "the same, one reader": replace(base, readers=1),
        "the same, 32 ahead": replace(base, ahead=32),
        "videos in place of shards": replace(base, read=0.0166),
        "videos, 12 readers, 48 ahead": replace(base, read=0.0166, readers=12, ahead=48),
        "8, object storage": replace(base, stall=0.01, spread=0.6),
        "8, object storage, 2 batches ahead": replace(base, stall=0.01, spread=0.6, ahead=2),
        "64, shards on disk": replace(base, processes=64),
        "64, object storage": replace(base, processes=64, stall=0.01, spread=0.6),
        "64, object storage, 32 ahead, 8 readers": replace(base, processes=64, stall=0.01, spread=0.6, ahead=32, readers=8),
        "64, the same, without stragglers": replace(base, processes=64, stall=0.01, spread=0.6, ahead=32, readers=8, straggle=0),
        "512, the same as 64": replace(base, processes=512, stall=0.01, spread=0.6, ahead=32, readers=8, steps=1000),
    }
    print(f"{'run':44} {'speed':>6} {'reading':>8} {'straggling':>10}")
    for name, run in cases.items():
        speed, reading, straggling = simulate(run)
        print(f"{name:44} {speed:6.0%} {reading:8.1%} {straggling:10.1%}")


if __name__ == "__main__":
    main()
