from dataclasses import replace

import pytest
import torch

from dagan.data.landmark_tables import POINTS
from dagan.errors import InputError
from dagan.models.dagan import DaGAN
from dagan.models.generator import Discriminator
from dagan.train.gan import DiscriminatorObjective, GanObjective
from dagan.train.recipe import GanLossConfig
from tiny import TINY

CONFIG = GanLossConfig(perceptual=0, l1=1, warped=1)
GUIDE = replace(CONFIG, guide=1)
PLAIN = replace(TINY.generator, landmark_variance=None)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, 64, 64, generator=generator), torch.rand(2, 3, 64, 64, generator=generator)


def test_total_is_the_sum_of_the_weighted_terms() -> None:
    torch.manual_seed(0)
    losses, made = GanObjective(DaGAN(TINY), CONFIG)(*batch(), Discriminator(5))
    keypoint_terms = {"equivariance_value", "equivariance_jacobian", "keypoint_distance"}
    assert set(losses) == {"l1", "warped", *keypoint_terms, "adversarial", "feature_matching", "total"}
    torch.testing.assert_close(losses["total"], sum(v for k, v in losses.items() if k != "total"))
    torch.testing.assert_close(losses["l1"], (made.output.image - batch()[1]).abs().mean())


def test_the_generator_step_leaves_depth_and_discriminator_alone() -> None:
    torch.manual_seed(0)
    objective, discriminator = GanObjective(DaGAN(TINY), CONFIG), Discriminator(5)
    depth = objective.model.depth_network
    assert depth is not None
    before = {k: v.clone() for k, v in depth.state_dict().items()}
    losses, _ = objective(*batch(), discriminator)
    losses["total"].backward()
    assert all(p.grad is None for p in [*discriminator.parameters(), *depth.parameters()])
    assert all(p.requires_grad for p in discriminator.parameters())
    assert all(torch.equal(before[k], v) for k, v in depth.state_dict().items())  # running statistics too
    assert objective.model.keypoint_detector.heatmap.weight.grad is not None


def test_the_discriminator_step_leaves_the_generator_alone_and_learns() -> None:
    torch.manual_seed(0)
    objective, discriminator = GanObjective(DaGAN(TINY), CONFIG), Discriminator(5)
    side = DiscriminatorObjective(discriminator)
    source, driving = batch()
    _, made = objective(source, driving)
    optimiser = torch.optim.Adam(discriminator.parameters(), 1e-3)
    history = []
    for _ in range(20):
        loss = side(driving, made.output.image, made.driving.value)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(loss.item())
    assert history[-1] < 0.7 * history[0]
    assert all(p.grad is None for p in objective.model.parameters())


def test_losses_fall_on_one_pair() -> None:
    torch.manual_seed(0)
    objective = GanObjective(DaGAN(TINY), CONFIG)
    optimiser = torch.optim.Adam([p for p in objective.parameters() if p.requires_grad], 2e-3)
    source = torch.nn.functional.interpolate(torch.rand(2, 3, 8, 8), size=64, mode="bilinear")
    driving = source.roll(6, -1)
    history = []
    for _ in range(25):
        losses, _ = objective(source, driving)
        optimiser.zero_grad()
        losses["total"].backward()
        optimiser.step()
        history.append(losses["l1"].item())
    assert history[-1] < 0.6 * history[0]


GUIDED = replace(TINY, keypoints=replace(TINY.keypoints, count=10, landmarks=POINTS[:8]))


def landmarks_near_the_middle() -> torch.Tensor:
    return 0.2 * torch.rand(2, 2, len(POINTS), 2) - 0.1


def test_guided_keypoints_go_to_their_landmarks_and_may_meet() -> None:
    torch.manual_seed(0)
    objective = GanObjective(DaGAN(GUIDED), replace(CONFIG, guide=10, detail=1))
    assert objective.free == [8, 9]
    source, driving = batch()
    landmarks = landmarks_near_the_middle()
    landmarks[1] = torch.nan
    optimiser = torch.optim.Adam([p for p in objective.parameters() if p.requires_grad], 5e-3)
    history = []
    for _ in range(40):
        losses, _ = objective(source, driving, landmarks=landmarks)
        optimiser.zero_grad()
        losses["total"].backward()
        optimiser.step()
        history.append(losses["guide"].item())
    assert history[-1] < 0.5 * history[0]


def test_explicit_landmarks_draw_in_place_of_the_keypoints_that_are_found() -> None:
    torch.manual_seed(0)
    model = DaGAN(GUIDED)
    source, driving = batch()
    landmarks = landmarks_near_the_middle()
    landmarks[1] = torch.nan
    always = GanObjective(model, replace(CONFIG, guide=1, explicit=1, explicit_noise=0))
    placed = always._explicit(landmarks)
    assert placed is not None
    torch.testing.assert_close(placed, landmarks[:, :, :8], equal_nan=True)
    with torch.no_grad():
        made, plain = model(source, driving, landmarks=placed), model(source, driving)
    torch.testing.assert_close(made.source.keypoints.value[0, :8], landmarks[0, 0, :8])
    torch.testing.assert_close(made.source.keypoints.value[:, 8:], made.origin.value[:, 8:])
    torch.testing.assert_close(made.source.keypoints.value[1], made.origin.value[1])  # unknown: what the detector found
    torch.testing.assert_close(made.driving.value, plain.driving.value)  # losses on the detector look at what it found
    assert not torch.equal(made.output.deformation[0], plain.output.deformation[0])
    assert GanObjective(model, replace(CONFIG, guide=1))._explicit(landmarks) is None
    some = GanObjective(model, replace(CONFIG, guide=1, explicit=0.5))
    many = some._explicit(landmarks[:1].expand(1000, -1, -1, -1))
    assert many is not None
    chosen = many.isfinite().all((1, 2, 3))
    assert 400 < int(chosen.sum()) < 600
    spread = (many[chosen] - landmarks[0, :, :8]).std()
    assert 0.8 * some.config.explicit_noise < spread < 1.2 * some.config.explicit_noise


def test_the_detail_loss_looks_only_near_landmarks() -> None:
    torch.manual_seed(0)
    objective = GanObjective(DaGAN(GUIDED), replace(CONFIG, detail=1))
    source, driving = batch()
    landmarks = torch.full((2, 2, len(POINTS), 2), -0.6)
    with torch.no_grad():
        made = objective.model(source, driving)
        near = driving.clone()
        near[:, :, 32:, 32:] = 1 - near[:, :, 32:, 32:]  # far from the landmarks: the upper left quarter stays
        same = objective._guided(made, driving, landmarks)["detail"]
        torch.testing.assert_close(objective._guided(made, near, landmarks)["detail"], same, atol=1e-4, rtol=0)
        assert objective._guided(made, 1 - driving, landmarks)["detail"] != same


def test_guided_keypoints_must_be_landmarks_of_the_data() -> None:
    with pytest.raises(InputError, match=r"keypoints\.landmarks is \[\]: loss\.guide and loss\.explicit need some of"):
        GanObjective(DaGAN(replace(GUIDED, keypoints=replace(GUIDED.keypoints, landmarks=()), motion=TINY.motion, generator=PLAIN)), GUIDE)
    with pytest.raises(InputError, match=r"is \[7\]: loss\.guide"):
        GanObjective(DaGAN(replace(GUIDED, keypoints=replace(GUIDED.keypoints, landmarks=(7,)))), GUIDE)
    with pytest.raises(InputError, match=r"explicit"):
        GanLossConfig(explicit=1.5)
