"""How a job tells how far it is (`Progress`) and what the user should know (`Warn`). An interface listens, or nobody does."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterable
from typing import Protocol, TypeVar

Warn = Callable[[str], None]


def to_stderr(message: str) -> None:
    """Prints one line on the error stream, so that standard output stays clean for results."""
    print(message, file=sys.stderr)


T = TypeVar("T")


class Progress(Protocol):
    """Called as progress(stage, done, total): `total` is an estimate, 0 where there is none."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...


def silent(stage: str, done: int, total: int) -> None:
    """Listens to nothing."""


class Lines:
    """Tells a log, which has no room for a bar: a line when a stage begins (unless not `beginnings`), then one every `seconds`."""

    def __init__(self, write: Callable[[str], None], beginnings: bool = True, seconds: float = 60) -> None:
        self.write, self.beginnings, self.seconds = write, beginnings, seconds
        self._said = time.monotonic()
        self._stages: set[str] = set()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """A `Progress`."""
        begins = stage not in self._stages
        self._stages.add(stage)
        if self.due() or (begins and self.beginnings):
            self._said = time.monotonic()
            self.write(f"{stage}: {done} of {total}" if total else f"{stage}: {done}")

    def due(self) -> bool:
        """Whether nothing has been said for long."""
        return time.monotonic() - self._said >= self.seconds

    def said(self) -> None:
        """Somebody else has written a line."""
        self._said = time.monotonic()


def counted(items: Iterable[T], progress: Progress, stage: str, total: int) -> Generator[T]:
    """The items as they are, each told to `progress` once the consumer asks for the next."""
    progress(stage, 0, total)
    for done, item in enumerate(items, 1):
        yield item
        progress(stage, done, total)
