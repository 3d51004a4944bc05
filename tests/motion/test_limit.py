"""The limit of motion: ordinary motion passes untouched, greater motion is damped, whichever frames come with it."""

import math

import numpy as np
import pytest
import torch

from dagan.models.keypoints import Keypoints
from dagan.motion.transfer import SHAPE, SHIFT, layout_radius, limit, transfer

K = 15


@pytest.fixture
def source():
    generator = torch.Generator().manual_seed(0)
    angles = torch.linspace(0, 2 * math.pi, K + 1)[:-1]
    value = 0.5 * torch.stack([angles.cos(), angles.sin()], -1) + 0.05 * torch.randn(K, 2, generator=generator)
    return Keypoints(value[None], 1.5 * torch.eye(2) + 0.2 * torch.randn(1, K, 2, 2, generator=generator))


def moved(source, similarity=None, shift=(0.0, 0.0), layout=0.0, jacobian=0.0):
    """The source turned and sized by a 2 x 2 matrix, shifted, with random changes of layout (of that size in radii) and Jacobians."""
    generator = torch.Generator().manual_seed(1)
    matrix = torch.eye(2) if similarity is None else similarity
    value, radius = source.value[0], layout_radius(source.value[0])
    middle = value.mean(0)
    noise = torch.randn(K, 2, generator=generator)
    noise -= noise.mean(0)
    own, random = (torch.view_as_complex(points.contiguous()) for points in (value - middle, noise))
    noise = torch.view_as_real(random - own * (random * own.conj()).sum() / own.abs().square().sum())  # neither turns nor sizes
    around = value - middle + layout * radius * noise / noise.square().sum(1).mean().sqrt()
    change = torch.eye(2) + jacobian * torch.randn(K, 2, 2, generator=generator) / 2
    return Keypoints((around @ matrix.T + middle + torch.tensor(shift))[None], matrix @ change @ source.jacobian)


def turn(degrees, size=1.0):
    angle = math.radians(degrees)
    return size * torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def shape_of(source, driving):
    """How far the layout is from the source's, as the limit measures it (here without a turn)."""
    home, target = (k.value[0] - k.value[0].mean(0) for k in (source, driving))
    size = (home * target).sum() / home.square().sum()
    weighted = (target / size - home) * torch.tensor([1.0, 2.0]) / layout_radius(source.value[0])
    return float(weighted.square().sum(1).mean().sqrt())


@pytest.mark.parametrize(
    "ordinary",
    [{}, {"similarity": turn(40, 1.3)}, {"similarity": turn(-40, 0.75)}, {"shift": (0.3, 0.1)}, {"layout": 0.05}, {"jacobian": 0.08}],
)
def test_ordinary_motion_stays_bit_by_bit(source, ordinary):
    driving = moved(source, **ordinary)
    limited, left = limit(source, driving)
    assert torch.equal(limited.value, driving.value)
    assert torch.equal(limited.jacobian, driving.jacobian)
    assert left.tolist() == [1.0]


def test_layouts_far_off_come_to_the_ceiling_in_their_own_direction(source):
    sizes = []
    for layout in (0.05, 0.1, 0.2, 0.4, 2.0):
        driving = moved(source, layout=layout)
        limited, left = limit(source, driving)
        sizes.append(shape_of(source, limited))
        assert sizes[-1] <= SHAPE.ceiling + 1e-3
        assert (float(left) < 1) == (shape_of(source, driving) > SHAPE.knee)
    assert sizes[:3] == sorted(sizes[:3])  # more motion stays more motion
    assert sizes[-1] == pytest.approx(SHAPE.ceiling, abs=1e-3)


def test_jacobians_never_turn_a_patch_inside_out(source):
    limited, left = limit(source, moved(source, jacobian=20.0))
    relative = limited.jacobian @ torch.linalg.inv(source.jacobian)
    assert (torch.linalg.det(relative) > 0).all()
    assert (relative - torch.eye(2)).square().sum((2, 3)).mean().sqrt() <= SHAPE.ceiling + 1e-3
    assert float(left) < 0.1


@pytest.mark.parametrize(("degrees", "size"), [(120.0, 1.0), (-120.0, 1.0), (0.0, 4.0), (0.0, 0.1)])
def test_turns_and_sizes_are_held(source, degrees, size):
    limited, _ = limit(source, moved(source, similarity=turn(degrees, size)))
    home, target = (torch.view_as_complex((k.value[0] - k.value[0].mean(0)).contiguous()) for k in (source, limited))
    factor = (target * home.conj()).sum() / home.abs().square().sum()
    assert abs(np.degrees(np.angle(factor))) <= 60.01
    assert 1 / 1.61 <= abs(factor) <= 1.61


def test_shifts_are_held(source):
    limited, _ = limit(source, moved(source, shift=(5.0, 0.0)))
    shift = float((limited.value - source.value).mean(1).norm())
    assert shift == pytest.approx(SHIFT.ceiling * layout_radius(source.value[0]), rel=1e-3)


def test_a_frame_is_the_same_alone_and_among_others(source):
    frames = [moved(source, layout=x, jacobian=x) for x in (0.5, 0.01, 0.2, 0.15)]
    together, left = limit(source, Keypoints(torch.cat([f.value for f in frames]), torch.cat([f.jacobian for f in frames])))
    for i, frame in enumerate(frames):
        alone, share = limit(source, frame)
        assert torch.allclose(alone.value[0], together.value[i], atol=1e-6)
        assert torch.allclose(alone.jacobian[0], together.jacobian[i], atol=1e-6)
        assert float(share[0]) == pytest.approx(float(left[i]))


def test_motion_grows_without_a_jump_at_the_knee():
    magnitudes = np.linspace(0, 4 * SHAPE.ceiling, 4000)
    steps = np.diff(SHAPE(magnitudes)) / np.diff(magnitudes)
    assert (steps >= 0).all()
    assert steps.max() <= 1 + 1e-6
    assert np.abs(np.diff(steps)).max() < 0.02  # no corner


@pytest.mark.parametrize("relative", [True, False])
def test_transfer_limits_unless_told_otherwise(source, relative):
    far = moved(source, layout=1.0)
    whole = transfer(source, far, source, relative, limit_motion=False)
    assert torch.allclose(whole.value, far.value, atol=1e-5)
    assert shape_of(source, transfer(source, far, source, relative)) <= SHAPE.ceiling + 1e-3


def test_keypoints_without_a_layout_are_left_alone(source):
    point = Keypoints(torch.zeros(1, K, 2), source.jacobian)
    limited, left = limit(point, source)
    assert torch.equal(limited.value, source.value)
    assert left.tolist() == [1.0]


def test_source_jacobians_without_inverse_give_no_nan(source):
    flat = Keypoints(source.value, torch.zeros(1, K, 2, 2))
    limited, _ = limit(flat, moved(source, layout=0.5))
    assert torch.isfinite(limited.value).all()
    assert torch.isfinite(limited.jacobian).all()
