from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from dagan.evaluate import metrics
from dagan.evaluate.distances import LPIPS, LpipsNetwork
from dagan.losses.gan import _alexnet, _squeezenet, _vgg16
from dagan.media.face_networks import SIZE, TEMPLATE, align, five_points


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    a = torch.nn.functional.interpolate(torch.rand(2, 3, 12, 12, generator=generator), size=64, mode="bicubic").clamp(0, 1)
    return a, (a + 0.1 * torch.randn(a.shape, generator=generator)).clamp(0, 1)


def test_psnr_and_ssim_equal_scikit_image_with_range_one(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    a, b = pair
    for i in range(2):
        x, y = (t[i].permute(1, 2, 0).double().numpy() for t in (a, b))
        assert metrics.psnr(a, b)[i].item() == pytest.approx(peak_signal_noise_ratio(x, y, data_range=1), abs=1e-4)
        expected = structural_similarity(x, y, data_range=1, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
        assert metrics.ssim(a, b)[i].item() == pytest.approx(expected, abs=1e-4)


def test_l1_is_the_mean_difference() -> None:
    assert metrics.l1(torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.25)).tolist() == [0.25, 0.25]


def test_landmark_distance_ignores_depth() -> None:
    a = np.zeros((5, 3))
    assert metrics.landmark_distance(a, a + np.array([3.0, 4.0, 100.0])) == pytest.approx(5)


def test_depth_correlation_of_a_cone() -> None:
    y, x = np.mgrid[:40, :40]
    disparity = 1 - np.hypot(x - 20, y - 20) / 40
    rng = np.random.default_rng(0)
    points = rng.uniform(-5, 45, (200, 2))  # some of them outside the image
    z = np.hypot(points[:, 0] - 20, points[:, 1] - 20)
    landmarks = np.column_stack([points, z])
    assert metrics.depth_rank_correlation(disparity, landmarks) > 0.99
    assert metrics.depth_rank_correlation(-disparity, landmarks) < -0.99


def test_data_range_two_flatters_as_published(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    a, b = pair
    assert (metrics.psnr(a, b, 2.0) - metrics.psnr(a, b)).tolist() == pytest.approx([20 * np.log10(2)] * 2, abs=1e-4)
    x, y = (t[0].permute(1, 2, 0).double().numpy() for t in pair)
    expected = structural_similarity(x, y, data_range=2, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    assert metrics.ssim(a, b, 2.0)[0].item() == pytest.approx(expected, abs=1e-4)
    assert (metrics.ssim(a, b, 2.0) > metrics.ssim(a, b)).all()


def test_ms_ssim_follows_its_definition() -> None:
    """Products of contrast-structure terms of five halved scales, the last with luminance, by scipy's filters alone."""
    generator = torch.Generator().manual_seed(3)
    a = torch.nn.functional.interpolate(torch.rand(1, 3, 20, 20, generator=generator), size=192, mode="bicubic").clamp(0, 1)
    b = (a + 0.1 * torch.randn(a.shape, generator=generator)).clamp(0, 1)
    x, y = (t[0].double().numpy() for t in (a, b))
    expected = 1.0
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        smooth = lambda v: np.stack([gaussian_filter(c, 1.5, truncate=3.5)[5:-5, 5:-5] for c in v])  # noqa: E731
        mx, my = smooth(x), smooth(y)
        vx, vy, vxy = smooth(x * x) - mx**2, smooth(y * y) - my**2, smooth(x * y) - mx * my
        structure = (2 * vxy + 0.03**2) / (vx + vy + 0.03**2)
        luminance = (2 * mx * my + 0.01**2) / (mx**2 + my**2 + 0.01**2)
        term = (structure * luminance if scale == 4 else structure).mean()
        expected *= max(term, 0) ** weight
        x, y = (v.reshape(3, v.shape[1] // 2, 2, v.shape[2] // 2, 2).mean((2, 4)) for v in (x, y))
    assert metrics.ms_ssim(a, b)[0].item() == pytest.approx(expected, abs=1e-3)
    assert metrics.ms_ssim(a, a)[0].item() == pytest.approx(1)


@pytest.mark.parametrize(("name", "build"), [("squeezenet", _squeezenet), ("alexnet", _alexnet), ("vgg16", _vgg16)])
def test_lpips_follows_its_definition(
    pair: tuple[torch.Tensor, torch.Tensor], tmp_path: Path, name: LpipsNetwork, build: Callable[[], tuple[torch.nn.Sequential, tuple[int]]]
) -> None:
    torch.manual_seed(0)
    layers, taps = build()
    save_file({f"features.{k}": v for k, v in layers.state_dict().items()}, tmp_path / "s.safetensors")
    ruler = LPIPS(tmp_path / "s.safetensors", name)
    assert all((weights >= 0).all() for weights in ruler.linear)  # as trained: distances cannot be negative
    a, b = pair
    assert ruler(a, a).tolist() == [0, 0]
    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])  # as published, for [-1, 1]
    expected = 0.0
    x, y = (((2 * t[:1].permute(0, 2, 3, 1).numpy() - 1 - shift) / scale).transpose(0, 3, 1, 2) for t in (a, b))
    x, y = torch.from_numpy(x).float(), torch.from_numpy(y).float()
    with torch.no_grad():
        for i, layer in enumerate(layers):
            x, y = layer(x), layer(y)
            if i in taps:
                u, v = (t.numpy() / np.linalg.norm(t.numpy(), axis=1, keepdims=True).clip(1e-10) for t in (x, y))
                weights = ruler.linear[taps.index(i)].numpy()
                expected += float((((u - v) ** 2) * weights).sum(1).mean())
    assert ruler(a, b)[0].item() == pytest.approx(expected, abs=1e-3)


def test_alignment_puts_the_five_points_on_the_template() -> None:
    """A face drawn as five dots, turned, scaled and shifted: the dots come out on the template."""
    angle, scale = 0.3, 1.7
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = TEMPLATE @ turn.T + [40, -10]
    landmarks = np.zeros((478, 3))
    for ids, point in zip(((33, 133), (362, 263), (1,), (61,), (291,)), points, strict=True):
        landmarks[list(ids), :2] = point
    np.testing.assert_allclose(five_points(landmarks), points)
    image = np.zeros((260, 260, 3), np.uint8)
    y, x = np.mgrid[:260, :260]
    for px, py in points:
        image[np.hypot(x - px, y - py) < 5] = 255
    aligned = align(image, landmarks)
    assert aligned.shape == (SIZE, SIZE, 3)
    for px, py in TEMPLATE:
        assert aligned[round(py), round(px), 0] > 200
    assert aligned.mean() < 40


def test_spearman_is_scipys() -> None:
    disparity = np.random.default_rng(1).random((30, 30))
    landmarks = np.column_stack([np.repeat(np.arange(30), 30), np.tile(np.arange(30), 30), np.random.default_rng(2).random(900)])
    expected = spearmanr(disparity[landmarks[:, 1].astype(int), landmarks[:, 0].astype(int)], -landmarks[:, 2]).statistic
    assert metrics.depth_rank_correlation(disparity, landmarks) == pytest.approx(expected)
