from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from dagan.errors import InputError
from dagan.evaluate.distances import Moments, frechet_distance, onnx_features
from onnx_networks import onnx_scaling


def moments(*parts: np.ndarray) -> Moments:
    found = Moments()
    for part in parts:
        found.add(part.astype(np.float32))
    return found


def test_distance_of_shifted_sets_is_the_squared_shift() -> None:
    x = np.random.default_rng(0).normal(size=(500, 6))
    assert frechet_distance(moments(x), moments(x + 2)) == pytest.approx(6 * 4, rel=1e-4)
    assert frechet_distance(moments(x), moments(x)) == pytest.approx(0, abs=1e-5)


def test_distance_of_scaled_sets_in_one_dimension() -> None:
    x = np.random.default_rng(1).normal(size=(400, 1))
    x = (x - x.mean()) / x.std(ddof=1)
    assert frechet_distance(moments(x), moments(3 * x + 1)) == pytest.approx(1 + (3 - 1) ** 2, rel=1e-4)


def test_distance_equals_the_formula_with_scipys_root() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(60, 8)) @ rng.normal(size=(8, 8)), rng.normal(size=(50, 8)) @ rng.normal(size=(8, 8)) + 1
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(covariances[0] @ covariances[1])
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(covariances[0] + covariances[1] - 2 * root.real)
    # In two parts: the sums grow as batches come.
    assert frechet_distance(moments(a[:20], a[20:]), moments(b)) == pytest.approx(expected, rel=1e-4)


def test_one_picture_has_no_distance() -> None:
    x = np.ones((1, 3))
    assert frechet_distance(moments(x), moments(np.ones((5, 3)))) is None


def test_features_of_an_onnx_network(tmp_path: Path) -> None:
    file = onnx_scaling(tmp_path / "n.onnx", 0.5, side=16)
    images = torch.rand(2, 3, 16, 16)
    found = onnx_features(file)(images)
    np.testing.assert_allclose(found, images.mean((2, 3)).numpy() / 2, rtol=1e-5)
    assert onnx_features(file)(torch.full((1, 3, 40, 40), 0.5)).tolist() == [[0.25] * 3]
    with pytest.raises(InputError, match="does not exist"):
        onnx_features(tmp_path / "none.onnx")
