"""Feature maps looked up by pixels are those looked up by planes."""

import pytest
import torch

from dagan.engine.cpu.fast import FastWarp
from dagan.geometry import coordinate_grid
from dagan.models.generator import Warp

CHANNELS_LAST = torch.channels_last


def scene(sources=1, dtype=torch.float32):
    """(map, deformation of three pictures that leaves the map on all sides, occlusion)."""
    torch.manual_seed(0)
    x = torch.randn(sources, 16, 24, 20).to(dtype, memory_format=CHANNELS_LAST)
    grid = coordinate_grid(12, 10)[None] * 1.2 + 0.2 * torch.randn(3, 12, 10, 2)
    return x, grid, torch.rand(3, 1, 12, 10)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("sources", [1, 3])
def test_same_result(align_corners, sources):
    x, grid, occlusion = scene(sources)
    plain, fast = Warp(align_corners), FastWarp(align_corners)
    for seen in (None, occlusion):
        wanted = plain(x, grid, seen)
        assert (wanted == 0).any()  # outside
        found = fast(x, grid, seen)
        torch.testing.assert_close(found, wanted, atol=5e-5, rtol=0)
        assert found.is_contiguous(memory_format=CHANNELS_LAST)


def test_bfloat16_rounds_like_the_map_itself():
    x, grid, occlusion = scene(dtype=torch.bfloat16)
    found = FastWarp(True)(x, grid, occlusion)
    assert found.dtype == torch.bfloat16
    wanted = Warp(True)(x.float(), grid, occlusion)
    assert 0 < (found.float() - wanted).abs().max() < 0.05


def test_the_identity_gives_the_map():
    x, _, _ = scene()
    found = FastWarp(True)(x, coordinate_grid(24, 20)[None])
    torch.testing.assert_close(found, x, atol=1e-5, rtol=0)


def test_nothing_is_seen_where_the_deformation_is_no_number():
    x, _, _ = scene()
    grid = coordinate_grid(24, 20)[None].clone()
    grid[0, 3, 4], grid[0, 5, 6], grid[0, 7, 8] = float("nan"), float("inf"), -3e38
    found = FastWarp(True)(x, grid)
    assert found.isfinite().all()
    assert all((found[0, :, row, column] == 0).all() for row, column in ((3, 4), (5, 6), (7, 8)))
    assert (found[0, :, 10, 10] != 0).any()


def test_few_channels_go_by_planes():
    image = torch.rand(1, 3, 24, 20)
    _, grid, _ = scene()
    assert torch.equal(FastWarp(True)(image, grid), Warp(True)(image, grid))
