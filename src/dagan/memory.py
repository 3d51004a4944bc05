"""The memory of a process: freed memory is kept for the next frame, and peaks are measured. PyTorch is imported only when needed."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

# These are options of glibc's mallopt. The threshold _LARGEST_KEPT is the largest that all its versions take.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_LARGEST_KEPT = 2**25
_MOST_KEPT = 2**27


def keep_freed_memory() -> None:
    """Makes this process keep freed memory, for computing frame after frame on a CPU. It must be called before threads are started.

    glibc returns maps of some megabytes to the system when they are freed. Each then comes back page by page, zeroed, which took 7 % of a
    frame's time. With one arena for all threads the process needs less memory in all. Other C libraries are not changed.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _LARGEST_KEPT), (_TRIM_THRESHOLD, _MOST_KEPT)):
            mallopt(option, value)


_MEBI = 2**20


def peak_memory_mb() -> float:
    """Returns the largest resident memory of this process since it began, in MiB."""
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / _MEBI
    if sys.platform == "linux":
        # getrusage is not used here, because its peak also covers the process that started this one.
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / _MEBI if sys.platform == "darwin" else peak / 1024  # It is in bytes there, and in KiB on Linux.


def peak_device_memory_mb(device: str) -> float | None:
    """Returns the most memory that tensors took on a CUDA device since the process began, in MiB; None for other devices."""
    import torch

    return torch.cuda.max_memory_allocated(device) / _MEBI if device.startswith("cuda") else None
