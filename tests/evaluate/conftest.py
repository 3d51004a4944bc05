"""Clips and a model small enough to evaluate in a moment, and a stand-in for the landmarker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dagan.media.landmarks import Face
from dagan.models.dagan import DaGAN
from dagan.weights import save_model
from tiny import TINY


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model file of an untrained model for 64 x 64 pictures."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_model(file, DaGAN(TINY).eval())
    return file


class DotFaces:
    """Stands for the landmarker: a mesh round the centre of a picture's brightness; no face in pictures that are dark."""

    def __init__(self) -> None:
        self.mesh = np.random.default_rng(0).normal(size=(478, 3)) * [2.5, 3, 2]

    def face(self, image: np.ndarray) -> Face | None:
        """See FaceDetector."""
        grey = image.astype(np.float64).mean(2)
        if grey.mean() < 20:
            return None
        y, x = np.mgrid[: grey.shape[0], : grey.shape[1]]
        middle = np.array([(grey * x).sum() / grey.sum(), (grey * y).sum() / grey.sum(), 0])
        landmarks = (self.mesh + middle).astype(np.float32)
        strengths = np.full(52, float(np.clip(30 * (middle[0] / grey.shape[1] - 0.5) + 0.5, 0, 1)))
        strengths[[9, 10]] = 0  # eyes open
        return Face((0.0, 0.0, 1.0, 1.0), landmarks, 1.0, lambda _: strengths)


@pytest.fixture
def dot_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faces are found by `DotFaces`."""
    monkeypatch.setattr("dagan.evaluate.rulers.Landmarks", DotFaces)
