import torch

from dagan.geometry import ThinPlateTransform, coordinate_grid


def make(**sizes: float) -> ThinPlateTransform:
    return ThinPlateTransform.random(3, generator=torch.Generator().manual_seed(1), **sizes)


def test_zero_size_is_the_identity() -> None:
    transform = make(affine_sigma=0, tps_sigma=0)
    grid = coordinate_grid(4, 4).reshape(1, -1, 2).expand(3, -1, -1)
    torch.testing.assert_close(transform.warp_coordinates(grid), grid)
    torch.testing.assert_close(transform.jacobian(grid), torch.eye(2).expand(3, 16, 2, 2))
    image = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(transform.warp_image(image), image)


def test_jacobian_agrees_with_finite_differences() -> None:
    transform = make(tps_sigma=0.05)
    points = torch.rand(3, 5, 2, dtype=torch.float64) - 0.5
    transform = ThinPlateTransform(transform.affine.double(), transform.weights.double(), transform.points.double())
    step = 1e-6
    columns = [
        (transform.warp_coordinates(points + step * d) - transform.warp_coordinates(points - step * d)) / (2 * step)
        for d in torch.eye(2, dtype=torch.float64)
    ]
    torch.testing.assert_close(transform.jacobian(points), torch.stack(columns, -1), atol=1e-5, rtol=1e-5)


def test_image_and_coordinates_move_together() -> None:
    """The transformed image at z shows what the image shows at T(z)."""
    transform = make()
    ramp = coordinate_grid(64, 64).permute(2, 0, 1)[None].expand(3, -1, -1, -1)
    moved = transform.warp_image(ramp)
    expected = transform.warp_coordinates(coordinate_grid(64, 64).reshape(1, -1, 2).expand(3, -1, -1)).reshape(3, 64, 64, 2)
    torch.testing.assert_close(moved[:, :, 16:48, 16:48], expected.permute(0, 3, 1, 2)[:, :, 16:48, 16:48], atol=1e-4, rtol=0)
