"""Released-layout weights and images, rebuilt from `recipe.py` alone."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import recipe  # noqa: E402

LAYOUT = json.loads((HERE / "state_dict_layout.json").read_text())


def blur(shape: tuple[int, ...]) -> np.ndarray:
    x = np.arange(shape[-1]) - shape[-1] // 2
    line = np.exp(-(x**2) / (2 * 1.5**2))
    kernel = np.outer(line, line)
    return np.broadcast_to(kernel / kernel.sum(), shape).astype(np.float32).copy()


def released_state(module: str) -> dict[str, torch.Tensor]:
    """The state dict of one module of the released layout."""
    state: dict[str, np.ndarray] = {}
    for key, shape, _ in LAYOUT[module]:
        if key.endswith(("weight_u", "weight_v")):
            u, v = recipe.power_iteration(recipe.tensor(module, key[:-1] + "orig", dict((k, s) for k, s, _ in LAYOUT[module])[key[:-1] + "orig"]))
            state[key] = u if key.endswith("_u") else v
        elif key.endswith("down.weight"):
            state[key] = blur(tuple(shape))
        else:
            state[key] = recipe.tensor(module, key, tuple(shape))
    return {key: torch.from_numpy(np.asarray(value)) for key, value in state.items()}


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    return dict(np.load(HERE / "golden.npz"))


@pytest.fixture(scope="session")
def images() -> dict[str, torch.Tensor]:
    return {
        name: torch.nn.functional.interpolate(
            torch.from_numpy(recipe.low_resolution_image(name))[None], size=(256, 256), mode="bilinear", align_corners=True
        )
        for name in ("source", "driving", "initial")
    }
