"""How a job tells how far it is; who listens (a progress bar, a web page, nobody) is the face's affair."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Called as progress(stage, done, total): `total` is an estimate, 0 where there is none."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...


def silent(stage: str, done: int, total: int) -> None:
    """Listens to nothing."""


def counted(items: Iterable[T], progress: Progress, stage: str, total: int) -> Generator[T]:
    """The items as they are, each told to `progress` once the consumer asks for the next."""
    progress(stage, 0, total)
    for done, item in enumerate(items, 1):
        yield item
        progress(stage, done, total)
