"""Cutting a stream into batches without reading ahead of need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last one shorter. (itertools.batched came with Python 3.12, and gives tuples.)"""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
