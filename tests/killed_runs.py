"""Programs that tests end by force, at random moments or in the middle of their work, and what they started."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import dagan

KILLS = int(os.environ.get("DAGAN_KILLS", "4"))
"""How often a run is killed before it may end. Ten times take some minutes more."""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
_PATIENCE = 120  # Seconds in which a run must begin or end.


def environment() -> dict[str, str]:
    """Lets another Python find this package, and compute with one thread."""
    return {**os.environ, "PYTHONPATH": str(Path(dagan.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


def dagan_command(*words: object) -> list[str]:
    """The command line `dagan ...`, for another process."""
    return [sys.executable, "-m", "dagan", *map(str, words)]


@contextmanager
def started(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """Runs a program whose standard error can be read. What is left of it and of what it started is killed at the end."""
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        for left in _family(process):
            left.kill()
        process.communicate()


def _family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """A process and what it started, without those that have ended."""
    try:
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)] if process.poll() is None else []
    except psutil.NoSuchProcess:
        return []


def wait_until(happened: Callable[[], Any], process: subprocess.Popen[str]) -> bool:
    """Returns whether something happened while a process ran."""
    deadline = time.monotonic() + _PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        if happened():
            return True
        time.sleep(0.005)
    return False


def succeed(process: subprocess.Popen[str]) -> None:
    """Waits for a process to end as it should."""
    complaint = process.communicate(timeout=2 * _PATIENCE)[1]
    assert process.returncode == 0, complaint


def kill(process: subprocess.Popen[str]) -> bool:
    """Kills a process by force, and returns whether it was still running. What it started must end by itself."""
    family = _family(process)
    process.kill()
    left = psutil.wait_procs(family, timeout=30)[1]
    for each in left:
        each.kill()
    assert not left, f"processes of a killed run went on: {left}"
    return bool(family)


def killed_again_and_again(command: Sequence[str], begun: Callable[[], Any], whole: Callable[[], None], seed: int) -> None:
    """Runs a command that goes on from where it was killed, and kills it `KILLS` times, at random moments after it has `begun`.

    `whole` is called whenever a run has come to its end. It checks the result and takes it away, so that the next one begins anew.
    """
    spawned = time.monotonic()
    with started(command) as process:
        assert wait_until(begun, process)
        earliest = time.monotonic() - spawned
        succeed(process)
    latest = time.monotonic() - spawned
    whole()
    rng, kills = np.random.default_rng(seed), 0
    while kills < KILLS:
        with started(command) as process:
            time.sleep(float(rng.uniform(earliest, latest)))
            if kill(process):
                kills += 1
                continue
            succeed(process)
        whole()
    with started(command) as process:
        succeed(process)
    whole()
