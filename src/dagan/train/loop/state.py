"""What a run keeps: checkpoints, and the moving average of weights and buffers.

A checkpoint is written beside its final name and then renamed. It can be read without executing code, and the one before it is kept.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from dagan.errors import InputError

FORMAT = 1
LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
MOST_KEPT = 100  # So many checkpoints may be kept.
# Settings that begin so describe the network and cannot change when a run is continued. All others may change.
_FIXED = ("model.", "egomotion.", "discriminator_width", "discriminator_max_width")
# These are exceptions: no weight depends on them.
_FREE = ("model.name", "model.image_size", "model.motion_size", "model.depth.size", "model.size", "egomotion.size")


def names_of(keep: int) -> list[str]:
    """Returns the names of so many checkpoints, the newest first: last.ckpt, previous.ckpt, previous-2.ckpt and so on."""
    return [LAST, PREVIOUS, *(f"{Path(PREVIOUS).stem}-{age}.ckpt" for age in range(2, keep))]


def save_checkpoint(folder: Path, payload: Mapping[str, Any], keep: int = 2) -> None:
    """Writes `last.ckpt`; the one before becomes `previous.ckpt`, and so on. So many are kept.

    When the process is killed, at any moment, one of them is whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{LAST}.{os.getpid()}.part"
    try:
        with partial.open("wb") as file:
            torch.save({"format": FORMAT} | dict(payload), file)
            file.flush()
            os.fsync(file.fileno())
        names = names_of(keep)
        for older, newer in pairwise(reversed(names)):
            if (folder / newer).exists():
                (folder / newer).replace(folder / older)
        partial.replace(folder / LAST)
        for path in checkpoints(folder)[keep:]:  # More were kept before.
            path.unlink(missing_ok=True)
    finally:
        partial.unlink(missing_ok=True)


def checkpoints(folder: Path) -> list[Path]:
    """Returns the whole checkpoints of a run's folder, the newest first."""
    return [folder / name for name in names_of(MOST_KEPT) if (folder / name).is_file()]


def find_checkpoint(folder: Path) -> Path | None:
    """Returns the newest whole checkpoint of a run's folder, or None."""
    return next(iter(checkpoints(folder)), None)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU. Raises InputError for files of another kind."""
    if not path.is_file():
        raise InputError(f"checkpoint {path} does not exist: give the path of a .ckpt file of an earlier run")
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"{path} cannot be read as a checkpoint ({type(error).__name__}): remove it to start anew") from None
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        raise InputError(f"{path} is not a checkpoint of this program: remove it to start anew")
    return payload


def remove_leftovers(folder: Path) -> None:
    """Deletes half-written checkpoints of runs that were killed."""
    for path in folder.glob(f".{LAST}.*.part"):
        path.unlink(missing_ok=True)


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns a line "key: old -> new" for each difference of two dumped recipes. Raises InputError where the networks differ."""
    before, after = _flat(old), _flat(new)
    missing = "(none)"
    changes = {k: (before.get(k, missing), after.get(k, missing)) for k in sorted(before.keys() | after.keys())}
    changes = {k: pair for k, pair in changes.items() if pair[0] != pair[1]}
    lines = {k: f"{k}: {a} -> {b}" for k, (a, b) in changes.items()}
    fixed = [line for key, line in lines.items() if key.startswith(_FIXED) and not key.startswith(_FREE)]
    if fixed:
        raise InputError(
            f"the output folder holds a run of another network ({'; '.join(fixed)}): "
            "choose another --output, or --fresh to start anew there"
        )
    return list(lines.values())


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


class MovingAverage(AveragedModel):
    """An averaged copy of a module, in evaluation mode. `update_parameters(module)` is to be called after every step.

    The decay grows from 0.1 towards `decay`, so that short runs do not export their random start. The count of steps stays in the host's
    memory, and nothing that is computed from it goes to the device. PyTorch's own average moves it there at every step, which waits until
    the device has finished.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__(module, use_buffers=True)
        self.decay = decay
        self.requires_grad_(False)
        self.eval()

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Moves towards the weights and buffers of `model`. Whole numbers, such as counts of batches, are copied."""
        steps = int(self.n_averaged)
        share = 1 - min(self.decay, (1 + steps) / (10 + steps)) if steps else 1.0
        averaged: list[Tensor] = []
        current: list[Tensor] = []
        for mine, new in zip(_tensors(self.module), _tensors(model), strict=True):
            if mine.is_floating_point():
                averaged.append(mine)
                current.append(new)
            else:
                mine.copy_(new)
        torch._foreach_lerp_(averaged, current, share)
        self.n_averaged += 1


def _tensors(module: nn.Module) -> chain[Tensor]:
    return chain(module.parameters(), module.buffers())
