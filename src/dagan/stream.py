"""Streams that several threads work on: items are read ahead, cut into batches, and mapped on workers.

A job is a chain of generators: decoding, computing and encoding each take items from the one before. `ahead` moves a step into a thread
of its own, so that it decodes while the next step computes. `mapped` computes several items at once. `on_workers` does so with as many
threads as an engine can use, each with one core to itself. `batched` cuts a stream into lists.

A generator here starts its threads with its first item and ends them when it ends, in whichever way: exhausted, closed, or by an exception
(Ctrl-C too). Nothing is computed more than a few items ahead, so that memory stays bounded whichever step is slow.
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
    """Yields lists of `size` items, the last one shorter. (itertools.batched came with Python 3.12, and gives tuples.)"""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


R = TypeVar("R")
_END: Any = object()


def ahead(items: Iterable[T], depth: int = 2) -> Generator[T]:
    """Yields the items in their order. A thread of its own takes them from `items`, at most `depth` before they are asked for.

    An exception of `items` is raised where its item would have come. If `items` is a generator, it is closed at the end.
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
    """Yields function(item) for each item, in their order. `workers` threads compute at once, and one more item waits for them.

    `setup` is called by each thread first. `items` are taken in the caller's thread. Exceptions of either are raised where the result would
    have come, after the results before it.
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
    """Yields what to compute for each item. Where taking one fails, it is a call that fails so, after those before it."""
    try:
        for item in items:
            yield partial(function, item)
    except Exception as error:
        yield partial(_fail, error)


def _fail(error: Exception) -> Any:
    raise error


@contextmanager
def _threads(count: int, setup: Callable[[], None] | None = None) -> Iterator[tuple[ThreadPoolExecutor, deque[Future[Any]]]]:
    """Yields a pool and the queue of its work. At the end, work that has not begun is dropped, and the rest is waited for."""
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
    """Yields function(item) for each item, in their order, computed ahead by so many threads (an engine says how many are a gain).

    If there are several threads, each uses one core.
    """
    threads = torch.get_num_threads()
    with closing(mapped(function, items, workers, partial(torch.set_num_threads, 1) if workers > 1 else None)) as results:
        try:
            yield from results
        finally:
            if workers > 1:  # The setting of one thread would be the default of all later ones.
                torch.set_num_threads(threads)
