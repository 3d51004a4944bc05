"""Raw videos are shared out to the machines of a cluster by Ray Data, each by the same function as on one machine.

Every machine must see the raw videos and the folder of clips under the same paths, as on a file system that they share. When a worker or a
machine is lost, Ray gives its videos to another one; nothing half done is left visible, because a video's folder appears whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from dagan.errors import InputError
from dagan.processes import as_value, connected

if TYPE_CHECKING:
    from dagan.prepare.video import Outcome, Task

_PARTS = 4096  # Videos are shared out in at most so many parts, because Ray keeps account of each.


def on_cluster(function: Callable[[Task], Outcome], tasks: Sequence[Task], address: str, workers: int) -> Iterator[Outcome]:
    """Yields function(task) as they get ready. `address` is a Ray cluster's, or "local" for one of `workers` processes on this machine.

    Raises InputError where there is no cluster at the address, and whatever the function raises.
    """
    with connected(address, workers) as ray:
        from ray.data import DataContext

        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        # A worker that dies takes its video with it, which is begun anew elsewhere however often that happens.
        data = ray.data.from_items([{"task": task} for task in tasks], override_num_blocks=min(len(tasks), _PARTS))
        results = data.map(lambda row: {"outcome": as_value(function, row["task"])}, num_cpus=1, max_retries=-1)
        for row in results.iter_rows():
            outcome = row["outcome"]
            if isinstance(outcome, InputError):
                raise outcome
            yield outcome
