"""Measures how many pairs a second training draws from shards and from the clips they were packed from, in one run.

dagan pack CLIPS -o SHARDS; python benchmarks/shards.py CLIPS SHARDS [--size 128] [--pairs 200] [--workers 0]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from dagan.data.batches import BatchSource
from dagan.data.config import NO_AUGMENT, DataConfig, PairConfig
from dagan.data.sampling import PairSampler
from dagan.data.store import open_dataset

BATCH = 10


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("clips", type=Path)
    parser.add_argument("shards")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=0, help="So many threads read ahead.")
    arguments = parser.parse_args()
    rates: dict[str, list[float]] = {}
    shards = arguments.shards if "://" in arguments.shards else Path(arguments.shards)
    sources = {}
    for name, place in (("clips", arguments.clips), ("shards", shards)):
        begun = time.perf_counter()
        data = open_dataset(DataConfig(train=place, size=arguments.size, storage="disk", hold_out=0), console=Console(quiet=True))
        print(f"{name}: opened in {time.perf_counter() - begun:.2f} s")
        sources[name] = BatchSource(
            data, PairSampler(data, "train", "clip", PairConfig()), NO_AUGMENT, batch_size=BATCH, seed=0, device=torch.device("cpu"),
            workers=arguments.workers,
        )  # fmt: skip
    # Both are measured in turns, so that whatever else the machine does meets both alike.
    for turn in range(5):
        for name, source in sources.items():
            steps = max(1, arguments.pairs // BATCH // 5)
            begun = time.perf_counter()
            for step in range(steps):
                source.at(turn * steps + step)
            rates.setdefault(name, []).append(steps * BATCH / (time.perf_counter() - begun))
    for name, source in sources.items():
        source.close()
        print(f"{name}: {np.median(rates[name]):.1f} pairs a second (from {min(rates[name]):.1f} to {max(rates[name]):.1f})")
    print(f"shards give {np.median(rates['shards']) / np.median(rates['clips']):.1f} times as many")


if __name__ == "__main__":
    main()
