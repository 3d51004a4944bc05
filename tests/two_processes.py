"""Gradients of a tiny model's objectives, by as many processes as torchrun has started. Each takes its share of the same samples.

The first process writes them to the file that is named. Batch statistics are left alone, because processes do not share them on CPUs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from dagan.models.dagan import DaGAN
from dagan.models.generator import Discriminator
from dagan.train.fabric import Carrier, make_fabric, unwrapping
from dagan.train.gan import DiscriminatorObjective, GanObjective
from dagan.train.recipe import GanLossConfig
from tiny import TINY
from toy_stage import toy_recipe

SAMPLES = 4


def gradients(output: Path) -> None:
    fabric = make_fabric(toy_recipe(output.parent))
    fabric.launch()
    torch.manual_seed(0)
    model, discriminator = DaGAN(TINY), Discriminator(TINY.keypoints.count, 8, 16)
    loss = GanLossConfig(perceptual=0, l1=10, warped=1, equivariance_value=0, equivariance_jacobian=0)
    objectives = {"generator": GanObjective(model, loss), "discriminator": DiscriminatorObjective(discriminator)}
    wrapped = {}
    for name, objective in objectives.items():
        for module in objective.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()
                module.train = lambda mode=True, module=module: module  # type: ignore[method-assign, misc, assignment]
        wrapped[name] = fabric.setup_module(Carrier(objective))
    source, driving = torch.rand(2, SAMPLES, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    share = SAMPLES // fabric.world_size
    own = slice(fabric.global_rank * share, (fabric.global_rank + 1) * share)
    losses, made = unwrapping(wrapped["generator"])(source[own], driving[own], discriminator, None)
    fabric.backward(losses["total"])
    judged = unwrapping(wrapped["discriminator"])(driving[own], made.output.image.detach(), made.driving.value.detach())
    fabric.backward(judged)
    if fabric.is_global_zero:
        found = {f"{name}.{key}": p.grad for name, o in objectives.items() for key, p in o.named_parameters() if p.grad is not None}
        torch.save(found, output)
    if fabric.world_size > 1:
        fabric.barrier()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    gradients(Path(sys.argv[1]))
