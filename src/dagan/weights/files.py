"""Model files: one safetensors file that carries its configuration, read without executing anything from it.

The metadata entry "dagan" is JSON: {"format": 1, "config": {...}, "card": {...}}; the card is free text about the training.
Tensors under a prefix in `BESIDE` belong to no part of the model: a discriminator for fine-tuning, and what a released
checkpoint holds that the networks have no use for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dagan.checks import dump, parse
from dagan.config import ModelConfig
from dagan.errors import InputError
from dagan.media.output import atomic_output
from dagan.models.dagan import DaGAN
from dagan.names import text_path
from dagan.weights.fold import is_folded

FORMAT = 1
BESIDE = DISCRIMINATOR, ASIDE = ("discriminator.", "released.")


def save_model(path: Path, model: DaGAN, card: Mapping[str, Any] | None = None, dtype: torch.dtype | None = None) -> None:
    """Writes weights and configuration to `path` (beside, then renamed). dtype: store floating point tensors in it.

    Raises InputError for a folded model: its weights fit no configuration.
    """
    if is_folded(model):
        raise InputError(f"{path} is not written: the model is folded for inference, save the one that it was folded from")
    tensors = {}
    for key, tensor in model.state_dict().items():
        stored = tensor.detach().to(dtype) if dtype is not None and tensor.is_floating_point() else tensor.detach()
        tensors[key] = stored.cpu().contiguous()
    write_file(path, model.config, tensors, card or {})


def write_file(path: Path, config: ModelConfig, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """A model file of these tensors as they are; `read_file` gives them back."""
    write_tensors(path, tensors, {"dagan": json.dumps({"format": FORMAT, "config": dump(config), "card": dict(card)})})


def read_model(path: Path) -> DaGAN:
    """The model in `path`, float32, in evaluation mode, on the CPU.

    Raises InputError when the file is missing, damaged, a pickle, or does not fit its own configuration (naming the keys).
    """
    config, _, tensors = read_file(path)
    model = DaGAN(config)
    load_weights(model, tensors, str(path))
    return model.eval()


def read_card(path: Path) -> dict[str, Any]:
    """What the file says of its training."""
    return read_file(path)[1]


def read_file(path: Path) -> tuple[ModelConfig, dict[str, Any], dict[str, Tensor]]:
    """(configuration, card, tensors) of a model file. Raises InputError as `read_model` does."""
    tensors, metadata = read_tensors(path)
    if "dagan" not in metadata:
        raise InputError(f"{path} carries no dagan configuration: it was written by another program, give a model file of this one")
    try:
        note = json.loads(metadata["dagan"])
        version = note["format"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: its configuration is damaged: write the file again") from None
    if version != FORMAT:
        raise InputError(f"{path} has format {version!r}, this version reads {FORMAT}: update dagan")
    return parse(ModelConfig, note.get("config"), str(path)), dict(note.get("card") or {}), tensors


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """A safetensors file, beside and then renamed. Bytes written here get the usual permissions; the library's own
    files can be read by their owner alone."""
    with atomic_output(path, overwrite=True) as partial:
        partial.write_bytes(save(dict(tensors), metadata=dict(metadata)))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) of a safetensors file. Raises InputError when it is missing, damaged or of another kind."""
    if not path.is_file():
        raise InputError(f"{path} does not exist: give a model file (.safetensors), the name of a bundled model or a hub id")
    try:
        with text_path(path) as name, safe_open(name, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError) as error:
        hint = "a pickled checkpoint: convert it first" if _looks_pickled(path) else "damaged, or of another kind"
        raise InputError(f"{path} is not a readable safetensors file ({hint}): {str(error).splitlines()[0][:120]}") from None


def load_weights(module: torch.nn.Module, tensors: Mapping[str, Tensor], where: str, to: str = "its configuration") -> None:
    """Fills `module`; passes over tensors under `BESIDE`.

    Raises InputError that lists missing, unexpected and differently shaped keys, naming `where`.
    """
    tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(BESIDE)}
    wanted = module.state_dict()
    faults = differences(wanted, tensors)
    if faults:
        raise InputError(f"{where} does not fit {to}: {faults}")
    module.load_state_dict({key: tensor.to(wanted[key].dtype) for key, tensor in tensors.items()})


def tensors_of(config: ModelConfig) -> dict[str, Tensor]:
    """Keys, shapes and types of a model's tensors, without values and without taking memory, whatever a file claims."""
    with torch.device("meta"):
        return DaGAN(config).state_dict()


def differences(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """In words, which keys are missing, unexpected, or of another shape or kind of number; empty where all fits."""
    both = sorted(wanted.keys() & given.keys())
    shapes = [f"{k} is {tuple(given[k].shape)}, not {tuple(wanted[k].shape)}" for k in both if given[k].shape != wanted[k].shape]
    numbers = [
        f"{k} is {given[k].dtype}, not {wanted[k].dtype}" for k in both if given[k].is_floating_point() != wanted[k].is_floating_point()
    ]
    kinds = {
        "missing": sorted(wanted.keys() - given.keys()),
        "unexpected": sorted(given.keys() - wanted.keys()),
        "misshapen": shapes,
        "mistyped": numbers,
    }
    return "; ".join(f"{len(keys)} {kind}: {_shorten(keys)}" for kind, keys in kinds.items() if keys)


def _shorten(keys: list[str], most: int = 4) -> str:
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")


def _looks_pickled(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(4)
    return start[:2] == b"PK" or start[:1] == b"\x80"
