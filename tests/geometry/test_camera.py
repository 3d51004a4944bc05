import pytest
import torch

from dagan.geometry import (
    OUTSIDE,
    axis_angle_to_rotation,
    back_project,
    coordinate_grid,
    intrinsics,
    invert_intrinsics,
    invert_motion,
    project,
    rigid_motion,
)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def camera(count: int, size: tuple[int, int], focal: float = 1.4) -> torch.Tensor:
    return intrinsics(torch.full((count, 2), focal), torch.tensor([[0.53, 0.46]]).expand(count, 2), size)


@pytest.mark.parametrize("scale", [0.0, 1e-8, 1e-4, 0.3, 1.0, 3.0])
def test_rotation_is_the_matrix_exponential(scale: float) -> None:
    vector = scale * torch.nn.functional.normalize(random(5, 3), dim=1)
    x, y, z = vector.unbind(1)
    zero = torch.zeros(5)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).reshape(5, 3, 3)
    torch.testing.assert_close(axis_angle_to_rotation(vector), torch.linalg.matrix_exp(cross), atol=2e-6, rtol=0)


def test_rotation_gradient_is_right_at_zero_and_beside() -> None:
    weights = random(3, 3)
    for vector in (torch.zeros(1, 3), torch.tensor([[1e-6, -2e-6, 0.0]]), torch.tensor([[0.2, -0.4, 0.7]])):
        vector.requires_grad_()
        (axis_angle_to_rotation(vector)[0] * weights).sum().backward()
        assert vector.grad is not None
        step = 1e-3
        for i in range(3):
            shift = torch.zeros(1, 3)
            shift[0, i] = step
            high, low = (axis_angle_to_rotation(vector.detach() + s)[0].double() for s in (shift, -shift))
            numeric = ((high - low) * weights).sum() / (2 * step)
            assert vector.grad[0, i].item() == pytest.approx(numeric.item(), abs=2e-3)


@pytest.mark.parametrize("pivot", [None, torch.tensor([[0.1, -0.2, 1.5]])])
def test_motion_and_its_inverse_cancel(pivot: torch.Tensor | None) -> None:
    turn, shift = 0.5 * random(4, 3), random(4, 3, seed=1)
    there = rigid_motion(turn, shift, pivot=pivot)
    back = rigid_motion(turn, shift, invert=True, pivot=pivot)
    torch.testing.assert_close(back @ there, torch.eye(4).expand(4, 4, 4), atol=2e-6, rtol=0)


def test_pivot_stays_where_the_shift_takes_it() -> None:
    pivot, shift = random(4, 3), random(4, 3, seed=1)
    moved = rigid_motion(random(4, 3, seed=2), shift, pivot=pivot)[:, :3] @ torch.cat([pivot, torch.ones(4, 1)], 1)[:, :, None]
    torch.testing.assert_close(moved[:, :, 0], pivot + shift, atol=2e-6, rtol=0)


def test_way_back_undoes_a_motion() -> None:
    motion = rigid_motion(torch.randn(3, 3), torch.randn(3, 3))
    torch.testing.assert_close(invert_motion(motion) @ motion, torch.eye(4).expand(3, 4, 4), atol=1e-5, rtol=0)


def test_intrinsics_are_inverted_and_never_rounded() -> None:
    matrix = camera(2, (50, 70))
    torch.testing.assert_close(matrix @ invert_intrinsics(matrix), torch.eye(3).expand(2, 3, 3), atol=1e-5, rtol=0)
    assert matrix[0, 0, 0].item() == pytest.approx(1.4 * 70)
    assert matrix[0, 1, 2].item() == pytest.approx(0.46 * 50 - 0.5)


def test_one_camera_sees_the_same_ray_at_every_scale() -> None:
    # The middle between pixels 2 and 3 of four is the middle of pixel 1 of two: block means see along the mean ray.
    small, large = (back_project(torch.ones(1, 1, n, n), invert_intrinsics(camera(1, (n, n)))) for n in (8, 32))
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(large, 4), small, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(33, 48), (128, 128), (256, 256)])
def test_identity_motion_gives_the_identity_grid(size: tuple[int, int]) -> None:
    depth = 0.1 + 5 * random(2, 1, *size).abs()
    matrix = camera(2, size)
    grid = project(back_project(depth, invert_intrinsics(matrix)), matrix, torch.eye(4).expand(2, 4, 4))
    torch.testing.assert_close(grid, coordinate_grid(*size).expand(2, *size, 2), atol=1e-5, rtol=0)


def test_shift_moves_pixels_by_focal_over_depth() -> None:
    matrix = camera(1, (64, 64))
    points = back_project(torch.full((1, 1, 64, 64), 2.0), invert_intrinsics(matrix))
    grid = project(points, matrix, rigid_motion(torch.zeros(1, 3), torch.tensor([[0.1, 0.0, 0.0]])))
    pixels = (grid - coordinate_grid(64, 64)) * 63 / 2
    torch.testing.assert_close(pixels[..., 0], torch.full((1, 64, 64), 1.4 * 64 * 0.1 / 2), atol=1e-3, rtol=0)
    torch.testing.assert_close(pixels[..., 1], torch.zeros(1, 64, 64), atol=1e-4, rtol=0)


def test_points_behind_the_camera_land_outside_and_pass_finite_gradients() -> None:
    matrix = camera(1, (8, 8))
    depth = torch.linspace(0.5, 2, 64).reshape(1, 1, 8, 8).requires_grad_()
    motion = rigid_motion(torch.zeros(1, 3), torch.tensor([[0.0, 0.0, -1.0]]))
    grid = project(back_project(depth, invert_intrinsics(matrix)), matrix, motion)
    behind = depth[0, 0] < 1
    assert (grid[0][behind] == OUTSIDE).all()
    assert torch.isfinite(grid).all()
    grid.sum().backward()
    assert depth.grad is not None
    assert torch.isfinite(depth.grad).all()
    assert (depth.grad[0, 0][behind] == 0).all()
    assert (depth.grad[0, 0][~behind] != 0).any()


def test_geometry_stays_float32_for_half_precision_input() -> None:
    half = torch.tensor([[0.1, 0.2, 0.3]], dtype=torch.bfloat16)
    assert rigid_motion(half, half).dtype == torch.float32
    assert intrinsics(half[:, :2], half[:, :2], (8, 8)).dtype == torch.float32
