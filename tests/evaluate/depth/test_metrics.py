import numpy as np
import pytest

from dagan.evaluate.metrics import (
    align_depth,
    angle_between,
    depth_scores,
    flat_depth_scores,
    normal_error,
    rotation_between,
    surface_normals,
)

FOCAL, PRINCIPAL = (150.0, 150.0), (31.5, 31.5)


def head(size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Depth of a ball of radius 0.1 m, 0.6 m away, before a wall; the pixels of the ball."""
    row, column = np.mgrid[0:size, 0:size]
    rays = np.stack([(column - 31.5) / 150, (row - 31.5) / 150, np.ones((size, size))], -1)
    a, b, c = (rays**2).sum(-1), -2 * 0.7 * rays[..., 2], 0.7**2 - 0.1**2
    root = b**2 - 4 * a * c
    face = root > 0.003
    return np.where(face, (-b - np.sqrt(np.clip(root, 0, None))) / (2 * a), 1.5).astype(np.float32), face


def test_truth_scores_perfectly_whatever_its_scale_and_shift() -> None:
    truth, face = head()
    disparity = 0.07 / truth + 0.2
    result = depth_scores(disparity, 3.0 * truth, truth, face, FOCAL, PRINCIPAL)
    assert result.spearman == pytest.approx(1)
    assert result.relief < 1e-5
    assert result.normals < 0.2
    assert result.abs_rel < 1e-5
    assert result.delta == 1


def test_hollow_face_scores_no_better_than_a_flat_disc() -> None:
    truth, face = head()
    flat = flat_depth_scores(truth, face, FOCAL, PRINCIPAL)
    hollow = depth_scores(-1 / truth, 1 / truth, truth, face, FOCAL, PRINCIPAL)
    assert hollow.spearman == pytest.approx(-1)
    assert flat.spearman == 0
    assert hollow.relief == pytest.approx(flat.relief, rel=1e-3)
    assert flat.relief > 0.2
    assert flat.normals > 20
    # The figures that say nothing say so: the disc passes them.
    assert flat.delta == 1
    assert flat.abs_rel < 0.05


def test_figures_grow_with_the_error() -> None:
    truth, face = head()
    half = truth + 0.5 * (0.64 - truth) * (np.arange(64) > 31)  # relief lost on one side
    results = [depth_scores(1 / d, d, truth, face, FOCAL, PRINCIPAL) for d in (truth, half)]
    assert results[1].relief > results[0].relief + 0.03
    assert results[1].normals > results[0].normals + 3


def test_alignment_looks_inside_the_face_only() -> None:
    truth, face = head()
    disparity = np.where(face, 1 / truth, 40.0)
    np.testing.assert_allclose(align_depth(disparity, truth, face)[face], truth[face], rtol=1e-5)
    assert (align_depth(-1e3 * disparity, truth, face) > 0).all()


def test_normals_of_a_slanted_plane() -> None:
    row, column = np.mgrid[0:64, 0:64]
    rays = np.stack([(column - 31.5) / 150, (row - 31.5) / 150, np.ones((64, 64))], -1)
    normal = np.array([np.sin(np.radians(30)), 0, -np.cos(np.radians(30))])
    slanted = -0.6 * np.cos(np.radians(30)) / (rays @ normal)
    seen = surface_normals(slanted, FOCAL, PRINCIPAL)
    np.testing.assert_allclose(seen[5:-5, 5:-5], np.broadcast_to(normal, (54, 54, 3)), atol=2e-3)
    face = np.zeros((64, 64), bool)
    face[10:50, 10:50] = True
    assert normal_error(np.full((64, 64), 0.6), slanted, face, FOCAL, PRINCIPAL) == pytest.approx(30, abs=0.1)
    face[:] = False
    face[3, 3] = True
    assert np.isnan(normal_error(slanted, slanted, face, FOCAL, PRINCIPAL))


def test_angles_between_poses() -> None:
    def about_y(degrees: float) -> np.ndarray:
        a = np.radians(degrees)
        return np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])

    turn = rotation_between(about_y(10), about_y(25))
    assert angle_between(np.eye(3), turn) == pytest.approx(15)
    assert angle_between(turn, about_y(15)) == pytest.approx(0, abs=1e-4)
