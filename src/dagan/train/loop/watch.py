"""Watches the other processes of a run. Where one has ended, all others end within a minute, with a sentence, instead of waiting for it.

A process that waits for another on a device cannot be interrupted. It would wait until the connection's time is up, which has to be hours,
because the first process may decode clips as long.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psutil
import torch.distributed as dist

from dagan.errors import InputError

PATIENCE = timedelta(hours=24)  # So long processes wait for each other; this watch ends them long before where one is dead.
_LOOK = 1.0  # Seconds between two looks.
_SILENT = 40.0  # Seconds after which a process of another machine that gives no sign of life counts as ended.
_DONE = b"done"


def ended(rank: int, world: int) -> str:
    """Returns the sentence about a process that has ended."""
    return (
        f"process {rank} of {world} (counted from 0) has ended, so all others end too: look for its own message; "
        "the same command goes on from the last checkpoint"
    )


class Watch:
    """A thread that gives signs of life, and looks for those of the others, from `begin` until `end`."""

    def __init__(self, rank: int, world: int, leave: Callable[[int], None] = os._exit) -> None:
        self.rank, self.world, self._leave = rank, world, leave
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="watch")

    def begin(self) -> None:
        """Begins to watch. The processes are connected already."""
        # The store in which processes find each other at their start has no public name. A copy may be used by another thread.
        shared: Any = dist.distributed_c10d._get_default_store()
        self._store = dist.PrefixStore("dagan-watch", shared.clone())
        self._store.set(f"place-{self.rank}", f"{socket.gethostname()} {os.getpid()}")
        self._thread.start()

    def end(self) -> None:
        """Ends watching. All processes must have come here, or another one may take this one's end for its death."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        others = [rank for rank in range(self.world) if rank != self.rank]
        try:
            places = {rank: self._store.get(f"place-{rank}").decode().split() for rank in others}
            here = [(rank, int(pid)) for rank, (host, pid) in places.items() if host == socket.gethostname()]
            away = {rank: (b"", time.monotonic()) for rank, (host, _) in places.items() if host != socket.gethostname()}
            beats = 0
            while not self._over.wait(_LOOK):
                beats += 1
                self._store.set(f"alive-{self.rank}", str(beats))
                dead = [rank for rank, pid in here if not _lives(pid)]
                for rank, (before, since) in away.items():
                    sign = self._store.get(f"alive-{rank}")
                    if sign != before:
                        away[rank] = sign, time.monotonic()
                    elif time.monotonic() - since > _SILENT:
                        dead.append(rank)
                if dead:
                    self._give_up(dead[0])
                    return
        except Exception:  # The process that keeps the store has ended, and each version of PyTorch says so in its own way.
            if not self._over.is_set():
                self._give_up(0 if self.rank else others[0])

    def _give_up(self, rank: int) -> None:
        # A second is left for the main thread, whose own message may say more.
        if self._over.wait(_LOOK):
            return
        print(f"dagan: {ended(rank, self.world)}", file=sys.stderr, flush=True)
        self._leave(1)


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def as_sentence(error: RuntimeError) -> InputError | None:
    """Returns the sentence for an error of a connection to another process, or None for any other error."""
    text = str(error)
    if isinstance(error, dist.DistError) or any(word in text for word in ("gloo", "NCCL", "Connection closed", "Connection reset")):
        return InputError(
            f"the connection to another process of the run is lost ({text.splitlines()[0][:120]}): look for the other's own message; "
            "the same command goes on from the last checkpoint"
        )
    return None
