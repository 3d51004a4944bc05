"""Peak memory of drawing a frame, of each attention, and of a training step, in MB above what the model itself takes (on Linux).

Each figure comes from a process of its own, in which freed memory goes back to the system at once, so that the peak is a true one.

Run: python benchmarks/attention_memory.py [PRESET ...]
"""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from dagan.config import preset
from dagan.engine.cpu.fast import prepare
from dagan.models.dagan import DaGAN
from dagan.train.gan import GanObjective
from dagan.train.recipe import GanLossConfig

WAYS = ("engine", "plain", "attention", "step")
PAIRS = 1


def _megabytes(entry: str) -> float:
    found = re.search(rf"{entry}:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


def peak(call: Callable[[], object]) -> float:
    """Returns by how many MB a call's peak exceeds what was resident before it."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # The kernel begins to count the peak anew.
    before = _megabytes("VmRSS")
    call()
    return _megabytes("VmHWM") - before


def measure(name: str, way: str) -> None:
    """Prints one line for one preset."""
    torch.manual_seed(0)
    model = DaGAN(preset(name)).eval()
    side = model.config.image_size
    image = torch.rand(1, 3, side, side)
    if way == "step":
        objective = GanObjective(model, GanLossConfig(perceptual=0, l1=10))
        pairs = image.expand(PAIRS, -1, -1, -1)
        print(f"{name}: a training step of {PAIRS}: {peak(lambda: objective(pairs, pairs.flip(-1))[0]['total'].backward()):.0f} MB")
    elif way == "attention":
        generator = model.generator
        attentions = [*generator.fine_attention, *([] if generator.attention is None else [generator.attention])]
        for i, attention in enumerate(reversed(attentions)):
            size = side >> (generator.config.downs - i)
            query = torch.rand(1, attention.query.out_channels, size, size)
            features = torch.rand(1, attention.key.in_channels, size, size)
            with torch.inference_mode():
                print(f"{name}: attention at {size} x {size}: {peak(lambda a=attention, q=query, f=features: a(q, f)):.0f} MB")  # type: ignore[misc]
    else:
        drawing = prepare(model) if way == "engine" else model
        source, keypoints = drawing.encode_source(image), drawing.keypoints(image)
        print(f"{name}: a frame, {way}: {peak(lambda: drawing.drive(source, keypoints)):.0f} MB")


def main(names: list[str]) -> None:
    """Measures every way of every preset."""
    at_once = {"MALLOC_MMAP_THRESHOLD_": "100000", "MALLOC_TRIM_THRESHOLD_": "100000"}
    for name in names:
        for way in WAYS:
            subprocess.run([sys.executable, __file__, "--one", name, way], check=True, env=os.environ | at_once)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        measure(*sys.argv[2:])
    else:
        main(sys.argv[1:] or ["paper-256", "plus-256", "lite-256", "plus-lite-256"])
