"""Programs that tests end by force at random moments, with everything that they started."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import dagan

KILLS = int(os.environ.get("DAGAN_KILLS", "4"))
"""So often a run is killed before it may end. Before a release ten times are tried, which takes some minutes more."""
_PATIENCE = 120  # Seconds in which a run must begin or end.


def environment() -> dict[str, str]:
    """Lets another Python find this package, and compute with one thread."""
    return {**os.environ, "PYTHONPATH": str(Path(dagan.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


def dagan_command(*words: object) -> list[str]:
    """The command line `dagan ...`, for another process."""
    return [sys.executable, "-m", "dagan", *map(str, words)]


def start(command: Sequence[str], **settings: Any) -> subprocess.Popen[str]:
    """Starts a program whose standard error can be read."""
    return subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **settings)


def wait_until(happened: Callable[[], Any], process: subprocess.Popen[str]) -> bool:
    """Returns whether something happened while a process ran."""
    deadline = time.monotonic() + _PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        if happened():
            return True
        time.sleep(0.005)
    return False


def kill(process: subprocess.Popen[str]) -> bool:
    """Kills a process by force and returns whether it was still running. Its own processes must end by themselves."""
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    running = process.poll() is None
    process.kill()
    process.communicate()
    left = psutil.wait_procs(family, timeout=30)[1]
    assert not left, f"processes of a killed run go on: {left}"
    return running


def killed_again_and_again(command: Sequence[str], begun: Callable[[], Any], whole: Callable[[], None], seed: int) -> int:
    """Runs a command that goes on from where it was killed, and kills it `KILLS` times. Returns how often it came to its end meanwhile.

    The moments are random, over as long as the first run takes from when it has `begun` to its end. `whole` is called whenever a run has
    come to its end. It checks the result and takes it away, so that the next one begins anew.
    """
    first = start(command)
    assert wait_until(begun, first), first.communicate()[1]
    since = time.monotonic()
    complaint = first.communicate(timeout=_PATIENCE)[1]
    assert first.returncode == 0, complaint
    longest = time.monotonic() - since
    whole()
    rng, kills, ends = np.random.default_rng(seed), 0, 0
    while kills < KILLS:
        process = start(command)
        wait_until(begun, process)
        time.sleep(float(rng.uniform(0, longest)))
        if kill(process):
            kills += 1
            continue
        assert process.returncode == 0
        whole()
        ends += 1
    last = start(command)
    complaint = last.communicate(timeout=_PATIENCE)[1]
    assert last.returncode == 0, complaint
    whole()
    return ends
