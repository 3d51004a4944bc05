"""TensorFlow Lite networks through ai-edge-litert: arrays in, named arrays out."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

# The error stream is the process's: threads that turned it aside at once would put back each other's, and lose it for good.
_TURNING = threading.Lock()


class Network:
    """One network from the bytes of its file. Not to be shared by threads. Raises ImportError without ai-edge-litert."""

    def __init__(self, content: bytes, num_threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter

        with _quiet():
            self._interpreter = Interpreter(model_content=content, num_threads=num_threads)
            self._interpreter.allocate_tensors()
        details = self._interpreter.get_input_details()[0]
        self._input = details["index"]
        self.input_shape: tuple[int, ...] = tuple(int(n) for n in details["shape"])
        self._outputs = {detail["name"]: detail["index"] for detail in self._interpreter.get_output_details()}

    @property
    def outputs(self) -> list[str]:
        """Names of the output tensors."""
        return list(self._outputs)

    def run(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Runs on float32 `values` of `input_shape`; returns copies of all outputs by name."""
        self._interpreter.set_tensor(self._input, np.ascontiguousarray(values, dtype=np.float32))
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """The library announces its delegate on the process's error stream, past Python; users need not see that."""
    with _TURNING:
        try:
            saved = os.dup(2)
        except OSError:  # no error stream at all
            yield
            return
        sink = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(sink, 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(sink)
            os.close(saved)
