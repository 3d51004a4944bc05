"""Point clouds: where points lie, and files that readers of PLY understand."""

import numpy as np
import pytest

from dagan.depth import ASSUMED_FOCAL, point_cloud, write_ply
from dagan.errors import InputError


def read_ply(path):
    """Header lines and vertices, by the format's own rules."""
    content = path.read_bytes()
    head, _, body = content.partition(b"end_header\n")
    lines = head.decode("ascii").splitlines()
    kinds = {"float": "<f4", "uchar": "u1"}
    fields = [(line.split()[2], kinds[line.split()[1]]) for line in lines if line.startswith("property")]
    vertices = np.frombuffer(body, np.dtype(fields))
    return lines, vertices


def test_points_lie_on_the_rays_of_their_pixels():
    disparity = np.full((40, 60), 0.5, np.float32)
    disparity[10, 45] = 0.9
    points = point_cloud(disparity, (0.1, 100.0), focal=2.0).reshape(40, 60, 3)
    depth = 1 / (0.01 + 9.99 * 0.5)
    assert points[..., 2].max() == pytest.approx(-1 / (0.01 + 9.99 * 0.9), rel=1e-5)  # near is closer to the viewer
    assert points[0, 0, 2] == pytest.approx(-depth, rel=1e-5)
    # A pinhole camera of two picture widths: x = (u - centre) / (2 W) depth, with square pixels.
    assert points[0, 0, 0] == pytest.approx((0.5 - 30) / 120 * depth, rel=1e-4)
    assert points[0, 0, 1] == pytest.approx(-(0.5 - 20) / 120 * depth, rel=1e-4)  # the top row is up
    assert points[-1, -1, :2] == pytest.approx(-points[0, 0, :2], rel=1e-4)


def test_the_assumed_focal_length_stretches_along_the_line_of_sight_only():
    disparity = np.random.default_rng(0).uniform(0.2, 0.8, (8, 8)).astype(np.float32)
    assumed, longer = point_cloud(disparity, (0.1, 100)), point_cloud(disparity, (0.1, 100), 2 * ASSUMED_FOCAL)
    assert longer[:, 2] == pytest.approx(assumed[:, 2])
    assert longer[:, :2] == pytest.approx(assumed[:, :2] / 2)


def test_ply_files_read_back(tmp_path):
    rng = np.random.default_rng(1)
    points, colours = rng.normal(size=(7, 3)).astype(np.float32), rng.integers(0, 256, (7, 3), np.uint8)
    write_ply(tmp_path / "a.ply", points, colours)
    lines, vertices = read_ply(tmp_path / "a.ply")
    assert lines[:3] == ["ply", "format binary_little_endian 1.0", "element vertex 7"]
    assert vertices.dtype.names == ("x", "y", "z", "red", "green", "blue")
    assert (np.stack([vertices[c] for c in "xyz"], -1) == points).all()
    assert (np.stack([vertices[c] for c in ("red", "green", "blue")], -1) == colours).all()
    with pytest.raises(InputError, match="exists already"):
        write_ply(tmp_path / "a.ply", points, colours)


@pytest.mark.parametrize("focal", [0.0, -1.0, float("nan")])
def test_a_focal_length_must_be_positive(focal):
    with pytest.raises(InputError, match="focal length"):
        point_cloud(np.full((4, 4), 0.5, np.float32), (0.1, 100), focal)
