"""Device and precision, decided here and nowhere else."""

from __future__ import annotations

import torch

from dagan.errors import InputError

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str = "auto") -> torch.device:
    """ "auto": CUDA, else MPS, else the CPU; otherwise the named device. Raises InputError when it is not there."""
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
    """ "auto": bfloat16 where the hardware multiplies in it, float16 on older CUDA devices, else float32.

    Raises InputError for a name that is none of auto, float32, bfloat16, float16.
    """
    if name == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
        return torch.bfloat16 if device.type == "cpu" and _cpu_multiplies_bfloat16() else torch.float32
    if name not in PRECISIONS:
        raise InputError(f"precision {name!r} is unknown: use auto, {', '.join(PRECISIONS)}")
    return PRECISIONS[name]


def _cpu_multiplies_bfloat16() -> bool:
    """Without the instructions bfloat16 is emulated and slower than float32."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_arm_bf16_supported")
    return any(getattr(torch.cpu, check, bool)() for check in checks)
