"""Raw videos are shared out to the machines of a cluster by Ray Data, each by the same function as on one machine.

Every machine must see the raw videos and the folder of clips under the same paths, as on a file system that they share. When a worker or a
machine is lost, Ray gives its videos to another one; nothing half done is left visible, because a video's folder appears whole.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from dagan.errors import InputError

if TYPE_CHECKING:
    from dagan.prepare.video import Outcome, Task

_PATIENCE = 10  # Seconds to wait for an answer.
_PARTS = 4096  # Videos are shared out in at most so many parts, because Ray keeps account of each.
LOCAL = "local"  # This address stands for a cluster of this machine alone, which lives as long as the run.


def on_cluster(function: Callable[[Task], Outcome], tasks: Sequence[Task], address: str, workers: int) -> Iterator[Outcome]:
    """Yields function(task) as they get ready. `address` is a Ray cluster's, or LOCAL for one of `workers` processes on this machine.

    Raises InputError where there is no cluster at the address, and whatever the function raises.
    """
    _require_answer(address)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # Ray must not tell anybody that it is used.
    import ray
    from ray.data import DataContext

    try:
        if address == LOCAL:
            ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _no_answer(address, error) from None
    try:
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        # A worker that dies takes its video with it, which is begun anew elsewhere however often that happens.
        data = ray.data.from_items([{"task": task} for task in tasks], override_num_blocks=min(len(tasks), _PARTS))
        results = data.map(lambda row: {"outcome": _caught(function, row["task"])}, num_cpus=1, max_retries=-1)
        for row in results.iter_rows():
            outcome = row["outcome"]
            if isinstance(outcome, InputError):
                raise outcome
            yield outcome
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
    return InputError(f"--cluster {address}: no Ray cluster answers ({reason}): start one with `ray start --head`, or say local")


def _caught(function: Callable[[Task], Outcome], task: Task) -> Outcome | InputError:
    """Returns bad input as a value, because Ray would wrap it in an exception of its own."""
    try:
        return function(task)
    except InputError as error:
        return error
