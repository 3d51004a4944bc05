"""Long jobs of the page: they take turns, and each runs in a thread of its own, as somebody watches it.

Jobs run one after the other, because two at once would take twice as long each and twice the memory. Whoever has had no turn for longest
comes first, so that one visitor with many jobs does not keep the others waiting.

Who watches a job sees how far it is and how long it still takes, and can end it before its time. A job tells its progress with every frame.
That is where it is stopped: when the visitor asks for it, and when nobody looks any more, because then the visitor has gone and others wait
for the place.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from dagan.errors import InputError
from dagan.progress import Progress


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


T = TypeVar("T")
_LOOK_EVERY = 0.25  # Seconds between two looks at a job.


class Stopped(Exception):
    """Is raised in a job that is to end before its time."""


@dataclass(frozen=True)
class Step(Generic[T]):
    """What is seen of a job at one look."""

    before: int | None = None
    """How many others come first, while the job waits for its turn; None when it runs."""
    stage: str = ""
    """What the job does."""
    done: float = 0.0
    """The share of the job that is done, from 0 to 1."""
    seconds_left: float | None = None
    """An estimate of how long the job still takes; None as long as nothing can be said."""
    ended: bool = False
    """Whether the job has ended."""
    stopped: bool = False
    """Whether it was stopped before its time."""
    result: T | None = None
    """What the job returned."""


class Run(Generic[T]):
    """One job that runs in a thread.

    Args:
        job: This is called with a `Progress`.
        shares: These are the stages that the job tells of, in their order, with the share of the time that each takes.
        most_items: A stage may tell of so many items; a job that goes beyond them is stopped by `refuse`.
        refuse: This returns the exception that ends a job which goes beyond `most_items`.
        patience: The job stops when nobody has looked for so many seconds.
    """

    def __init__(
        self, job: Callable[[Progress], T], shares: Mapping[str, float], most_items: int, refuse: Callable[[int], Exception],
        patience: float = 8.0,
    ) -> None:  # fmt: skip
        self._job, self._shares, self._most, self._refuse, self._patience = job, dict(shares), most_items, refuse, patience
        self._stop = threading.Event()
        self._looked = self._began = time.monotonic()
        self._at: tuple[str, int, int] = ("", 0, 0)
        self._result: T | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="dagan-page-job", daemon=True)

    def start(self) -> None:
        """Starts the job."""
        self._looked = self._began = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Asks the job to end at its next frame."""
        self._stop.set()

    @property
    def stopping(self) -> bool:
        """Whether somebody asked the job to end."""
        return self._stop.is_set()

    @property
    def running(self) -> bool:
        """Whether the job has begun and not yet ended."""
        return self._thread.is_alive()

    def look(self) -> Step[T]:
        """Returns how far the job is. An exception of the job is raised here."""
        self._looked = time.monotonic()
        if not self._thread.is_alive():
            if isinstance(self._error, Stopped):
                return Step(ended=True, stopped=True)
            if self._error is not None:
                raise self._error
            return Step(ended=True, done=1.0, result=self._result)
        stage, done, total = self._at
        share = self._share(stage, done, total)
        spent = time.monotonic() - self._began
        return Step(stage=stage, done=share, seconds_left=spent * (1 - share) / share if share > 0.02 and spent > 1 else None)

    def _share(self, stage: str, done: int, total: int) -> float:
        before = 0.0
        for name, share in self._shares.items():
            if name == stage:
                return min(1.0, before + share * min(done, total) / total) if total else before
            before += share
        return 0.0

    def _work(self) -> None:
        try:
            self._result = self._job(self._progress)
        except BaseException as error:
            self._error = error

    def _progress(self, stage: str, done: int, total: int) -> None:
        self._at = (stage, done, total)
        if self._stop.is_set() or time.monotonic() - self._looked > self._patience:
            raise Stopped
        if done > self._most:
            raise self._refuse(done)


async def watched(run: Run[T], turns: Turns, visitor: str) -> AsyncIterator[Step[T]]:
    """Waits for the visitor's turn, runs the job, and yields what is seen of it, several times a second.

    The place is free for the next one when the job has really ended. Raises InputError when too many wait, and whatever the job raises.
    Closing the iterator stops the job.
    """
    async with turns.place(visitor) as place:
        while not place.called.is_set():
            yield Step(before=turns.before(place))
            if run.stopping:
                yield Step(ended=True, stopped=True)
                return
            await _set_within(place.called, 2 * _LOOK_EVERY)
        run.start()
        try:
            while not (step := run.look()).ended:
                yield step
                await asyncio.sleep(_LOOK_EVERY)
            yield step
        finally:
            run.stop()
            while run.running:
                await asyncio.sleep(0.05)


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
