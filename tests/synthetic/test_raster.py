import numpy as np
import pytest

from dagan.synthetic import mesh as raster
from dagan.synthetic.mesh import rasterise

CAMERA = (100.0, 100.0, 31.5, 31.5)
# Twice the camera's field at depth 1, so that it covers every pixel.
WIDE = np.array([[-2, -2, 1], [4, -2, 1], [-2, 4, 1]], np.float32)
ONE = np.array([[0, 1, 2]], np.int32)


def test_depth_of_a_slanted_plane_is_exact_at_pixel_centres() -> None:
    points = WIDE * np.array([1.0, 1.5, 2.0], np.float32)[:, None]
    hits = rasterise(points, ONE, CAMERA, (64, 64))
    assert len(hits.sample) == 64 * 64
    normal = np.cross(points[1] - points[0], points[2] - points[0])
    row, column = np.divmod(hits.sample, 64)
    rays = np.stack([(column - 31.5) / 100, (row - 31.5) / 100, np.ones(len(row))], 1)
    np.testing.assert_allclose(hits.depth, (normal @ points[0]) / (rays @ normal), rtol=1e-5)
    # Weights are those in space: they rebuild the point that the pixel sees.
    np.testing.assert_allclose(hits.weights @ points, rays * hits.depth[:, None], atol=1e-4)


def test_nearest_triangle_wins_and_back_faces_are_not_drawn() -> None:
    near = np.array([[-0.1, -0.1, 0.5], [0.1, -0.1, 0.5], [-0.1, 0.1, 0.5]], np.float32)
    points = np.concatenate([WIDE, near])
    hits = rasterise(points, np.array([[0, 1, 2], [3, 4, 5]], np.int32), CAMERA, (64, 64))
    assert 0 < (hits.face == 1).sum() < 64 * 64
    assert set(hits.depth[hits.face == 1].tolist()) == {0.5}
    assert len(np.unique(hits.sample)) == len(hits.sample) == 64 * 64
    behind = rasterise(points, np.array([[0, 2, 1], [3, 4, 5]], np.int32), CAMERA, (64, 64))
    assert set(behind.face.tolist()) == {1}


def test_neighbours_share_every_sample_once(monkeypatch: pytest.MonkeyPatch) -> None:
    y, x = np.mgrid[0:9, 0:9] / 8 - 0.5
    points = np.stack([x, y, 1 + 0.1 * np.sin(9 * x)], -1).reshape(-1, 3).astype(np.float32)
    number = np.arange(81, dtype=np.int32).reshape(9, 9)
    a, b, c, d = (part.ravel() for part in (number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]))
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)])
    whole = rasterise(points, faces, CAMERA, (64, 64))
    inside = np.zeros((64, 64), bool)
    inside.ravel()[whole.sample] = True
    assert inside[4:60, 4:60].all()  # no gaps along the edges
    monkeypatch.setattr(raster, "CHUNK", 200)
    parts = rasterise(points, faces, CAMERA, (64, 64))
    np.testing.assert_array_equal(parts.sample, whole.sample)
    np.testing.assert_array_equal(parts.depth, whole.depth)


def test_nothing_in_view_gives_no_hits() -> None:
    assert len(rasterise(WIDE - [0, 0, 3], ONE, CAMERA, (64, 64)).sample) == 0
