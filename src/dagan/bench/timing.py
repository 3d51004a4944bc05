"""Clocks: one call timed often, and the fastest matrix product there is, as a yardstick."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

_PEAK_SIDES = {"cpu": (512, 1024, 2048), "cuda": (4096, 8192)}
_PEAK_SECONDS = 0.3  # for each size


@dataclass(frozen=True)
class Times:
    """Milliseconds of repeated calls: the middle one, that which 9 of 10 and 99 of 100 do not exceed, and the least."""

    p50: float
    p90: float
    p99: float
    least: float

    @classmethod
    def of(cls, seconds: list[float]) -> Times:
        """From the seconds of each call."""
        p50, p90, p99 = (float(p) for p in np.percentile(seconds, (50, 90, 99)) * 1000)
        return cls(p50, p90, p99, min(seconds) * 1000)


def timed(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def repeated(call: Callable[[], object], seconds: float, least: int = 3) -> Times:
    """Calls once to warm up, then for so many seconds, and at least so often."""
    call()
    times: list[float] = []
    while len(times) < least or sum(times) < seconds:
        times.append(timed(call))
    return Times.of(times)


def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """GFLOP/s of the fastest square matrix product in this precision, on as many threads as PyTorch has now."""
    best = 0.0
    for side in _PEAK_SIDES.get(device.type, _PEAK_SIDES["cpu"]):
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))

        def multiply(a: torch.Tensor = a, b: torch.Tensor = b) -> None:
            torch.mm(a, b)
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        best = max(best, 2 * side**3 / (repeated(multiply, _PEAK_SECONDS).least / 1000) / 1e9)
    return best
