"""The depth network's weights as a safetensors file of their own: what stage 1 hands to stage 2."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dagan.checks import dump
from dagan.models.depth import DepthNetwork
from dagan.weights.files import load_weights, read_tensors, write_tensors

_PREFIX = "depth_network."


def save_depth(path: Path, network: DepthNetwork, card: Mapping[str, Any]) -> None:
    """Writes the weights, with configuration and card as metadata, beside and then renamed."""
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in network.state_dict().items()}
    write_tensors(path, tensors, {"dagan_depth": json.dumps({"config": dump(network.config), "card": dict(card)})})


def load_depth(network: DepthNetwork, path: Path) -> None:
    """Fills the network from a depth file or from a whole model's file. Raises InputError where they do not fit."""
    tensors, _ = read_tensors(path)
    inner = {key.removeprefix(_PREFIX): tensor for key, tensor in tensors.items() if key.startswith(_PREFIX)}
    load_weights(network, inner or tensors, str(path), "the recipe's depth network")
