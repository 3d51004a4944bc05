import pytest
import torch

from dagan.geometry import coordinate_grid, gaussian_heatmap, inverse_2x2, resize_grid, sample


def test_grid_runs_from_minus_one_to_one_x_first() -> None:
    grid = coordinate_grid(3, 5)
    assert grid[0, 0].tolist() == [-1, -1]
    assert grid[2, 4].tolist() == [1, 1]
    assert grid[0, 1].tolist() == [-0.5, -1]


def test_consistent_sampling_keeps_the_image_and_the_released_one_does_not() -> None:
    image = torch.rand(1, 3, 16, 16)
    grid = coordinate_grid(16, 16)[None]
    torch.testing.assert_close(sample(image, grid, align_corners=True), image)
    assert (sample(image, grid, align_corners=False) - image).abs().max() > 0.01


def test_identity_field_stays_exact_when_resized_consistently() -> None:
    field = resize_grid(coordinate_grid(8, 8)[None], (32, 32), align_corners=True)
    torch.testing.assert_close(field[0], coordinate_grid(32, 32))


def test_sampling_keeps_float32_positions_for_bfloat16_images() -> None:
    image = torch.rand(1, 1, 256, 256)
    moved = coordinate_grid(256, 256)[None] + 0.3 / 256
    coarse = sample(image.bfloat16(), moved, align_corners=True)
    assert coarse.dtype == torch.bfloat16
    assert (coarse.float() - sample(image, moved, align_corners=True)).abs().max() < 0.01


def test_heatmap_peaks_at_the_keypoint() -> None:
    heatmap = gaussian_heatmap(torch.tensor([[[0.5, -0.5]]]), (9, 9), 0.01)
    assert heatmap[0, 0].argmax() == 2 * 9 + 6
    assert heatmap.max() == 1


@pytest.mark.parametrize("shape", [(2, 2), (4, 3, 2, 2)])
def test_inverse(shape: tuple[int, ...]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 2 * torch.eye(2)
    torch.testing.assert_close(inverse_2x2(matrix), torch.linalg.inv(matrix), rtol=1e-4, atol=1e-4)
