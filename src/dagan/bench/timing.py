"""The parts of a measurement of speed: clocks, a yardstick, the scene that is animated, and the figures that come out.

The yardstick is the fastest matrix product of the machine. The scene is a portrait that sways, made from the astronaut that comes with
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
_PEAK_SECONDS = 0.3  # Each size is measured for so long.


@dataclass(frozen=True)
class Times:
    """The milliseconds of repeated calls."""

    p50: float
    """Half of the calls take no longer."""
    p90: float
    """9 of 10 calls take no longer."""
    p99: float
    """99 of 100 calls take no longer."""
    least: float
    """The fastest call takes this long."""

    @classmethod
    def of(cls, seconds: list[float]) -> Times:
        """Makes them from the seconds of each call."""
        p50, p90, p99 = (float(p) for p in np.percentile(seconds, (50, 90, 99)) * 1000)
        return cls(p50, p90, p99, min(seconds) * 1000)


def timed(call: Callable[[], object]) -> float:
    """Returns the seconds that one call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def repeated(call: Callable[[], object], seconds: float, least: int = 3) -> Times:
    """Calls once to warm up, then for so many seconds, and at least `least` times."""
    call()
    times: list[float] = []
    while len(times) < least or sum(times) < seconds:
        times.append(timed(call))
    return Times.of(times)


def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Returns the GFLOP/s of the fastest square matrix product in this precision, on as many threads as PyTorch has now."""
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
    """The speed of one part of a model."""

    name: str
    """encode (a source, once), keypoints, or draw."""
    single: Times
    """The times of calls with one picture."""
    batch_ms: float
    """The milliseconds for one picture of a full batch."""
    gflop: float
    """The GFLOP of one picture."""
    peak_share: float | None
    """Its share of the machine's matrix product in this precision, at full batches.

    None where the runtime computes in another precision than the product was measured in.
    """


@dataclass(frozen=True)
class RuntimeFigures:
    """The speed of one runtime."""

    runtime: str
    device: str
    precision: str
    batch_size: int
    parts: list[Part]
    latency: Times
    """Milliseconds from a driving frame to its picture, one at a time."""
    difference_mean: float | None
    """The mean difference of its pictures to PyTorch's in float32, in 255ths; None for an exported folder whose model is not here."""
    difference_max: float | None
    """The largest difference, likewise."""
    video_fps: float | None
    """Frames a second when a video is read, cut out, computed and written; None without a video."""


@dataclass(frozen=True)
class BenchReport:
    """A report of one run of the benchmark."""

    model: str
    trained: bool
    """Whether the weights are trained."""
    machine: str
    threads: int
    torch: str
    peak_gflops: dict[str, float]
    """The speed of matrix products, by precision."""
    runtimes: list[RuntimeFigures]
    left_out: dict[str, str] = field(default_factory=dict)
    """The runtimes that are installed but cannot compute this, and why."""
    peak_memory_mb: float = 0.0
    """The most memory that the process used, in MiB."""
    device_memory_mb: float | None = None
    """The most memory that was used on a CUDA device, in MiB."""


RATE = 25


def swaying(size: int = 256) -> Iterator[np.ndarray]:
    """Yields frames size x size x 3 uint8 without end: the portrait is cut out along a slow circle, one turn in four seconds."""
    from skimage.data import astronaut

    picture = astronaut()
    i = 0
    while True:
        turn = 2 * np.pi * i / (4 * RATE)
        yield crop(picture, Framing(226 + 12 * np.cos(turn), 150 + 12 * np.sin(turn), 280), size)
        i += 1


def write_clip(path: Path, frames: int, size: int = 256) -> Path:
    """Writes a video of so many frames, `RATE` a second, and returns its path."""
    from dagan.media.video import VideoWriter

    with VideoWriter(path, size, size, rate=RATE) as writer:
        for i, picture in enumerate(islice(swaying(size), frames)):
            writer.write(picture, Fraction(i, RATE))
    return path
