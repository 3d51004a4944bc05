"""Streams that are worked on by several threads: read ahead, cut into batches, mapped on workers.

A job is a chain of generators: decoding, computing and encoding each take items from the one before. `ahead` moves a step into a
thread of its own, so that it decodes while the next step computes; `mapped` computes several items at once; `on_workers` does so
with as many threads as an engine can use, each with one core to itself. `batched` cuts a stream into lists.

A generator here starts its threads with its first item and ends them when it ends, however that comes: exhausted, closed, or with
an exception (Ctrl-C too). Nothing is computed more than a few items ahead, so memory stays bounded whichever step is slow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last one shorter. (itertools.batched came with Python 3.12, and gives tuples.)"""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


R = TypeVar("R")
_END: Any = object()


def ahead(items: Iterable[T], depth: int = 2) -> Generator[T]:
    """The items in their order, taken from `items` by a thread of its own, at most `depth` before they are asked for.

    An exception of `items` is raised where its item would have come. `items`, where it is a generator, is closed at the end.
    """
    iterator = iter(items)
    try:
        with _threads(1) as (pool, waiting):
            waiting.extend(pool.submit(next, iterator, _END) for _ in range(depth))
            while (item := waiting.popleft().result()) is not _END:
                waiting.append(pool.submit(next, iterator, _END))
                yield item
    finally:
        _close(iterator)


def mapped(function: Callable[[T], R], items: Iterable[T], workers: int = 1, setup: Callable[[], None] | None = None) -> Generator[R]:
    """function(item) for each item, in their order, computed by `workers` threads at once; one more item waits for them.

    setup: called by each thread first. `items` are taken in the caller's thread. Exceptions of either are raised where the result
    would have come; results before it are given out.
    """
    iterator = iter(items)
    try:
        with _threads(workers, setup) as (pool, waiting):
            for call in _calls(function, iterator):
                waiting.append(pool.submit(call))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        _close(iterator)


def _calls(function: Callable[[T], R], items: Iterator[T]) -> Iterator[Callable[[], R]]:
    """What to compute for each item; where taking one fails, a call that fails so: it keeps its place after those before it."""
    try:
        for item in items:
            yield partial(function, item)
    except Exception as error:
        yield partial(_fail, error)


def _fail(error: Exception) -> Any:
    raise error


@contextmanager
def _threads(count: int, setup: Callable[[], None] | None = None) -> Iterator[tuple[ThreadPoolExecutor, deque[Future[Any]]]]:
    """A pool and the queue of what it works on; at the end, what has not begun is dropped and what has begun is waited for."""
    pool = ThreadPoolExecutor(count, thread_name_prefix="dagan-stage", initializer=setup)
    try:
        yield pool, deque()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _close(iterator: Iterator[Any]) -> None:
    close = getattr(iterator, "close", None)
    if close is not None:
        close()


def on_workers(workers: int, function: Callable[[T], R], items: Iterable[T]) -> Generator[R]:
    """function(item) for each item, in their order, computed ahead by so many threads (an engine says how many gain).

    Several threads keep to one core each.
    """
    threads = torch.get_num_threads()
    with closing(mapped(function, items, workers, partial(torch.set_num_threads, 1) if workers > 1 else None)) as results:
        try:
            yield from results
        finally:
            if workers > 1:  # the setting of one thread is the default of all later ones
                torch.set_num_threads(threads)
