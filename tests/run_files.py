"""What tests read from a training run's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from dagan.train.log import load_checkpoint


def assert_same(first: Any, second: Any, where: str = "") -> None:
    """Equal to the last bit, whatever is nested."""
    assert type(first) is type(second), where
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_same(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for i, (a, b) in enumerate(zip(first, second, strict=True)):
            assert_same(a, b, f"{where}[{i}]")
    else:
        assert first == second, where


def trained_parts(folder: Path) -> dict[str, Any]:
    """Everything of a checkpoint that training changes."""
    payload = load_checkpoint(folder / "last.ckpt")
    return {name: payload[name] for name in ("step", "modules", "averaged", "optimisers", "scaler")}


def lines(folder: Path) -> list[dict[str, Any]]:
    """The log's entries."""
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
