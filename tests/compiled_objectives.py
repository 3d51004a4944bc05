"""Compiling without a compiler of machine code, for tests of what is compiled for training."""

from __future__ import annotations

import pytest
import torch


def compiled_by(monkeypatch: pytest.MonkeyPatch, backend: str) -> list[str]:
    """Lets torch.compile use a backend. Returns a list to which the classes of what is compiled are added, by name."""
    whole = torch.compile
    compiled: list[str] = []

    def traced(function: object, **settings: object) -> object:
        compiled.append(type(getattr(function, "__self__", function)).__name__)
        return whole(function, backend=backend)  # type: ignore[call-overload]

    monkeypatch.setattr(torch, "compile", traced)
    return compiled
