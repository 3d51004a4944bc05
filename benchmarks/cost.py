"""What each preset costs: parameters, size in half precision, GFLOP (a multiplication and an addition are two) of the
source side, once, and of a driving frame: keypoints with the depth map they need, and drive.

Run: python benchmarks/cost.py [PRESET ...]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from dagan.config import PRESETS, preset
from dagan.models.dagan import DaGAN
from dagan.weights import fold


def gigaflops(call: Callable[[], object]) -> float:
    """GFLOP of one call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e9


def main(names: list[str]) -> None:
    """Prints the table."""
    table = Table("preset", "parameters, M", "half precision, MB", "source", "keypoints", "drive", "a frame")
    for name in names:
        model = fold(DaGAN(preset(name)))
        image = torch.rand(1, 3, model.config.image_size, model.config.image_size)
        source, keypoints = model.encode_source(image), model.keypoints(image)
        parameters = sum(p.numel() for p in model.parameters()) / 1e6
        size = 2 * sum(t.numel() for t in model.state_dict().values()) / 1e6
        once = gigaflops(partial(model.encode_source, image))
        found = gigaflops(partial(model.keypoints, image))
        driven = gigaflops(partial(model.drive, source, keypoints))
        table.add_row(name, f"{parameters:.2f}", f"{size:.1f}", f"{once:.2f}", f"{found:.2f}", f"{driven:.2f}", f"{found + driven:.2f}")
    Console(width=160).print(table)


if __name__ == "__main__":
    main(sys.argv[1:] or list(PRESETS))
