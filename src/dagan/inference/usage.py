"""What a run took: peak memory of the process and of the accelerator."""

from __future__ import annotations

import sys
from pathlib import Path

_MEBI = 2**20


def peak_memory_mb() -> float:
    """Largest resident memory of this process since it began, in MiB."""
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / _MEBI
    if sys.platform == "linux":
        # Not getrusage: its peak also covers the process that started this one.
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / _MEBI if sys.platform == "darwin" else peak / 1024  # bytes there, KiB on Linux


def peak_device_memory_mb(device: str) -> float | None:
    """Largest memory that tensors took on a CUDA device since the process began, in MiB; None for other devices."""
    import torch

    return torch.cuda.max_memory_allocated(device) / _MEBI if device.startswith("cuda") else None
