"""What a measurement of speed is made of: clocks, a yardstick, the scene that is animated, and the figures that come out.

The yardstick is the fastest matrix product there is; the scene a portrait that sways, made from the astronaut that comes with
scikit-image. Milliseconds and frames are of single pictures unless a batch is named.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from dagan.media.framing import Framing, crop

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


@dataclass(frozen=True)
class Part:
    """One part of a model: encode (a source, once), keypoints, or draw. single: calls with one picture; batch_ms: one picture of a
    full batch. gflop: of one picture. peak_share: of the machine's matrix product in this precision, at full batches; None where
    the runtime computes in another precision than the peak was measured in."""

    name: str
    single: Times
    batch_ms: float
    gflop: float
    peak_share: float | None


@dataclass(frozen=True)
class RuntimeFigures:
    """One runtime. difference_mean, difference_max: of its pictures to PyTorch's in float32, in 255ths; None for an exported
    folder whose model is not here. latency: ms from a driving
    frame to its picture, one at a time. video_fps: read, cut out, compute and write a video; None without."""

    runtime: str
    device: str
    precision: str
    batch_size: int
    parts: list[Part]
    latency: Times
    difference_mean: float | None
    difference_max: float | None
    video_fps: float | None


@dataclass(frozen=True)
class NaiveFigures:
    """The naive way with one model, interleaved with the fast way: ratios of frames a second, round by round and their median."""

    model: str
    naive_fps: float
    fast_fps: float
    ratios: list[float]
    ratio: float


@dataclass(frozen=True)
class BenchReport:
    """One run of the benchmark. peak_gflops: by precision. trained: whether the weights are; left_out: runtimes that are here
    and cannot compute this, and why; peak_memory_mb: of the process."""

    model: str
    trained: bool
    machine: str
    threads: int
    torch: str
    peak_gflops: dict[str, float]
    runtimes: list[RuntimeFigures]
    naive: list[NaiveFigures] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    peak_memory_mb: float = 0.0
    device_memory_mb: float | None = None


RATE = 25


def swaying(size: int = 256) -> Iterator[np.ndarray]:
    """Frames size x size x 3 uint8 without end: the portrait cut out along a slow circle, one turn in four seconds."""
    from skimage.data import astronaut

    picture = astronaut()
    i = 0
    while True:
        turn = 2 * np.pi * i / (4 * RATE)
        yield crop(picture, Framing(226 + 12 * np.cos(turn), 150 + 12 * np.sin(turn), 280), size)
        i += 1


def write_clip(path: Path, frames: int, size: int = 256) -> Path:
    """A video of so many frames, `RATE` a second."""
    from dagan.media.video import VideoWriter

    with VideoWriter(path, size, size, rate=RATE) as writer:
        for i, picture in enumerate(islice(swaying(size), frames)):
            writer.write(picture, Fraction(i, RATE))
    return path
