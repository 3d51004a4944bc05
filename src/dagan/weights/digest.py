"""Telling weights apart by what they are."""

from __future__ import annotations

import hashlib

import numpy as np
from torch import nn


def weights_digest(*modules: nn.Module | None) -> str:
    """SHA-256 (hexadecimal) of the parameters and buffers of modules, as float32; None stands for a part that is not there."""
    digest = hashlib.sha256()
    for module in modules:
        for key, tensor in () if module is None else sorted(module.state_dict().items()):
            digest.update(f"{key}{tuple(tensor.shape)}".encode())
            digest.update(np.ascontiguousarray(tensor.detach().cpu().float().numpy()).tobytes())
    return digest.hexdigest()
