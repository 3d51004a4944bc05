"""Turns: long jobs run one after the other, because two at once would take twice as long each and twice the memory.

Whoever has had no turn for longest comes first, so that one visitor with many jobs does not keep the others waiting.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from dagan.errors import InputError


@dataclass(eq=False)
class Place:
    """A place in the queue."""

    visitor: str
    """Whose place it is."""
    number: int
    """Places are numbered as they come."""
    called: asyncio.Event = field(default_factory=asyncio.Event)
    """Is set when it is this place's turn."""


class Turns:
    """Gives turns to visitors. It is used from one event loop.

    Args:
        at_once: So many jobs run at the same time.
        most: So many jobs may wait in all.
        most_each: So many jobs may wait for one visitor.
    """

    def __init__(self, at_once: int = 1, most: int = 40, most_each: int = 12) -> None:
        self._free, self._most, self._most_each = at_once, most, most_each
        self._waiting: list[Place] = []
        self._numbers = itertools.count(1)
        self._last_turn: dict[str, int] = {}

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._waiting)

    @property
    def free(self) -> int:
        """How many more jobs could run now."""
        return self._free

    @asynccontextmanager
    async def place(self, visitor: str) -> AsyncIterator[Place]:
        """Yields a place in the queue. Its holder waits for `called`, works, and leaves the block, at any time, by whatever way.

        Raises InputError when too many wait.
        """
        if len(self._waiting) >= self._most or sum(place.visitor == visitor for place in self._waiting) >= self._most_each:
            raise InputError(f"too many jobs wait ({len(self._waiting)}): try again in a few minutes")
        place = Place(visitor, next(self._numbers))
        self._waiting.append(place)
        self._call()
        try:
            yield place
        finally:
            if place in self._waiting:
                self._waiting.remove(place)
            else:
                self._free += 1
            self._call()

    def before(self, place: Place) -> int:
        """Returns how many of those who wait come before this place."""
        return sorted(self._waiting, key=self._rank).index(place) if place in self._waiting else 0

    def _call(self) -> None:
        while self._free and self._waiting:
            place = min(self._waiting, key=self._rank)
            self._waiting.remove(place)
            self._last_turn[place.visitor] = next(self._numbers)
            if len(self._last_turn) > 1000:  # Visitors who have long gone are forgotten.
                del self._last_turn[min(self._last_turn, key=self._last_turn.__getitem__)]
            self._free -= 1
            place.called.set()

    def _rank(self, place: Place) -> tuple[int, int]:
        return self._last_turn.get(place.visitor, 0), place.number
