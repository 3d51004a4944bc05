"""Released-layout weights, rebuilt from `recipe.py` alone."""

import json
from pathlib import Path

import numpy as np
import recipe
import torch

LAYOUT = json.loads((Path(__file__).parent / "state_dict_layout.json").read_text())


def blur(shape: tuple[int, ...]) -> np.ndarray:
    x = np.arange(shape[-1]) - shape[-1] // 2
    line = np.exp(-(x**2) / (2 * 1.5**2))
    kernel = np.outer(line, line)
    return np.broadcast_to(kernel / kernel.sum(), shape).astype(np.float32).copy()


def released_state(module: str) -> dict[str, torch.Tensor]:
    """The state dict of one module of the released layout."""
    state: dict[str, np.ndarray] = {}
    shapes = {key: tuple(shape) for key, shape, _ in LAYOUT[module]}
    for key, shape, _ in LAYOUT[module]:
        if key.endswith(("weight_u", "weight_v")):
            original = key[:-1] + "orig"
            u, v = recipe.power_iteration(recipe.tensor(module, original, shapes[original]))
            state[key] = u if key.endswith("_u") else v
        elif key.endswith("down.weight"):
            state[key] = blur(tuple(shape))
        else:
            state[key] = recipe.tensor(module, key, tuple(shape))
    return {key: torch.from_numpy(np.asarray(value)) for key, value in state.items()}
