"""Depth from many frames of a clip, on synthetic heads whose depth is known."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from dagan.data.truth import read_truth, truth_of
from dagan.media.video import open_video
from dagan.synthetic.clip import synthesise
from dagan.train.alignment import head_level
from dagan.train.labels import depth_from_views, lowest

SIDE, FRAMES, STEP, REACH = 96, 50, 4, 8
CAMERA = (torch.full((4, 2), 1.5), torch.full((4, 2), 0.5))


@dataclass(frozen=True)
class Heads:
    """frame: 4 x 3 x S x S; views: 4 x K x 3 x S x S; present: 4 x K; inverse: true relative inverse depth; face: 4 x 1 x S x S bool."""

    frame: Tensor
    views: Tensor
    present: Tensor
    inverse: Tensor
    face: Tensor


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Heads:
    folder = tmp_path_factory.mktemp("heads")
    synthesise(folder, 4, SIDE, seed=51, frames=FRAMES)
    parts: list[tuple[Tensor, ...]] = []
    offsets = STEP * torch.arange(1, REACH + 1)
    offsets = torch.cat([offsets, -offsets])
    for path in sorted(folder.glob("*.mp4")):
        description = truth_of(path)
        assert description is not None
        truth = read_truth(description)
        with open_video(path) as video:
            pictures = torch.stack([torch.from_numpy(frame.image.copy()).permute(2, 0, 1).float() / 255 for frame in video])
        middle = FRAMES // 2
        places = middle + offsets
        inverse = 1 / torch.from_numpy(truth.depth[middle]).float()[None]
        face = torch.from_numpy(truth.face[middle])[None]
        parts.append((pictures[middle], pictures[places.clamp(0, FRAMES - 1)], (places >= 0) & (places < FRAMES), inverse, face))
    frame, views, present, inverse, face = (torch.stack(x) for x in zip(*parts, strict=True))
    return Heads(frame, views, present, inverse / head_level(inverse), face)


def places(axis: str) -> Tensor:
    """S x S: -1 at the left (or upper) side to 1 at the other."""
    across = torch.linspace(-1, 1, SIDE).expand(SIDE, SIDE)
    return across if axis == "x" else across.T


def tilted(heads: Heads, amount: float, axis: str) -> Tensor:
    """The true inverse depth as if heads were turned by `amount` per half width (or height)."""
    return heads.inverse * (1 + amount * places(axis))


def tilt_error(heads: Heads, inverse: Tensor, axis: str = "x") -> Tensor:
    """4: slope, per half width (or height), of the difference to the truth in the face."""
    place = places(axis)
    slopes = []
    for found, true, face in zip(inverse, heads.inverse, heads.face, strict=True):
        x = place[face[0]] - place[face[0]].mean()
        difference = found[face] / found[face].mean() - true[face] / true[face].mean()
        slopes.append((x * difference).sum() / x.square().sum())
    return torch.stack(slopes)


@pytest.mark.slow
@pytest.mark.parametrize("axis", ["x", "y"])
def test_a_face_that_stands_wrong_is_put_right(heads: Heads, axis: str) -> None:
    wrong = tilted(heads, 0.06, axis)
    found = depth_from_views(heads.frame, heads.views, heads.present, wrong, *CAMERA)
    assert found.usable.all()
    before, after = tilt_error(heads, wrong, axis), tilt_error(heads, found.inverse, axis)
    assert before.min() > 0.04
    assert after.abs().mean() < 0.5 * before.mean()


def relief_error(heads: Heads, inverse: Tensor) -> Tensor:
    """4: mean |difference| of relative inverse depth to the truth in the face."""
    pairs = zip(inverse, heads.inverse, heads.face, strict=True)
    return torch.stack([(a[face] / a[face].mean() - b[face] / b[face].mean()).abs().mean() for a, b, face in pairs])


def test_lowest_cost_is_found_between_the_values_tried() -> None:
    tried = torch.linspace(0.9, 1.1, 21)
    truth = torch.tensor([0.953, 1.004])[:, None, None, None].expand(2, 1, 8, 8)
    cost = (tried[:, None, None] - truth).square()
    place, sure = lowest(cost, tried)
    torch.testing.assert_close(place, truth, atol=1e-4, rtol=0)
    assert (sure > 0).all()


@pytest.mark.slow
def test_relief_that_is_too_flat_grows(heads: Heads) -> None:
    flat = torch.where(heads.inverse > 0.9, 1 + 0.4 * (heads.inverse - 1), heads.inverse)
    found = depth_from_views(heads.frame, heads.views, heads.present, flat, *CAMERA)
    before, after = relief_error(heads, flat / head_level(flat)), relief_error(heads, found.inverse)
    assert after.mean() < 0.9 * before.mean(), (before, after)


def test_what_is_right_stays(heads: Heads) -> None:
    found = depth_from_views(heads.frame, heads.views, heads.present, 3 * heads.inverse, *CAMERA)
    assert (found.inverse - heads.inverse)[heads.face].abs().mean() < 0.02
    assert tilt_error(heads, found.inverse).abs().mean() < 0.025


def test_clips_that_do_not_turn_leave_the_depth_as_it_was(heads: Heads) -> None:
    still = heads.frame[:, None].expand_as(heads.views)
    found = depth_from_views(heads.frame, still, heads.present, heads.inverse, *CAMERA)
    assert not found.usable.any()
    torch.testing.assert_close(found.inverse, heads.inverse, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_views_that_are_missing_are_not_looked_at(heads: Heads) -> None:
    present = heads.present.clone()
    present[:, REACH:] = False
    spoilt = heads.views.clone()
    spoilt[:, REACH:] = torch.rand(spoilt[:, REACH:].shape, generator=torch.Generator().manual_seed(0))
    clean = depth_from_views(heads.frame, heads.views, present, heads.inverse, *CAMERA)
    other = depth_from_views(heads.frame, spoilt, present, heads.inverse, *CAMERA)
    assert clean.usable.any()
    assert torch.equal(clean.usable, other.usable)
    torch.testing.assert_close(clean.inverse, other.inverse)


@pytest.mark.slow
def test_autocast_does_not_reach_the_geometry(heads: Heads) -> None:
    arguments = (heads.frame, heads.views, heads.present, heads.inverse, *CAMERA)
    plain = depth_from_views(*arguments)
    with torch.autocast("cpu", torch.bfloat16):
        cast = depth_from_views(*arguments)
    assert cast.inverse.dtype == torch.float32
    torch.testing.assert_close(plain.inverse, cast.inverse, atol=1e-5, rtol=0)
