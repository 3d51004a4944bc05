"""What the benchmark measures: models by name, with weights or fresh."""

from __future__ import annotations

from pathlib import Path

import torch

from dagan.config import PRESETS
from dagan.device import choose_device, choose_precision
from dagan.export.note import is_exported, read_note
from dagan.models.dagan import DaGAN
from dagan.weights import load
from dagan.weights.digest import weights_digest
from dagan.weights.load import bundled


def open_model(name: str, device: str, precision: str) -> tuple[DaGAN, bool]:
    """A model and whether it is trained; a preset without weights comes freshly initialised, the same each time.

    Of an exported folder: the bundled model that it was made of, where it was; else a fresh one of its configuration.
    """
    config = PRESETS.get(name)
    if is_exported(Path(name)):
        note = read_note(Path(name))
        if note.name in bundled() and weights_digest(model := load(note.name, device, "float32")) == note.weights:
            return model, True
        config = note.config
    elif config is None or name in bundled():
        return load(name, device, precision), True
    target = choose_device(device)
    torch.manual_seed(0)
    model = DaGAN(config).eval()
    if model.generator.attention is not None:
        torch.nn.init.constant_(model.generator.attention.gamma, 0.5)  # at 0, as it starts, no difference would show
    model.compute_dtype = choose_precision(precision, target)
    return model.to(target), False
