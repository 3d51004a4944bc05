"""How long it takes to begin: `dagan --help`, and a process of its own from `import dagan` to the first frame with bundled weights.

Run: python benchmarks/startup.py [--times 5]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

HELP = "from dagan.cli import main; main()"
FIRST_FRAME = """
import time
import numpy
import dagan
animator = dagan.Animator(dagan.load())
picture = numpy.zeros((256, 256, 3), numpy.uint8)
animator.set_source(picture)
animator.animate(picture)
print(f"processor time to the first frame: {time.process_time():.2f} s")
"""


def seconds(*words: str) -> float:
    """Seconds that a Python process with these arguments takes, its own start included."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL if HELP in words else None)
    return time.perf_counter() - began


def main() -> None:
    """Prints the best and the worst of both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    times = parser.parse_args().times
    for name, words in (("dagan --help", ("-c", HELP, "--help")), ("import to first frame", ("-c", FIRST_FRAME))):
        taken = [seconds(*words) for _ in range(times)]
        print(f"{name}: {min(taken):.2f} s at best, {max(taken):.2f} s at worst of {times}")


if __name__ == "__main__":
    main()
