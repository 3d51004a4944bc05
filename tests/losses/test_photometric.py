import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from dagan.geometry import coordinate_grid
from dagan.losses.depth import (
    edge_aware_smoothness,
    masked_photometric,
    minimum_error,
    photometric_error,
    ssim_map,
    warp,
)


def images(count: int = 2, size: int = 24, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_ssim_agrees_with_an_independent_implementation() -> None:
    first = images(1)
    second = (0.7 * first + 0.3 * images(1, seed=1)).clamp(0, 1)
    a, b = (x[0].permute(1, 2, 0).double().numpy() for x in (first, second))
    _, expected = structural_similarity(a, b, win_size=3, data_range=1.0, channel_axis=2, use_sample_covariance=False, full=True)
    ours = ssim_map(first, second)[0].permute(1, 2, 0).numpy()
    # Inside only: the two treat the border differently.
    np.testing.assert_allclose(ours[1:-1, 1:-1], expected[1:-1, 1:-1], atol=2e-4)


def test_error_is_zero_for_equal_images_and_bounded_by_one() -> None:
    x = images()
    assert photometric_error(x, x).abs().max() < 1e-5
    checker = (torch.arange(24)[:, None] + torch.arange(24)) % 2
    black = checker.float().expand(1, 3, 24, 24)
    worst = photometric_error(black, 1 - black)
    assert worst.shape == (1, 1, 24, 24)
    assert worst.min() > 0.9
    assert worst.max() <= 1


def test_error_of_a_constant_offset_is_mostly_brightness() -> None:
    x = torch.full((1, 3, 8, 8), 0.5)
    luminance = (2 * 0.5 * 0.6 + 1e-4) / (0.5**2 + 0.6**2 + 1e-4)
    expected = 0.85 * (1 - luminance) / 2 + 0.15 * 0.1
    torch.testing.assert_close(photometric_error(x + 0.1, x), torch.full((1, 1, 8, 8), expected), atol=1e-4, rtol=0)


def test_minimum_picks_the_source_that_sees_the_pixel() -> None:
    target = images()
    left, right = target.clone(), target.clone()
    left[..., 12:] = 0
    right[..., :12] = 0
    error = minimum_error([left, right], target)
    seam = slice(10, 14)  # windows across the seam see both
    error[..., seam] = 0
    assert error.abs().max() < 1e-5


def test_static_pixels_are_masked_without_gradient() -> None:
    still = torch.tensor([0.1, 0.5, 0.3]).reshape(1, 1, 1, 3)
    error = torch.tensor([0.1, 0.2, 0.4]).reshape(1, 1, 1, 3).requires_grad_()
    result = masked_photometric(error, still)
    assert result.kept.flatten().tolist() == [False, True, False]  # a tie is static
    assert result.loss.item() == pytest.approx((0.1 + 0.2 + 0.3) / 3)
    result.loss.backward()
    assert error.grad is not None
    torch.testing.assert_close(error.grad.flatten(), torch.tensor([0.0, 1 / 3, 0.0]))
    assert masked_photometric(error, None).kept.all()


def test_uncertainty_is_best_at_the_relative_error_and_neutral_at_zero() -> None:
    error = torch.tensor([0.02, 0.1, 0.3]).reshape(1, 1, 1, 3)
    plain = masked_photometric(error, None).loss
    torch.testing.assert_close(masked_photometric(error, None, torch.zeros_like(error)).loss, plain)
    best = torch.log(error / error.mean())
    lowest = masked_photometric(error, None, best).loss
    assert lowest < plain
    for change in (-0.2, 0.2):
        assert masked_photometric(error, None, best + change).loss > lowest


def test_uncertainty_weighs_down_what_it_expects_to_fail() -> None:
    error = torch.full((1, 1, 1, 2), 0.2, requires_grad=True)
    masked_photometric(error, None, torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2)).loss.backward()
    assert error.grad is not None
    left, right = error.grad.flatten().tolist()
    assert right == pytest.approx(left / np.e)


def test_everything_masked_is_finite() -> None:
    error = torch.full((1, 1, 4, 4), 0.2, requires_grad=True)
    loss = masked_photometric(error, torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)).loss
    loss.backward()
    assert loss.item() == 0
    assert error.grad is not None
    assert (error.grad == 0).all()


def test_smoothness_forgives_depth_edges_at_image_edges_and_ignores_scale() -> None:
    step = (torch.arange(16) >= 8).float().expand(1, 1, 16, 16)
    disparity = 0.3 + 0.4 * step
    flat = torch.full((1, 3, 16, 16), 0.5)
    edge = step.expand(1, 3, 16, 16)
    assert edge_aware_smoothness(disparity, edge).item() == pytest.approx(edge_aware_smoothness(disparity, flat).item() / np.e, rel=1e-4)
    torch.testing.assert_close(edge_aware_smoothness(5 * disparity, flat), edge_aware_smoothness(disparity, flat))
    assert edge_aware_smoothness(torch.full_like(disparity, 0.7), flat) == 0


def test_warp_is_exact_for_the_identity_and_repeats_the_border() -> None:
    x = images()
    grid = coordinate_grid(24, 24).expand(2, 24, 24, 2)
    torch.testing.assert_close(warp(x, grid), x, atol=1e-5, rtol=0)
    shifted = warp(x, grid + torch.tensor([5.0, 0.0]))
    torch.testing.assert_close(shifted, x[..., -1:].expand_as(x), atol=1e-5, rtol=0)
