"""Landmarks of training frames: they follow their pictures through every framing, and are searched once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import dagan.data.landmark_tables as landmarks
from dagan.data.batches import BatchSource, reframe
from dagan.data.config import NO_AUGMENT, AugmentConfig, DataConfig, PairConfig
from dagan.data.sampling import PairSampler
from dagan.data.store import open_dataset
from dagan.geometry import gaussian_heatmap
from dagan.media.landmarks import Face

COUNT = len(landmarks.POINTS)


def _dots(points: torch.Tensor, size: int = 64) -> torch.Tensor:
    """Pictures n x k x 3 x size x size of a soft dot at the first landmark of n x k x P x 2."""
    spots = gaussian_heatmap(points[:, :, 0], (size, size), 0.01)
    return spots[:, :, None].expand(-1, -1, 3, -1, -1).contiguous()


def _centre(pictures: torch.Tensor) -> torch.Tensor:
    """n x k x 2: centres of mass in [-1, 1]."""
    weight = pictures.mean(2)
    weight = weight / weight.sum((-2, -1), keepdim=True)
    line = torch.linspace(-1, 1, pictures.shape[-1])
    return torch.stack([(weight.sum(-2) * line).sum(-1), (weight.sum(-1) * line).sum(-1)], -1)


@pytest.mark.parametrize(
    "config",
    [
        AugmentConfig(flip=0, zoom=(0.8, 1.2), shift=0.1, rotate=20),
        AugmentConfig(flip=1, zoom=(0.8, 1.2), shift=0.1, rotate=20),
        AugmentConfig(flip=1),
        AugmentConfig(flip=0),
    ],
)
def test_points_stay_on_what_they_mark(config: AugmentConfig) -> None:
    points = 0.5 * torch.rand(5, 2, COUNT, 2, generator=torch.Generator().manual_seed(1)) - 0.25
    out, moved = reframe(_dots(points), config, torch.Generator().manual_seed(2), points=points)
    assert moved is not None
    # A mirrored picture's first landmark is the one that takes its name over.
    first = landmarks.MIRRORED.index(0) if config.flip else 0
    torch.testing.assert_close(_centre(out), moved[:, :, first], atol=0.02, rtol=0)


def test_mirroring_exchanges_the_sides() -> None:
    swap = landmarks.MIRRORED
    assert [swap[i] for i in swap] == list(range(COUNT))
    points = torch.rand(1, 2, COUNT, 2) - 0.5
    _, moved = reframe(torch.rand(1, 2, 3, 8, 8), AugmentConfig(flip=1), torch.Generator(), points=points)
    assert moved is not None
    assert torch.allclose(moved[..., 1, :], points[..., 0, :] * torch.tensor([-1.0, 1.0]))


def test_samples_with_motions_of_their_own_lose_their_points() -> None:
    still = torch.tensor([True, False])
    frames, points = torch.rand(2, 2, 3, 16, 16), torch.zeros(2, 2, COUNT, 2)
    _, moved = reframe(frames, NO_AUGMENT, torch.Generator(), still, PairConfig(still=0.5), points)
    assert moved is not None
    assert moved[0].isnan().all()
    assert moved[1].isfinite().all()


class _Fake:
    """Finds a face wherever the picture's middle is bright, and puts all landmarks at (x, y) = (mean grey, 10)."""

    searched = 0

    def detect(self, image: np.ndarray, thorough: bool = True) -> list[Face]:
        _Fake.searched += 1
        assert image.shape == (landmarks.SIDE, landmarks.SIDE, 3)
        if image[100:156, 100:156].mean() < 60:
            return []
        return [Face((0, 0, 1, 1), np.tile([image.mean(), 10.0, 0.0], (478, 1)).astype(np.float32), 1.0, lambda points: points)]

    def track(self, image: np.ndarray, face: Face) -> Face | None:
        return next(iter(self.detect(image)), None)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landmarks, "FaceLandmarker", _Fake)


def test_a_data_set_finds_them_once_and_batches_carry_them(clips_folder: Path, tmp_path: Path, fake: None) -> None:
    config = DataConfig(train=clips_folder, size=32, hold_out=0, cache=tmp_path / "cache", landmarks=True)
    first = open_dataset(config)
    assert first.landmarks is not None
    assert first.landmarks.shape == (first.count.sum(), COUNT, 2)
    grey = first.store.gather(np.arange(len(first.landmarks))).float().mean((1, 2, 3)).numpy()
    np.testing.assert_allclose((first.landmarks[:, 0, 0] + 1) * 127.5 + 0.5, grey, atol=1.5)
    searched = _Fake.searched
    again = open_dataset(config)
    assert _Fake.searched == searched, "kept in the cache"
    assert np.array_equal(first.landmarks, again.landmarks, equal_nan=True)
    sampler = PairSampler(again, "train", "identity", PairConfig())
    source = BatchSource(again, sampler, NO_AUGMENT, batch_size=3, seed=0, device=torch.device("cpu"))
    batch = source.at(0)
    assert batch.landmarks is not None
    assert batch.landmarks.shape == (3, 2, COUNT, 2)
    np.testing.assert_allclose((batch.landmarks[..., 0, 0] + 1) * 127.5 + 0.5, 255 * batch.plain.mean((2, 3, 4)), atol=1.5)


def test_frames_without_a_face_are_marked(tmp_path: Path, fake: None, write_clip: object) -> None:
    pictures = [np.full((64, 64, 3), value, np.uint8) for value in (200, 20, 180)]
    write_clip(tmp_path / "clips.mp4", pictures)  # type: ignore[operator]
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "clips.mp4").rename(folder / "a.mp4")
    data = open_dataset(DataConfig(train=folder, size=32, hold_out=0, landmarks=True))
    assert data.landmarks is not None
    assert np.isnan(data.landmarks[:, 0, 0]).tolist() == [False, True, False]
