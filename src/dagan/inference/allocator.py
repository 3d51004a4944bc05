"""The C library's memory for large maps: kept for the next frame instead of given back and asked for again."""

from __future__ import annotations

import ctypes
import sys

# glibc's mallopt. The threshold is the largest that all its versions take.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_LARGEST_KEPT = 2**25
_MOST_KEPT = 2**27


def keep_freed_memory() -> None:
    """For a whole process that computes frame after frame on a CPU; to be called before it starts threads.

    glibc returns maps of some megabytes to the system when they are freed: each comes back page by page, zeroed, which took 7 % of a
    frame's time. With one arena for all threads the process needs less memory in all. Other C libraries are left alone.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _LARGEST_KEPT), (_TRIM_THRESHOLD, _MOST_KEPT)):
            mallopt(option, value)
