"""Work that is shared out to processes of this machine. They end when their parent does, in whichever way that ends.

Nothing here imports torch, so that processes which do not need it start quickly.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def start_worker() -> None:
    """Is called first in a worker process. Ctrl-C, and the end of its parent, then end the worker at once and silently."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this worker when its parent is killed. Otherwise it would wait for the parent for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def in_processes(function: Callable[[T], R], items: Iterable[T], count: int) -> Generator[R]:
    """Yields function(item) for each item as they get ready, computed by `count` processes. Their exceptions are raised here.

    `function` and items must be picklable. Raises BrokenProcessPool when a process was ended from outside.
    """
    # Processes are spawned and not forked, because the parent may hold threads of numeric libraries.
    spawn, waiting = multiprocessing.get_context("spawn"), iter(items)
    with ProcessPoolExecutor(count, spawn, start_worker) as pool:
        try:
            running: set[Future[R]] = {pool.submit(function, item) for item in islice(waiting, 2 * count)}
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
                running |= {pool.submit(function, item) for item in islice(waiting, len(done))}
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
