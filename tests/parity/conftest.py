"""Golden arrays and the images they were made from."""

from pathlib import Path

import numpy as np
import pytest
import recipe
import torch


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    return dict(np.load(Path(__file__).parent / "golden.npz"))


@pytest.fixture(scope="session")
def images() -> dict[str, torch.Tensor]:
    return {
        name: torch.nn.functional.interpolate(
            torch.from_numpy(recipe.low_resolution_image(name))[None], size=(256, 256), mode="bilinear", align_corners=True
        )
        for name in ("source", "driving", "initial")
    }
