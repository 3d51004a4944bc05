from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.interpolate import griddata
from torch import Tensor, nn

from dagan.config import DepthConfig
from dagan.errors import InputError
from dagan.geometry import axis_angle_to_rotation, back_project, coordinate_grid, intrinsics, invert_intrinsics, resize, rigid_motion
from dagan.losses.depth import bulge_difference, match_shapes, photometric_error, start_bulge
from dagan.models.depth import DepthNetwork, Egomotion, EgomotionConfig, EgomotionNetwork
from dagan.train.alignment import head_level
from dagan.train.depth_objective import DepthBatch, DepthObjective
from dagan.train.recipe import DepthLossConfig
from relief_scene import DISTANCE, WALL, Scene, render

WIDTHS = (8, 8, 12, 16, 24)
PLAIN = DepthLossConfig(scales=1, level=0, start_share=0, aligned_share=0, intrinsics_prior=0, smoothness=0, pivot=False)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return render(3, 96, torch.Generator().manual_seed(3))


def batch_of(scene: Scene) -> DepthBatch:
    return DepthBatch(*scene.frames, *scene.frames)


class KnownDepth(nn.Module):
    """Puts out the given depth whatever it sees."""

    config = DepthConfig(min_depth=0.2, max_depth=8.0)

    def __init__(self, depth: Tensor) -> None:
        super().__init__()
        low, high = 1 / self.config.max_depth, 1 / self.config.min_depth
        self.disparity = nn.Parameter((1 / depth - low) / (high - low))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        full = self.disparity.repeat(len(image) // len(self.disparity), 1, 1, 1)
        return tuple(resize(full, (full.shape[-2] >> i, full.shape[-1] >> i)) for i in range(4))


class KnownMotion(nn.Module):
    """Puts out the given motion whatever it sees."""

    config = EgomotionConfig()

    def __init__(self, motion: Egomotion) -> None:
        super().__init__()
        self.motion = motion

    def forward(self, first: Tensor, second: Tensor) -> Egomotion:
        return self.motion


def about_camera(motion: Egomotion, distance: float | Tensor = DISTANCE) -> Egomotion:
    """The same motion as a turn about the camera's centre: t + c - R c for the pivot c = (0, 0, distance)."""
    centre = torch.zeros_like(motion.translation)
    centre[:, 2] = distance
    turned = (axis_angle_to_rotation(motion.rotation) @ centre[:, :, None])[:, :, 0]
    return replace(motion, translation=motion.translation + centre - turned)


def known(depth: Tensor, motion: Egomotion, config: DepthLossConfig = PLAIN) -> DepthObjective:
    return DepthObjective(KnownDepth(depth), KnownMotion(motion), config)  # type: ignore[arg-type]


def small_objective(config: DepthLossConfig, **egomotion: object) -> DepthObjective:
    torch.manual_seed(0)
    depth = DepthConfig(encoder="lite", encoder_widths=WIDTHS, decoder_widths=(8, 8, 8, 12, 16), min_depth=0.4, max_depth=4.0)
    ego = EgomotionConfig(encoder="lite", encoder_widths=WIDTHS, **egomotion)  # type: ignore[arg-type]
    return DepthObjective(DepthNetwork(depth), EgomotionNetwork(ego), config)


def test_truth_explains_the_frames_and_every_perturbation_is_worse(scene: Scene) -> None:
    truth = about_camera(scene.motion)

    def loss(depth: Tensor = scene.depth, **change: Tensor) -> float:
        losses, _ = known(depth, replace(truth, **change))(batch_of(scene))
        return losses["total"].item()

    best = loss()
    still = loss(rotation=torch.zeros(6, 3), translation=torch.zeros(6, 3))
    # What is left of the mean are rims and what the nose hides; elsewhere the frame is rebuilt to a thousandth.
    assert best < 0.15 * still
    _, previews = known(scene.depth, truth)(batch_of(scene))
    assert photometric_error(previews.warped, scene.frames[1])[scene.head].median() < 1e-3
    shift, turn = torch.tensor([0.01, 0.0, 0.0]), torch.tensor([0.0, 0.0, 0.02])
    for sign in (-1, 1):
        assert loss(translation=truth.translation + sign * shift) > 1.2 * best
        assert loss(translation=truth.translation + sign * shift.roll(1)) > 1.2 * best
        assert loss(rotation=truth.rotation + sign * turn) > 1.05 * best
        assert loss(rotation=truth.rotation + sign * turn.roll(1)) > 1.2 * best
        assert loss(focal=truth.focal * (1 + sign * 0.1)) > 1.05 * best
        assert loss(principal=truth.principal + sign * 0.1) > 1.02 * best
        assert loss(scene.depth * (1 + sign * 0.05)) > 1.05 * best
    # Relief: less, none, and turned inside out.
    for factor in (0.6, 0.0, -1.0):
        middle = scene.depth[scene.head].mean()
        assert loss(torch.where(scene.head, middle + factor * (scene.depth - middle), WALL)) > 1.1 * best


def test_time_order_matters(scene: Scene) -> None:
    # The earlier frame's pose is the inverse of the motion found in temporal order: swapped or not inverted, it does not fit.
    truth = about_camera(scene.motion)
    best = known(scene.depth, truth)(batch_of(scene))[0]["total"]
    backwards_turn = torch.cat([-truth.rotation[:3], truth.rotation[3:]])
    assert known(scene.depth, replace(truth, rotation=backwards_turn))(batch_of(scene))[0]["total"] > 1.1 * best
    backwards = replace(batch_of(scene), previous=scene.frames[2], next=scene.frames[0])
    assert known(scene.depth, truth)(backwards)[0]["total"] > 2 * best


def test_pivot_states_the_same_motion_and_forgets_the_depth_scale(scene: Scene) -> None:
    reference, _ = known(scene.depth, about_camera(scene.motion))(batch_of(scene))
    distance = 1 / head_level(1 / scene.depth)[:, 0, 0, 0].repeat(2)
    # From the scene's pivot to the objective's, which lies at the distance of the head: via the camera's centre.
    centred = about_camera(scene.motion)
    back = about_camera(replace(centred, translation=torch.zeros_like(centred.translation)), distance).translation
    pivoted = replace(centred, translation=(centred.translation - back) / distance[:, None])
    config = replace(PLAIN, pivot=True)
    for scale in (1.0, 0.5, 2.0):
        losses, _ = known(scale * scene.depth, pivoted, config)(batch_of(scene))
        torch.testing.assert_close(losses["total"], reference["total"], atol=2e-4, rtol=0)
    objective = known(scene.depth, pivoted, config)
    objective(batch_of(scene))[0]["total"].backward()
    parameter = objective.depth_network.disparity
    low, high = 1 / KnownDepth.config.max_depth, 1 / KnownDepth.config.min_depth
    gradient = parameter.grad * (parameter + low / (high - low))  # with respect to the logarithm of 1 / depth
    assert abs(gradient.sum()) < 1e-3 * gradient.abs().sum()


def test_static_wall_is_masked(scene: Scene) -> None:
    losses, previews = known(scene.depth, about_camera(scene.motion))(batch_of(scene))
    wall = ~torch.nn.functional.max_pool2d(scene.head.float(), 17, 1, 8).bool()
    assert not previews.kept[wall].any()
    assert previews.kept[scene.head].float().mean() > 0.9
    assert losses["monitor/masked"] == pytest.approx(1 - previews.kept.float().mean().item(), abs=1e-5)
    assert losses["monitor/explained"] > 0.85
    assert losses["monitor/rotation"] == pytest.approx(torch.rad2deg(scene.motion.rotation.norm(dim=1).mean()).item(), rel=1e-3)
    unmasked, _ = known(scene.depth, about_camera(scene.motion), replace(PLAIN, automask=False))(batch_of(scene))
    assert unmasked["monitor/masked"] == 0
    assert unmasked["total"] > losses["total"]


@pytest.mark.parametrize("scales", [1, 2, 4])
def test_every_parameter_gets_a_gradient_from_one_forward(scene: Scene, scales: int) -> None:
    config = DepthLossConfig(scales=scales, levels=2, flip_consistency=0.1, consistency=0.1)
    objective = small_objective(config, uncertainty=True)
    objective(batch_of(scene), 0.1)[0]["total"].backward()
    missing = [name for name, p in objective.named_parameters() if p.grad is None]
    assert not missing
    assert all(torch.isfinite(p.grad).all() for p in objective.parameters() if p.grad is not None)
    for layer in (objective.egomotion.camera, objective.egomotion.motion, objective.egomotion.uncertainty.out):
        assert layer.weight.grad.abs().sum() > 0
    assert objective.depth_network.decoder.disparity[0].conv.weight.grad.abs().sum() > 0


def test_focal_gradient_points_to_the_true_camera(scene: Scene) -> None:
    truth = about_camera(scene.motion)
    for factor, sign in ((1.03, 1), (0.97, -1)):
        focal = (truth.focal * factor).requires_grad_()
        known(scene.depth, replace(truth, focal=focal))(batch_of(scene))[0]["total"].backward()
        assert focal.grad is not None
        assert sign * focal.grad.sum() > 0


def test_terms_add_up_and_are_weighted(scene: Scene) -> None:
    losses, _ = small_objective(DepthLossConfig(flip_consistency=0.5))(batch_of(scene), 0.0)
    terms = {name: value for name, value in losses.items() if name != "total" and "/" not in name}
    assert set(terms) == {"photometric", "smoothness", "level", "intrinsics", "flip", "bulge", "imitation"}
    torch.testing.assert_close(losses["total"].detach(), torch.stack(list(terms.values())).sum())
    assert all(not value.requires_grad for name, value in losses.items() if name != "total")
    doubled, _ = small_objective(DepthLossConfig(flip_consistency=1.0))(batch_of(scene), 0.0)
    torch.testing.assert_close(doubled["flip"], 2 * losses["flip"])


def test_start_gives_way_to_the_photometric_error(scene: Scene) -> None:
    objective = small_objective(DepthLossConfig(start_share=0.1, aligned_share=0))
    first, half, after = (objective(batch_of(scene), progress)[0] for progress in (0.0, 0.05, 0.1))
    assert first["photometric"] == 0
    torch.testing.assert_close(half["photometric"], after["photometric"] / 2, rtol=0.01, atol=0)
    for name in ("bulge", "imitation"):
        assert first[name] > 0
        torch.testing.assert_close(half[name], first[name] / 2, rtol=0.01, atol=0)
        assert name not in after


def test_bulge_prefers_a_face_to_its_hollow(scene: Scene) -> None:
    face = 1 / scene.depth
    bulge = start_bulge(scene.frames[1], 0.2)
    assert bulge_difference(face, bulge) < bulge_difference(2 * face.mean() - face, bulge)
    assert bulge_difference(3 * bulge, bulge) < 1e-6


@pytest.mark.parametrize("pivot", [True, False])
def test_motion_at_the_start_is_drawn_to_the_true_one(scene: Scene, pivot: bool) -> None:
    config = replace(PLAIN, pivot=pivot, start_share=1.0, start_relief=0.2)
    truth = scene.motion if pivot else about_camera(scene.motion)
    nothing = replace(truth, rotation=torch.zeros(6, 3), translation=torch.zeros(6, 3))
    near, far = (known(scene.depth, motion, config)(batch_of(scene), 0.0)[0]["imitation"] for motion in (truth, nothing))
    assert near < 0.7 * far


def test_aligned_motion_stands_in_for_a_network_that_knows_nothing(scene: Scene) -> None:
    still = replace(scene.motion, rotation=torch.zeros(6, 3), translation=torch.zeros(6, 3))
    head = torch.where(scene.head, scene.depth, scene.depth[scene.head].max())
    for pivot in (True, False):
        objective = known(head, still, replace(PLAIN, pivot=pivot, aligned_share=0.5))
        early, late = (objective(batch_of(scene), progress)[0] for progress in (0.4, 0.5))
        assert early["monitor/explained"] > 0.6
        assert late["monitor/explained"] < 0.1
        assert early["imitation"] > 0
        assert "imitation" not in late


def test_flip_consistency_is_zero_only_for_mirrored_maps(scene: Scene) -> None:
    config = replace(PLAIN, flip_consistency=1.0)
    even = torch.full_like(scene.depth, 1.0)
    assert known(even, scene.motion, config)(batch_of(scene))[0]["flip"] == 0
    assert known(scene.depth, scene.motion, config)(batch_of(scene))[0]["flip"] > 0


def test_coarse_pictures_tell_from_farther_which_way_is_right(scene: Scene) -> None:
    truth = about_camera(scene.motion)

    def slope(shift: float, levels: int) -> float:
        """Of the loss along a shift to the left, as seen from `shift` to the right of the truth."""
        translation = (truth.translation + torch.tensor([shift, 0.0, 0.0])).requires_grad_()
        objective = known(scene.depth, replace(truth, translation=translation), replace(PLAIN, levels=levels, automask=False))
        objective(batch_of(scene))[0]["total"].backward()
        assert translation.grad is not None
        return translation.grad[:, 0].sum().item()

    best = known(scene.depth, truth, replace(PLAIN, levels=3))(batch_of(scene))[0]["photometric"]
    still = known(scene.depth, replace(truth, rotation=0 * truth.rotation), replace(PLAIN, levels=3))(batch_of(scene))[0]["photometric"]
    assert best < 0.3 * still
    # Some six pixels off.
    assert slope(0.04, 3) > 1.3 * slope(0.04, 1)
    assert slope(-0.04, 3) < 1.3 * slope(-0.04, 1)


def test_shape_moves_with_the_head(scene: Scene) -> None:
    # The scene turned: what the next frame shows is this frame's relief, moved. Frames swapped about, the truth of both is known.
    truth = about_camera(scene.motion)
    motion = rigid_motion(truth.rotation[3:], truth.translation[3:])
    camera = intrinsics(truth.focal[:3], truth.principal[:3], (96, 96))
    head = torch.where(scene.head, scene.depth, scene.depth[scene.head].max())
    next_head = moved_depth(head, motion, camera)
    match = match_shapes(head, next_head, motion, camera)
    right = match.difference
    assert right < 0.5 * match_shapes(head, head, motion, camera).difference
    torch.testing.assert_close(match.scale, torch.ones(3), atol=0.01, rtol=0)
    other = match_shapes(3 * head, 5 * next_head, scaled(motion, 3), camera)
    torch.testing.assert_close(other.difference, right, atol=1e-3, rtol=0)
    torch.testing.assert_close(other.scale, 0.6 * match.scale, atol=1e-3, rtol=0)
    # Flattening both maps gains nothing: the difference is relative to their relief.
    flat = [head.mean() + 0.5 * (d - head.mean()) for d in (head, next_head)]
    assert match_shapes(*flat, motion, camera).difference > right


def moved_depth(depth: Tensor, motion: Tensor, camera: Tensor) -> Tensor:
    """The depth map of the moved surface, B 1 H W: of each pixel the nearest moved point around it, interpolated linearly."""
    points = back_project(depth, invert_intrinsics(camera))
    moved = torch.einsum("bij,bjhw->bihw", motion[:, :3, :3], points) + motion[:, :3, 3, None, None]
    pixels = torch.einsum("bij,bjhw->bihw", camera, moved)
    maps = []
    rows, columns = np.mgrid[0 : depth.shape[-2], 0 : depth.shape[-1]]
    for x, y, z in zip(*(pixels / pixels[:, 2:])[:, :2].unbind(1), moved[:, 2], strict=True):
        places = np.stack([x.numpy().ravel(), y.numpy().ravel()], 1)
        maps.append(griddata(places, z.numpy().ravel(), (columns, rows), "linear", fill_value=float(z.max())))
    return torch.from_numpy(np.stack(maps)).float()[:, None]


def scaled(motion: Tensor, factor: float) -> Tensor:
    motion = motion.clone()
    motion[:, :3, 3] *= factor
    return motion


def test_fixed_camera_has_no_prior(scene: Scene) -> None:
    losses, _ = small_objective(DepthLossConfig(), learn_camera=False, focal=2.0)(batch_of(scene))
    assert "intrinsics" not in losses
    assert losses["monitor/focal"] == 2


def test_autocast_changes_the_networks_only(scene: Scene) -> None:
    truth = known(scene.depth, about_camera(scene.motion))
    plain, _ = truth(batch_of(scene))
    with torch.autocast("cpu", torch.bfloat16):
        mixed, _ = truth(batch_of(scene))
        network, _ = small_objective(DepthLossConfig())(batch_of(scene))
    torch.testing.assert_close(mixed["total"], plain["total"])
    assert network["total"].dtype == torch.float32
    assert torch.isfinite(network["total"])


@pytest.mark.parametrize(
    ("option", "value"), [("scales", 0), ("scales", 5), ("levels", 0), ("consistency", -0.1), ("smoothness", -1.0), ("start_share", -0.1)]
)
def test_bad_options_are_named(option: str, value: float) -> None:
    with pytest.raises(InputError, match=option):
        DepthLossConfig(**{option: value})  # type: ignore[arg-type]


def rank_agreement(disparity: Tensor, scene: Scene) -> float:
    """Mean over the samples of Spearman's correlation between disparity and nearness on the head."""

    def ranks(values: Tensor) -> Tensor:
        return values.argsort().argsort().float()

    pairs = [torch.stack([ranks(d[m]), ranks(-z[m])]) for d, z, m in zip(disparity, scene.depth, scene.head, strict=True)]
    return torch.stack([torch.corrcoef(pair)[0, 1] for pair in pairs]).mean().item()


@pytest.mark.slow
def test_learning_from_frames_alone_finds_the_relief() -> None:
    torch.manual_seed(2)
    scene = render(10, 64, torch.Generator().manual_seed(2))
    widths = (16, 16, 24, 32, 48)
    depth = DepthConfig(encoder="lite", encoder_widths=widths, decoder_widths=(8, 8, 16, 24, 32), min_depth=0.4, max_depth=4.0)
    objective = DepthObjective(
        DepthNetwork(depth),
        EgomotionNetwork(EgomotionConfig(encoder="lite", encoder_widths=widths)),
        DepthLossConfig(scales=1, start_share=0.4, aligned_share=0),
    )
    optimiser = torch.optim.Adam(objective.parameters(), 1e-3)
    steps = 120
    for step in range(steps):
        losses, previews = objective(batch_of(scene), step / steps)
        optimiser.zero_grad()
        losses["total"].backward()
        optimiser.step()
    # The heads lie off the middle, so that the bulge that training starts from is a poor guess.
    bulge = torch.exp(-coordinate_grid(64, 64).square().sum(-1)).expand(10, 1, 64, 64)
    assert rank_agreement(bulge, scene) < 0.5
    assert rank_agreement(previews.disparity, scene) > 0.75
    assert losses["monitor/explained"] > 0.75
    assert losses["monitor/rotation"] > 2
