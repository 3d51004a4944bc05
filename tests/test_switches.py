"""The switches of a model, each for itself: every combination builds, learns, animates, and computes the same wherever it runs.

DAGAN_EVERY_EXPORT=1 exports every combination in place of three.
"""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from dagan.animate.animator import Animator
from dagan.config import GeneratorConfig, ModelConfig
from dagan.engine.sessions import ENCODER, GENERATOR, open_session
from dagan.engine.torch import TorchEngine
from dagan.export.graph_modules import check_inputs, example_inputs, graphs_of
from dagan.export.job import write_onnx
from dagan.models.dagan import DaGAN, normalised
from dagan.models.generator import CrossModalAttention, Discriminator
from dagan.train.gan import DiscriminatorObjective, GanObjective
from dagan.train.recipe import GanLossConfig
from dagan.weights import fold, read_model, save_model
from running_samples import TINY, moving_pictures

DECODERS = {
    "pyramid": TINY.generator,
    "residual": GeneratorConfig(decoder="residual", width=16, max_width=16, downs=2, blocks=1),
    "spade": GeneratorConfig(decoder="spade", width=16, max_width=16, downs=2),
}
LOSS = GanLossConfig(perceptual=0, l1=10)


def switched(depth: bool, finding: bool, attention: str, align: bool, decoder: str, count: int) -> ModelConfig:
    """A tiny model with these switches. `finding` says whether keypoints are found with depth. Depth is normalised where K is 6."""
    return replace(
        TINY, use_depth=depth, normalise_depth=count == 6, keypoints=replace(TINY.keypoints, depth=finding, count=count),
        generator=replace(DECODERS[decoder], attention=attention, align_depth=align, attention_keys=8),
    )  # fmt: skip


# Alignment means something only where something attends, and nothing of depth where there is none. SPADE, which is slow, has one K each.
WITH_DEPTH = [
    (True, finding, attention, align, decoder, count)
    for finding, attention, align, decoder, count in product(
        (True, False), ("none", "coarsest", "all"), (True, False), DECODERS, (3, 6)
    )
    if (attention != "none" or not align) and (decoder != "spade" or (count == 3) == finding)
]
COMBINATIONS = WITH_DEPTH + [(False, True, "coarsest", False, decoder, count) for decoder in DECODERS for count in (3, 6)]
# Exporting takes a quarter of a minute. Attention at the coarsest scale, and none, are exported in tests/export.
EXPORTED = [
    (True, True, "all", True, "pyramid", 3), (True, False, "all", False, "residual", 6), (True, True, "all", False, "spade", 3),
]  # fmt: skip


def test_normalised_depth_has_the_same_contrast_whatever_the_network_gave() -> None:
    shown = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    for scale, shift in ((1.0, 0.0), (0.1, 0.45)):
        widened = normalised(scale * shown + shift)
        assert widened.mean((2, 3)).flatten().tolist() == pytest.approx([0.5, 0.5], abs=1e-5)
        assert widened.std((2, 3)).flatten().tolist() == pytest.approx([0.2, 0.2], rel=0.05)
    flat = normalised(0.5 + 1e-5 * shown)
    assert (flat - 0.5).abs().max() < 0.01, "what shows nothing stays flat"


def named(switches: tuple[bool, bool, str, bool, str, int]) -> str:
    depth, finding, attention, align, decoder, count = switches
    seen = "depth" if depth else "rgb"
    return f"{seen}-{'found' if finding else 'colours'}-{attention}-{'aligned' if align else 'as-is'}-{decoder}-{count}"


def trained(config: ModelConfig) -> DaGAN:
    """A model after two steps of both objectives, in which attention counts."""
    torch.manual_seed(0)
    model = DaGAN(config)
    for module in model.modules():
        if isinstance(module, CrossModalAttention):
            torch.nn.init.constant_(module.gamma, 0.5)  # At its start, zero, nothing would reach what lies behind it.
    objective, critic = GanObjective(model, LOSS), DiscriminatorObjective(Discriminator(config.keypoints.count, 8, 16))
    optimisers = [torch.optim.Adam([p for p in o.parameters() if p.requires_grad], 1e-3) for o in (objective, critic)]
    pictures = torch.from_numpy(np.stack(moving_pictures(4))).permute(0, 3, 1, 2).float() / 255
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in range(2):
        losses, made = objective(pictures[:2], pictures[2:], critic.discriminator)
        judged = critic(pictures[2:], made.output.image.detach(), made.driving.value.detach())
        for optimiser, loss in zip(optimisers, (losses["total"], judged), strict=True):
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        assert torch.isfinite(losses["total"])
    still = [name for name, p in model.named_parameters() if p.requires_grad and torch.equal(p, before[name])]
    assert not still, "everything that is there learns"
    return model.eval()


@pytest.mark.parametrize("switches", COMBINATIONS, ids=named)
def test_every_combination_builds_trains_and_animates(switches: tuple[bool, bool, str, bool, str, int], tmp_path: Path) -> None:
    config = switched(*switches)
    model = trained(config)
    assert (model.depth_network is not None) == config.use_depth
    assert model.keypoint_detector.down.weight.shape[0] == (4 if config.depth_in_keypoints else 3)
    attentions = [module for module in model.modules() if isinstance(module, CrossModalAttention)]
    scales = config.generator.downs if config.generator.decoder == "pyramid" else config.generator.downs + 1
    assert len(attentions) == {"none": 0, "coarsest": 1, "all": scales}[config.attention]
    save_model(tmp_path / "m.safetensors", model)
    again = read_model(tmp_path / "m.safetensors")
    assert again.config == config
    photo, *frames = moving_pictures(3)
    animator = Animator(TorchEngine(again), relative=False, limit_motion=False)
    animator.set_source(photo)
    drawn = np.stack([animator.animate(frame) for frame in frames])
    image = torch.from_numpy(np.stack([photo, *frames])).permute(0, 3, 1, 2).float() / 255
    wanted = model.drive(model.encode_source(image[:1]), model.keypoints(image[1:])).image
    torch.testing.assert_close(torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 255, wanted, atol=1.5 / 255, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("switches", COMBINATIONS if os.environ.get("DAGAN_EVERY_EXPORT") else EXPORTED, ids=named)
def test_combinations_are_exported_and_run_as_graphs(switches: tuple[bool, bool, str, bool, str, int], tmp_path: Path) -> None:
    """The other two graphs are parts of the encoder."""
    model = fold(trained(switched(*switches)))
    graphs = {graph.name: graph for graph in graphs_of(model) if graph.name in (ENCODER, GENERATOR)}
    examples, checks = example_inputs(model, graphs_of(model)), check_inputs(model, graphs_of(model))
    for name, graph in graphs.items():
        write_onnx(graph, examples[name], tmp_path / f"{name}.onnx")
        session = open_session(tmp_path / f"{name}.onnx", "onnxruntime")
        found = session.run({key: tensor.numpy() for key, tensor in checks[name].items()})
        for key, wanted in graph.run(checks[name]).items():
            np.testing.assert_allclose(found[key], wanted.numpy(), atol=1e-4, rtol=0)
            assert key != "result" or wanted.std() > 1e-3
