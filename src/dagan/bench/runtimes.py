"""The runtimes there are to measure: PyTorch, and those of `dagan.export` where it is installed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from dagan.errors import InputError
from dagan.inference.engine import Engine
from dagan.models.dagan import DaGAN

TORCH = "torch"


def available() -> list[str]:
    """Names of the runtimes that can run here, PyTorch first."""
    if find_spec("dagan.export") is None:
        return [TORCH]
    from dagan.export import runtimes  # type: ignore[import-not-found, unused-ignore]

    return [TORCH, *(name for name in runtimes.available() if name != TORCH)]


def open_engine(model: DaGAN, runtime: str, batch_size: int | None) -> Any:
    """An engine of that runtime around the model. Raises InputError when there is no such runtime here."""
    if runtime == TORCH:
        return Engine(model, batch_size)
    if runtime not in available():
        raise InputError(f"there is no runtime {runtime!r} here: use {', '.join(available())}")
    from dagan.export import runtimes  # type: ignore[import-not-found, unused-ignore]

    return runtimes.open_engine(model, runtime, batch_size)
