"""Runs `dagan` and notes which clips are drawn at which places of the order. Its first argument is the folder of these notes.

Each process writes a file of its own, with a line for each draw: the place of its first sample, and the clips.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

from dagan.cli import main
from dagan.data.sampling import Draw, PairSampler


class _Noted(PairSampler):
    def draw(self, rng: np.random.Generator, count: int, first: int = 0) -> Draw:
        drawn = super().draw(rng, count, first)
        clips = np.searchsorted(self.dataset.start, drawn.numbers[:, 0], side="right") - 1
        with (Path(sys.argv[1]) / f"{os.getpid()}.jsonl").open("a") as notes:
            notes.write(json.dumps([first, clips.tolist()]) + "\n")
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
    sys.exit(main(sys.argv[2:]))
