"""What a measurement gives, as it goes to `--json`. Milliseconds and frames are of single pictures unless a batch is named."""

from __future__ import annotations

from dataclasses import dataclass, field

from dagan.bench.timing import Times


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
