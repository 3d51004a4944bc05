"""The terminal: warnings, a progress bar, and standard streams that never end a job.

When the disk behind standard output or standard error is full, or the pipe is closed, their text is lost, and nothing else.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from dagan.progress import Progress

# These mean that the reader of a pipe has gone (on Windows such a write is invalid). It wanted no more, so nothing is missing.
_READER_GONE = {errno.EPIPE, errno.EINVAL, errno.ESHUTDOWN}


def warn(message: str) -> None:
    """Prints one line on the error stream."""
    print(f"dagan: {message}", file=sys.stderr)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Yields the `Progress` of a job: a bar with the time left for each of its stages, which is removed at the end.

    Where the error stream is no terminal, a line is written every minute.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from dagan.progress import Lines

    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines(warn, beginnings=False)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    with Bar(*columns, console=console, transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage)
            progress.update(tasks[stage], completed=done, total=max(done, total) or None)

        yield show


class _Lenient:
    """A text stream whose writes do not fail. `problem` says why text was lost, and is None where none was or nobody reads it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.problem: str | None = None

    def write(self, text: str) -> int:
        """Writes text, or loses it."""
        with self._lossy():
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Writes lines, or loses them."""
        with self._lossy():
            self._stream.writelines(lines)

    def flush(self) -> None:
        """Writes what is buffered, or loses it."""
        with self._lossy():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextmanager
    def _lossy(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _READER_GONE and self.problem is None:
                self.problem = os.strerror(error.errno) if error.errno else str(error)
            with suppress(OSError, ValueError):
                # Text that is still buffered is thrown away, or Python would fail at it again when it ends.
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)
        except ValueError:  # The stream is closed.
            pass


@contextmanager
def lenient_streams() -> Iterator[None]:
    """Makes standard output and error take every text in the block. Characters that cannot be written are escaped.

    Text that finds no place is lost. At the end this is reported on the error stream, except where the reader of a pipe has gone.
    """
    _occupy()
    before = sys.stdout, sys.stderr
    output, error = (_Lenient(_escaping(stream)) for stream in before)
    sys.stdout, sys.stderr = cast(TextIO, output), cast(TextIO, error)
    try:
        yield
    finally:
        output.flush()
        if output.problem is not None:
            error.write(f"dagan: not all of the text for standard output could be written ({output.problem})\n")
        error.flush()
        sys.stdout, sys.stderr = before


def check_printed() -> None:
    """Ends with status 1 when standard output lost text. It is for commands whose only result is printed."""
    sys.stdout.flush()
    if getattr(sys.stdout, "problem", None) is not None:
        sys.exit(1)


def _escaping(stream: TextIO) -> TextIO:
    """Makes the stream write characters that it cannot encode (of file names that are no text) as escapes, and returns it."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
    return stream


def _occupy() -> None:
    """Opens streams that were closed before the start. Else the next file to be opened, a result, would get the number of one."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is not None:
            continue
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
        setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 (it stays open to the end)
