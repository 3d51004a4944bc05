"""Device, precision, batch sizes and threads are decided here and nowhere else."""

from __future__ import annotations

import os
import time

import torch

from dagan.errors import InputError

# The largest map of a whole batch may have so many bytes. On a CPU a larger one leaves the cache, costs memory and gains nothing; eight
# small pictures at once are 2 to 6 % faster than four.
_BATCH_BYTES = {"cpu": 2**24, "mps": 2**26, "cuda": 2**28}
_BATCH_SIZES = {"cpu": (1, 8), "mps": (1, 8), "cuda": (4, 32)}  # These are the smallest and the largest batch.
_MOST_WORKERS = 8  # Each worker holds a batch's maps in memory.
_PRODUCT = 256  # The product of matrices with this side tells how slow a precision is.
# oneDNN computes PyTorch's products on CPUs. Its instructions can be limited by these variables, and with these values it has none for
# bfloat16, whatever the processor has.
_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_WITHOUT_BFLOAT16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.int8}


def choose_device(name: str = "auto") -> torch.device:
    """Returns the named device, where "auto" is CUDA, else MPS, else the CPU. Raises InputError when it is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device {name!r} is unknown: use auto, cpu, cuda, cuda:N or mps") from None
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if not there.get(device.type, False):
        raise InputError(f"device {name!r} is not available on this machine: use auto or cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {name!r} does not exist: there are {torch.cuda.device_count()} CUDA devices, from cuda:0")
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Returns the named precision. "auto" is bfloat16 where the hardware multiplies in it, float16 on older CUDA devices, else float32.

    int8 means the lite decoder in bytes and the rest in bfloat16 (see `engine.cpu.pyramid`). Raises InputError for other names, and for
    int8 where the hardware has none.
    """
    if name == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
        return torch.bfloat16 if device.type == "cpu" and _cpu_multiplies_bfloat16() else torch.float32
    if name not in PRECISIONS:
        raise InputError(f"precision {name!r} is unknown: use auto, {', '.join(PRECISIONS)}")
    if name == "int8" and (device.type != "cpu" or not _cpu_multiplies_int8()):
        raise InputError("precision int8 needs a CPU that multiplies bytes (AVX-512 with VNNI and bfloat16): use --precision auto")
    return PRECISIONS[name]


def slowness(dtype: torch.dtype, device: torch.device) -> float | None:
    """Returns how many times as long as in float32 the CPU takes to multiply in a precision for which it has no instructions.

    It is None where the CPU has them, and for other devices. It is measured on one small product, which takes some milliseconds.
    """
    if device.type != "cpu" or dtype == torch.float32 or (dtype == torch.bfloat16 and _cpu_multiplies_bfloat16()):
        return None
    times = []
    for kind in (torch.float32, dtype):
        matrix = torch.ones(_PRODUCT, _PRODUCT, dtype=kind)
        torch.mm(matrix, matrix)  # The first product prepares the others.
        times.append(min(_seconds(matrix) for _ in range(3)))
    return times[1] / times[0]


def _seconds(matrix: torch.Tensor) -> float:
    began = time.perf_counter()
    torch.mm(matrix, matrix)
    return time.perf_counter() - began


def choose_batch_size(device: torch.device, widest: int) -> int:
    """Returns how many pictures to compute at once. `widest` is the size in bytes of the model's largest feature map for one picture."""
    kind = device.type if device.type in _BATCH_SIZES else "cpu"
    least, most = _BATCH_SIZES[kind]
    return max(least, min(most, _BATCH_BYTES[kind] // max(widest, 1)))


def choose_workers(device: torch.device) -> int:
    """Returns how many batches to compute at the same time: on a CPU one for each of PyTorch's threads, elsewhere one.

    Threads with a batch each wait for nothing. Threads that share every layer of one batch wait for the slowest, layer by layer, and
    more so where decoding and encoding use the same cores.
    """
    return min(torch.get_num_threads(), _MOST_WORKERS) if device.type == "cpu" else 1


def _cpu_multiplies_int8() -> bool:
    vnni = getattr(torch.cpu, "_is_vnni_supported", bool)()
    return bool(vnni and _cpu_multiplies_bfloat16() and hasattr(torch.ops.onednn, "qconv2d_pointwise"))


def _cpu_multiplies_bfloat16() -> bool:
    """Says whether the CPU has the instructions and the environment lets oneDNN use them. Else bfloat16 is emulated, and slow."""
    if any(os.environ.get(name, "").upper() in _WITHOUT_BFLOAT16 for name in _LIMITS):
        return False
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_arm_bf16_supported")
    return any(getattr(torch.cpu, check, bool)() for check in checks)
