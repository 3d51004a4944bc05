"""The naive way in a process of its own: with the memory of a plain program, not the one that a command has arranged for itself."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch

from dagan.bench.models import open_model
from dagan.bench.naive import Naive
from dagan.bench.timing import timed
from dagan.errors import InputError


class Rival:
    """Times the naive way of a model on request. A context manager: within, the process is there, the model open and warm.

    name, device, precision: as `open_model` takes them. pictures: S x S x 3 uint8; the first is the source, all are driven by where
    there is no video. Raises InputError when the process ends early.
    """

    def __init__(self, name: str, device: str, precision: str, pictures: Sequence[np.ndarray]) -> None:
        context = multiprocessing.get_context("spawn")
        self._name = name
        self._connection, other = context.Pipe()
        arguments = (other, name, device, precision, list(pictures), torch.get_num_threads())
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._other = other

    def __enter__(self) -> Self:
        self._process.start()
        self._other.close()
        self._receive()
        return self

    def seconds(self, driving: Path | None, output: Path) -> float:
        """Of one run: a video read, computed and written, or the pictures computed."""
        with suppress(OSError):  # where nobody listens, nobody answers either
            self._connection.send((driving, output))
        return self._receive()

    def _receive(self) -> float:
        try:
            return float(self._connection.recv())
        except (EOFError, OSError):
            raise InputError(f"the naive way of {self._name} could not be measured: its process ended") from None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._connection.close()
        if error is not None:
            self._process.kill()  # in the middle of a video, which nobody waits for
        self._process.join()


def _serve(connection: Connection, name: str, device: str, precision: str, pictures: list[np.ndarray], threads: int) -> None:
    """What the process does: answers each request with seconds, until nobody asks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command ends this process by asking no more
    torch.set_num_threads(threads)
    naive = Naive(open_model(name, device, precision)[0], pictures[0])
    connection.send(timed(partial(naive.frame, pictures[0])))
    with suppress(EOFError, OSError):  # nobody asks any more
        while True:
            driving, output = connection.recv()
            connection.send(timed(partial(naive.video, driving, output) if driving else partial(_pictures, naive, pictures)))


def _pictures(naive: Naive, pictures: list[np.ndarray]) -> None:
    for picture in pictures:
        naive.frame(picture)
