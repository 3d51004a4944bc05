"""How a job tells how far it is (`Progress`) and what the user should know (`Warn`). An interface may listen, and need not."""

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
    """Is called as progress(stage, done, total). `total` is an estimate, or 0 where there is none."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...


def silent(stage: str, done: int, total: int) -> None:
    """Ignores progress."""


class Lines:
    """Writes progress to a log, which has no room for a bar.

    A line is written when a stage begins (unless `beginnings` is false), and then every `seconds`.
    """

    def __init__(self, write: Callable[[str], None], beginnings: bool = True, seconds: float = 60) -> None:
        self.write, self.beginnings, self.seconds = write, beginnings, seconds
        self._said = time.monotonic()
        self._stages: set[str] = set()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Takes progress as `Progress` does."""
        begins = stage not in self._stages
        self._stages.add(stage)
        if self.due() or (begins and self.beginnings):
            self._said = time.monotonic()
            self.write(f"{stage}: {done} of {total}" if total else f"{stage}: {done}")

    def due(self) -> bool:
        """Says whether nothing has been written for `seconds`."""
        return time.monotonic() - self._said >= self.seconds

    def said(self) -> None:
        """Notes that a line was written elsewhere."""
        self._said = time.monotonic()


def counted(items: Iterable[T], progress: Progress, stage: str, total: int) -> Generator[T]:
    """Yields the items as they are. Each is told to `progress` when the next one is asked for."""
    progress(stage, 0, total)
    for done, item in enumerate(items, 1):
        yield item
        progress(stage, done, total)
