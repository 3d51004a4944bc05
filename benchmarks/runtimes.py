"""Speed of a model's parts in every runtime: paired, in rounds that visit each of them in turn, in one process.

Run: python benchmarks/runtimes.py [--model lite-256] [--rounds 8] [--batch 4] [--with FOLDER ...] [--json FILE]
(FOLDER: an exported folder to measure too, for example an int8 one)
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from skimage.data import astronaut

from dagan.cli.options import open_chosen
from dagan.engine.base import Engine
from dagan.engine.sessions import available
from dagan.errors import InputError
from dagan.media.framing import Framing, crop


def pictures(count: int, size: int) -> list[np.ndarray]:
    """A portrait that sways, as in `memory.py`."""
    turns = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return [crop(astronaut(), Framing(226 + 12 * np.cos(t), 150 + 12 * np.sin(t), 280), size) for t in turns]


class Contender:
    """One engine with its times, in milliseconds a frame, and its results."""

    def __init__(self, label: str, engine: Engine, frames: list[np.ndarray]) -> None:
        self.label, self.engine, self.frames = label, engine, frames
        self.times: dict[str, list[float]] = {"encode": [], "keypoints": [], "render": [], "disparity": []}
        self.source = engine.encode(frames[0])
        self.found = engine.keypoints(frames)
        self.results = engine.render(self.source, self.found)

    def round(self) -> None:
        """One visit."""
        calls = {
            "encode": lambda: self.engine.encode(self.frames[0]),
            "keypoints": lambda: self.engine.keypoints(self.frames),
            "render": lambda: self.engine.render(self.source, self.found),
            "disparity": lambda: self.engine.disparity(self.frames) if self.engine.has_depth else None,
        }
        for name, call in calls.items():
            call()  # the caches are another engine's
            began = time.perf_counter()
            call()
            self.times[name].append(1000 * (time.perf_counter() - began) / (1 if name == "encode" else len(self.frames)))


def open_all(model: str, folders: list[Path], batch: int) -> list[tuple[str, Engine]]:
    """Every runtime with every precision that this machine has, PyTorch in float32 first; then exported folders in what runs them."""
    engines: list[tuple[str, Engine]] = []
    wanted = [(model, runtime, precision) for runtime in available() for precision in ("float32", "bfloat16", "int8")]
    wanted += [(str(folder), runtime, "auto") for folder in folders for runtime in available()[1:]]
    for where, runtime, precision in wanted:
        try:
            engine = open_chosen(where, runtime, batch, "cpu", precision)
            engines.append((f"{runtime}, {engine.precision}", engine))
        except InputError as error:
            print(f"left out: {error}")
    return engines


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lite-256")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--with", dest="folders", type=Path, nargs="*", default=[])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    engines = open_all(options.model, options.folders, options.batch)
    frames = pictures(options.batch, engines[0][1].size)
    field = [Contender(label, engine, frames) for label, engine in engines]
    for _ in range(options.rounds):
        for contender in field:
            contender.round()
    exact = field[0]
    columns = ("runtime", "source", "keypoints", "render", "depth", "both", "frames a second", "times", "mean /255", "max /255")
    table = Table(*columns, title=f"{options.model}, milliseconds a frame, batches of {options.batch}")
    rows = []
    totals = {c.label: float(np.median(np.add(c.times["keypoints"], c.times["render"]))) for c in field}
    for c in field:
        medians = {name: float(np.median(times)) for name, times in c.times.items()}
        # The same motion for all: what differs is the engine, and what it finds as keypoints.
        gap = np.abs(c.results.astype(int) - exact.results)
        total = totals[c.label]
        # Paired: each round's ratio, so that a slow minute of the machine cancels out.
        ratio = float(np.median(np.add(exact.times["keypoints"], exact.times["render"]) / np.add(c.times["keypoints"], c.times["render"])))
        row = {"runtime": c.label, **medians, "frame": total, "ratio": ratio, "mean": float(gap.mean()), "max": int(gap.max())}
        rows.append(row)
        figures = [f"{v:.2f}" for v in (*medians.values(), total)]
        table.add_row(c.label, *figures, f"{1000 / total:.1f}", f"{ratio:.2f}", f"{gap.mean():.3f}", str(gap.max()))
    Console(width=170).print(table)
    if options.json:
        options.json.write_text(json.dumps({"model": options.model, "batch": options.batch, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
