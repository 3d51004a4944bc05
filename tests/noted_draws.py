"""Runs `dagan` and notes which clips are drawn at which places of the order. Its first argument is the folder of these notes.

Each process writes a file of its own, with a line for each draw: the place of its first sample, and the clips.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from dagan.cli import main
from dagan.data.sampling import Draw, PairSampler


class _Noted(PairSampler):
    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.trains = len(given) > 4  # The sampler of training is told the seed of epochs, and those of pictures are not.

    def draw(self, rng: np.random.Generator, count: int, first: int = 0) -> Draw:
        drawn = super().draw(rng, count, first)
        if not self.trains:
            return drawn
        clips = np.searchsorted(self.dataset.start, drawn.numbers[:, 0], side="right") - 1
        with (notes / f"{os.getpid()}.jsonl").open("a") as file:
            file.write(json.dumps([first, clips.tolist()]) + "\n")
        return drawn


def drawn_clips(folder: Path) -> dict[int, list[int]]:
    """Returns the clips that were drawn at each place, by all processes."""
    found: dict[int, list[int]] = {}
    for path in folder.glob("*.jsonl"):
        for line in path.read_text().splitlines():
            first, clips = json.loads(line)
            for place, clip in enumerate(clips, first):
                found.setdefault(place, []).append(clip)
    return found


if __name__ == "__main__":
    import dagan.train.gan

    dagan.train.gan.PairSampler = _Noted  # type: ignore[misc, attr-defined]
    notes = Path(sys.argv.pop(1))
    main()
