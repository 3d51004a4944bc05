import torch

from dagan.models.dagan import DaGAN
from dagan.models.discriminator import Discriminator
from dagan.train.gan import DiscriminatorObjective, GanLossConfig, GanObjective
from tiny import TINY

CONFIG = GanLossConfig(perceptual=0, l1=1, warped=1)


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
    for _ in range(10):
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
