"""Waiting for something that another thread or process does."""

import time
from collections.abc import Callable


def until(condition: Callable[[], bool], seconds: float) -> None:
    """Waits until the condition holds, and fails when that takes longer than so many seconds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "it did not come true in time"
        time.sleep(0.05)
