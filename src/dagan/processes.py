"""Work that is shared out to processes of this machine, or of a cluster, through Ray, and the memory of a process.

Processes of this machine end when their parent does, in whichever way that ends. On a cluster every machine must see inputs and outputs
under the same paths; a worker that dies is replaced, and its piece of work is done again.

A process can keep the memory that it frees, for the next frame, and its peak is measured.

Nothing here imports torch before it is needed, so that processes which do not need it start quickly.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from dagan.errors import InputError, require_extra

T = TypeVar("T")
R = TypeVar("R")
ENDED = "a worker was ended from outside, perhaps for want of memory"
LOCAL = "local"  # This address stands for a cluster of this machine alone, which lives as long as the run.
_PATIENCE = 10  # Seconds to wait for a cluster's answer.
_TRIES = 4  # So often a piece of work is begun whose worker dies, before it counts as what kills workers.


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


class WorkerEndedError(InputError):
    """A worker process was ended from outside."""


def in_processes(function: Callable[[T], R], items: Iterable[T], count: int, *, ordered: bool = False) -> Generator[R]:
    """Yields function(item) for each item, computed by `count` processes: as they get ready, or `ordered` as the items are.

    Few items are begun ahead of those that were yielded, so that results do not fill the memory. `function` and items must be picklable.
    Raises WorkerEndedError when a process was ended from outside, and what the function raises.
    """
    # Processes are spawned and not forked, because the parent may hold threads of numeric libraries.
    spawn, waiting = multiprocessing.get_context("spawn"), iter(items)
    with ProcessPoolExecutor(count, spawn, start_worker) as pool:
        try:
            running: list[Future[R]] = [pool.submit(function, item) for item in islice(waiting, 2 * count)]
            while running:
                done = wait(running[:1] if ordered else running, return_when=FIRST_COMPLETED).done
                for future in done:
                    yield future.result()
                running = [future for future in running if future not in done]
                running += [pool.submit(function, item) for item in islice(waiting, len(done))]
        except BrokenProcessPool:
            raise WorkerEndedError(f"{ENDED}: try fewer --workers (what is finished is kept)") from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def share_out(
    prepare: Callable[[], Callable[[T], R]], pieces: Sequence[T], workers: int = 1, cluster: str | None = None
) -> Iterator[tuple[T, R]]:
    """Yields each piece with what a worker made of it, as they get ready.

    `prepare` is called once in each worker, for example to open an engine, and gives the function of a piece. It must be picklable. With
    one worker and no cluster everything is done in this process, in order. `cluster` is the address of a Ray cluster, or LOCAL.

    Raises what `prepare` or the function raises, and InputError where a worker was ended from outside or no cluster answers.
    """
    if workers < 1:
        raise InputError(f"--workers is {workers}: must be at least 1")
    if not pieces:
        return
    if cluster is not None:
        yield from _on_cluster(prepare, pieces, workers, cluster)
    elif workers == 1 or len(pieces) == 1:
        function = prepare()
        for piece in pieces:
            yield piece, function(piece)
    else:
        with closing(in_processes(partial(_numbered, prepare), list(enumerate(pieces)), min(workers, len(pieces)))) as results:
            for number, result in results:
                yield pieces[number], result


_function: Callable[[Any], Any] | None = None  # Each worker process has its own.


def _numbered(prepare: Callable[[], Callable[[Any], Any]], piece: tuple[int, Any]) -> tuple[int, Any]:
    global _function
    if _function is None:
        _function = prepare()
    return piece[0], _function(piece[1])


@contextmanager
def connected(address: str, workers: int) -> Iterator[Any]:
    """Connects to the Ray cluster at an address, or starts LOCAL's for so many workers, and yields Ray.

    Raises InputError where the extra is missing or no cluster answers.
    """
    require_extra("cluster", "--cluster")
    _require_answer(address)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # Ray must not tell anybody that it is used.
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address == LOCAL:
            # A local cluster is nobody else's affair: it listens on this machine's own address alone.
            ray.init(num_cpus=workers, include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _no_answer(address, error) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """Raises InputError where nobody listens at an address with a port. Ray itself would try for five minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise _no_answer(address, error) from None


def _no_answer(address: str, error: Exception) -> InputError:
    reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return InputError(f"--cluster {address}: no Ray cluster answers ({reason}): start one with `ray start --head`, or say {LOCAL}")


def as_value(function: Callable[[T], R], piece: T) -> R | InputError:
    """Returns bad input as a value, because Ray would wrap it in an exception of its own."""
    try:
        return function(piece)
    except InputError as error:
        return error


def _on_cluster(prepare: Callable[[], Callable[[T], R]], pieces: Sequence[T], workers: int, cluster: str) -> Iterator[tuple[T, R]]:
    with connected(cluster, workers) as ray:
        # Where the cluster has accelerators, each worker gets one of its own.
        graphics = 1 if ray.cluster_resources().get("GPU", 0) >= 1 else 0
        # Ray starts a worker that dies again, and gives it the same piece.
        kind = ray.remote(num_cpus=1, num_gpus=graphics, max_restarts=-1, max_task_retries=_TRIES - 1)(_RemoteWorker)
        idle = [kind.remote(prepare) for _ in range(min(workers, len(pieces)))]
        waiting = list(range(len(pieces)))[::-1]
        running: dict[Any, tuple[int, Any]] = {}
        while waiting or running:
            while waiting and idle:
                number, worker = waiting.pop(), idle.pop()
                running[worker.work.remote(pieces[number])] = number, worker
            ready = ray.wait(list(running))[0][0]
            number, worker = running.pop(ready)
            idle.append(worker)
            try:
                result = ray.get(ready)
            except ray.exceptions.RayActorError:
                raise InputError(f"{_TRIES} workers ended over the same piece of work: try fewer --workers") from None
            if isinstance(result, InputError):
                raise result
            yield pieces[number], result


class _RemoteWorker:
    """A worker of a cluster."""

    def __init__(self, prepare: Callable[[], Callable[[Any], Any]]) -> None:
        self._prepare = prepare
        self._function: Callable[[Any], Any] | None = None

    def work(self, piece: Any) -> Any:
        """Returns what the function makes of a piece, or bad input as a value."""
        return as_value(self._made, piece)

    def _made(self, piece: Any) -> Any:
        if self._function is None:
            self._function = self._prepare()
        return self._function(piece)


# These are options of glibc's mallopt. The threshold _LARGEST_KEPT is the largest that all its versions take.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_LARGEST_KEPT = 2**25
_MOST_KEPT = 2**27


def keep_freed_memory() -> None:
    """Makes this process keep freed memory, for computing frame after frame on a CPU. It must be called before threads are started.

    glibc returns maps of some megabytes to the system when they are freed. Each then comes back page by page, zeroed, which took 7 % of a
    frame's time. With one arena for all threads the process needs less memory in all. Other C libraries are not changed.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _LARGEST_KEPT), (_TRIM_THRESHOLD, _MOST_KEPT)):
            mallopt(option, value)


_MEBI = 2**20


def peak_memory_mb() -> float:
    """Returns the largest resident memory of this process since it began, in MiB."""
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / _MEBI
    if sys.platform == "linux":
        # getrusage is not used here, because its peak also covers the process that started this one.
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / _MEBI if sys.platform == "darwin" else peak / 1024  # It is in bytes there, and in KiB on Linux.


def peak_device_memory_mb(device: str) -> float | None:
    """Returns the most memory that tensors took on a CUDA device since the process began, in MiB; None for other devices."""
    import torch

    return torch.cuda.max_memory_allocated(device) / _MEBI if device.startswith("cuda") else None
