"""The depth network's weights as a safetensors file of their own: what stage 1 hands to stage 2."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dagan.config import dump
from dagan.errors import InputError
from dagan.models.depth import DepthNetwork

_PREFIX = "depth_network."


def save_depth(path: Path, network: DepthNetwork, card: Mapping[str, Any]) -> None:
    """Writes the weights, with configuration and card as metadata, beside and then renamed."""
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in network.state_dict().items()}
    note = json.dumps({"config": dump(network.config), "card": dict(card)})
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Bytes written here get the usual permissions; the library's own files can be read by their owner alone.
        partial.write_bytes(save(tensors, metadata={"dagan_depth": note}))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_depth(network: DepthNetwork, path: Path) -> None:
    """Fills the network from a depth file or from a whole model's file. Raises InputError where they do not fit."""
    tensors = read_tensors(path)
    inner = {key.removeprefix(_PREFIX): tensor for key, tensor in tensors.items() if key.startswith(_PREFIX)}
    _load(network, inner or tensors, path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file. Raises InputError for files that are missing or of another kind."""
    if not path.is_file():
        raise InputError(f"weights {path} do not exist: give the path of a .safetensors file")
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read as safetensors ({error}): give a .safetensors file") from None


def _load(network: DepthNetwork, tensors: Mapping[str, Tensor], path: Path) -> None:
    try:
        network.load_state_dict({key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in tensors.items()})
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} does not fit the recipe's depth network: give weights of its encoder and widths ({reason})") from None
