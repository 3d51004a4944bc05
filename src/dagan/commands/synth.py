"""`dagan synth`: writes synthetic heads with ground truth, with a progress bar, and says what came of it."""

from __future__ import annotations

import time
from pathlib import Path

from dagan.commands.progress import progress_bar
from dagan.synthetic.clip import synthesise


def synthesise_folder(output: Path, clips: int, size: int, seed: int, frames: int, workers: int, overwrite: bool) -> None:
    """Writes the clips and prints one line about them."""
    start = time.monotonic()
    with progress_bar() as show:
        written, kept = synthesise(
            output, clips, size, seed, frames, overwrite=overwrite, workers=workers,
            progress=lambda done, total: show("heads", done, total),
        )  # fmt: skip
    seconds = time.monotonic() - start
    rate = f", {written * frames / seconds:.1f} frames a second" if written else ""
    print(f"{output}: {written} clips of {frames} frames written in {seconds:.0f} s{rate}{f'; {kept} were there already' if kept else ''}")
