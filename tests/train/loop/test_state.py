"""Checkpoint files, and what may change between two calls of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dagan.errors import InputError
from dagan.train import log as runlog


def test_last_and_previous(tmp_path: Path) -> None:
    assert runlog.find_checkpoint(tmp_path) is None
    for step in (1, 2, 3):
        runlog.save_checkpoint(tmp_path, {"step": step, "weight": torch.full((2,), float(step))})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.ckpt", "previous.ckpt"]
    assert runlog.load_checkpoint(tmp_path / "last.ckpt")["step"] == 3
    previous = runlog.load_checkpoint(tmp_path / "previous.ckpt")
    assert previous["step"] == 2
    assert torch.equal(previous["weight"], torch.full((2,), 2.0))
    assert runlog.find_checkpoint(tmp_path) == tmp_path / "last.ckpt"
    (tmp_path / "last.ckpt").unlink()
    assert runlog.find_checkpoint(tmp_path) == tmp_path / "previous.ckpt"


def test_interrupted_save_keeps_the_last_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runlog.save_checkpoint(tmp_path, {"step": 1})

    def half(payload: object, file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        runlog.save_checkpoint(tmp_path, {"step": 2})
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]
    assert runlog.load_checkpoint(tmp_path / "last.ckpt")["step"] == 1


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    with pytest.raises(InputError, match="does not exist"):
        runlog.load_checkpoint(path)
    path.write_bytes(b"garbage")
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        runlog.load_checkpoint(path)
    torch.save({"weight": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="not a checkpoint of this program"):
        runlog.load_checkpoint(path)
    torch.save({"format": 1, "code": Path("x")}, path)
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        runlog.load_checkpoint(path)


def test_changes_are_listed_and_other_networks_refused() -> None:
    old = {"max_steps": 5, "loss": {"l1": 1.0}, "model": {"image_size": 128, "keypoints": {"count": 15}}, "betas": (0.5, 0.9)}
    new = {"max_steps": 9, "loss": {"l1": 2.0}, "model": {"image_size": 256, "keypoints": {"count": 15}}, "betas": [0.5, 0.9], "ema": 0.9}
    expected = ["ema: (none) -> 0.9", "loss.l1: 1.0 -> 2.0", "max_steps: 5 -> 9", "model.image_size: 128 -> 256"]
    assert runlog.changed_keys(old, new) == expected
    assert runlog.changed_keys(old, old) == []
    with pytest.raises(InputError, match=r"another network \(model\.keypoints\.count: 15 -> 10\)"):
        runlog.changed_keys(old, old | {"model": {"image_size": 128, "keypoints": {"count": 10}}})
