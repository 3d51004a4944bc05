"""Peak memory of `dagan animate` on a short and on a long video, each in a process of its own.

Run: python benchmarks/memory.py [--short 10] [--long 600] [OPTION ...]
(seconds of video, 25 frames a second; options of `dagan animate`, such as --model FILE or --no-crop)
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from dagan.bench.timing import RATE, write_clip
from dagan.cli.animate import PORTRAIT


def peak(folder: Path, seconds: int, options: list[str]) -> float:
    """Peak memory in MB of one run."""
    clip, report = folder / f"{seconds}.mp4", folder / f"{seconds}.json"
    write_clip(clip, seconds * RATE)
    words = ["animate", str(PORTRAIT), str(clip), "-o", str(folder / f"{seconds}-out.mp4"), "--json", str(report), *options]
    subprocess.run([sys.executable, "-c", "from dagan.cli import main; main()", *words], check=True)
    return float(json.loads(report.read_text())["peak_memory_mb"])


def main() -> None:
    """Prints both peaks and their difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", type=int, default=10)
    parser.add_argument("--long", type=int, default=600)
    options, passed_on = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        low, high = (peak(Path(folder), seconds, passed_on) for seconds in (options.short, options.long))
    print(f"{options.short} s: {low:.0f} MB, {options.long} s: {high:.0f} MB, difference {high - low:.0f} MB")


if __name__ == "__main__":
    main()
