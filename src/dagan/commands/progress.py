"""A progress bar with the time left, on the terminal's error stream; a line a minute where that is no terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from dagan.commands.notices import warn
from dagan.progress import Lines
from dagan.progress import Progress as Listener


@contextmanager
def progress_bar() -> Iterator[Listener]:
    """Yields what a job reports to: one line for each of its stages, removed at the end."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines(warn, beginnings=False)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=console, transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage)
            progress.update(tasks[stage], completed=done, total=max(done, total) or None)

        yield show
