import pytest
import torch

from dagan.geometry import ThinPlateTransform
from dagan.losses.gan import equivariance, guidance, keypoint_distance
from dagan.models.keypoints import Keypoints


def test_distance_hinge_pushes_close_keypoints_apart_and_leaves_others() -> None:
    value = torch.tensor([[[0.0, 0.0], [0.05, 0.0], [0.9, 0.9]]], requires_grad=True)
    loss = keypoint_distance(value, alpha=0.2)
    assert loss.item() == pytest.approx(0.15 / 3, abs=1e-4)
    loss.backward()
    assert value.grad is not None
    assert value.grad[0, 0, 0] > 0 > value.grad[0, 1, 0]  # a step against the gradient moves them apart
    assert value.grad[0, 2].abs().sum() == 0


def test_distance_is_finite_for_coinciding_keypoints() -> None:
    value = torch.zeros(1, 4, 2, requires_grad=True)
    keypoint_distance(value).backward()
    assert value.grad is not None
    assert value.grad.isfinite().all()


def test_equivariant_keypoints_cost_nothing_and_others_do() -> None:
    transform = ThinPlateTransform.random(2, generator=torch.Generator().manual_seed(0), affine_sigma=0.1, tps_sigma=0.02)
    transformed = Keypoints(torch.rand(2, 5, 2) - 0.5, torch.eye(2).expand(2, 5, 2, 2))
    exact = Keypoints(transform.warp_coordinates(transformed.value), transform.jacobian(transformed.value) @ transformed.jacobian)
    value, jacobian = equivariance(exact, transformed, transform)
    assert value < 1e-6
    assert jacobian < 1e-5
    value, jacobian = equivariance(transformed, transformed, transform)
    assert value > 0.01
    assert jacobian > 0.01


def test_guidance_is_the_mean_distance_to_known_landmarks() -> None:
    value = torch.zeros(1, 2, 2, requires_grad=True)
    points = torch.tensor([[[0.1, -0.3], [torch.nan, torch.nan]]])
    loss = guidance(value, points)
    assert loss.item() == pytest.approx(0.2)
    loss.backward()
    assert value.grad is not None
    assert value.grad[0, 0].tolist() == [-0.5, 0.5]
    assert value.grad[0, 1].tolist() == [0, 0]
    assert guidance(value, torch.full_like(points, torch.nan)).item() == 0


def test_guidance_counts_openings_once_more() -> None:
    points = torch.tensor([[[0.0, 0.0], [0.0, 0.1]]])
    shifted, shut = points + 0.04, points * 0
    assert guidance(shifted, points, [(0, 1)]).item() == pytest.approx(0.04)
    assert guidance(shut, points).item() == pytest.approx(0.1 / 4)
    assert guidance(shut, points, [(0, 1)]).item() == pytest.approx(0.1 / 4 + 0.1 / 2)
