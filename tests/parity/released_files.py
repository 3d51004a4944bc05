"""Released checkpoints as files: at full size from the recipe, or small ones with random weights."""

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rebuild import released_state
from torch import Tensor, nn

from dagan.config import DepthConfig, GeneratorConfig, HourglassConfig, KeypointConfig, ModelConfig, MotionConfig
from dagan.models.blocks import BandLimitedDown
from dagan.models.dagan import DaGAN
from dagan.models.generator import Discriminator
from dagan.weights.released import released_key, to_released

State = dict[str, Tensor]
_SMALL_HOURGLASS = HourglassConfig(width=8, max_width=16, levels=3)


@dataclass(frozen=True)
class ReleasedFiles:
    """checkpoint: the file of keypoints and generator; depth_dir: None for an RGB-only model; states: part -> what was written."""

    checkpoint: Path
    depth_dir: Path | None
    states: dict[str, dict[str, Any]]


def write(folder: Path, states: dict[str, dict[str, Any]], *, wrapped: tuple[str, ...] = (), legacy: bool = False) -> ReleasedFiles:
    """Files as released ones are: with an optimiser's state and the epoch; wrapped: parts whose keys get the prefix `module.`."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {part: {f"module.{key}" if part in wrapped else key: value for key, value in state.items()} for part, state in states.items()}
    if "depth_encoder" in named:
        named["depth_encoder"] |= {"height": 256, "width": 256, "use_stereo": False}
    networks = {part: OrderedDict(state) for part, state in named.items() if not part.startswith("depth")}
    optimiser = {"state": {0: {"step": 7, "exp_avg": torch.ones(5)}}, "param_groups": [{"lr": 2e-4, "params": [0]}]}
    checkpoint = folder / "model.pth.tar"
    content = {**networks, "optimizer_generator": optimiser, "epoch": 99}
    torch.save(content, checkpoint, _use_new_zipfile_serialization=not legacy)
    for part, name in (("depth_encoder", "encoder.pth"), ("depth_decoder", "depth.pth")):
        if part in named:
            torch.save(named[part], folder / name, _use_new_zipfile_serialization=not legacy)
    return ReleasedFiles(checkpoint, folder if "depth_encoder" in named else None, named)


def full_depth(resnet: int) -> dict[str, State]:
    """The recipe's depth network on ResNet-18 or -50."""
    return {part: released_state(f"{part}_{resnet}") for part in ("depth_encoder", "depth_decoder")}


def small_config(decoder: str = "residual", *, use_depth: bool = True, keypoints: int = 4) -> ModelConfig:
    """The smallest configuration of the released layout: its depth network has no smaller encoder than ResNet-18."""
    return ModelConfig(
        name=f"released{'-spade' if decoder == 'spade' else ''}-64{'' if use_depth else '-rgb'}",
        image_size=64, motion_size=16, use_depth=use_depth, align_corners=False,
        depth=DepthConfig(encoder="resnet18", decoder_widths=(8, 8, 8, 8, 16)) if use_depth else DepthConfig(),
        keypoints=KeypointConfig(count=keypoints, hourglass=_SMALL_HOURGLASS),
        motion=MotionConfig(hourglass=_SMALL_HOURGLASS),
        generator=GeneratorConfig(decoder=decoder, width=8, max_width=16, **({"blocks": 2} if decoder == "residual" else {})),
    )  # fmt: skip


def random_model(config: ModelConfig, seed: int = 0) -> DaGAN:
    """A model whose batch norms, spectral norms and attention have something to do."""
    torch.manual_seed(seed)
    model = DaGAN(config)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                nn.init.uniform_(tensor, -0.3, 0.3)
    if model.generator.attention is not None:
        nn.init.constant_(model.generator.attention.gamma, 0.5)
    nn.init.normal_(model.keypoint_detector.jacobian.weight, std=0.002)
    return model.eval()


def released_states(model: DaGAN, discriminator: Discriminator | None = None) -> dict[str, State]:
    """A model's tensors as released files hold them, with blur kernels and the depth encoder's classifier."""
    config = model.config
    states: dict[str, State] = {str(part): state for part, state in to_released(model.state_dict(), config.generator.decoder).items()}
    factor = config.image_size // config.motion_size
    states["kp_detector"]["down.weight"] = BandLimitedDown(4 if config.use_depth else 3, factor).weight
    states["generator"]["dense_motion_network.down.weight"] = BandLimitedDown(3, factor).weight
    if config.use_depth:
        states["depth_encoder"] |= {"encoder.fc.weight": torch.randn(1000, 512), "encoder.fc.bias": torch.randn(1000)}
    if discriminator is not None:
        states["discriminator"] = {released_key("discriminator", key): tensor for key, tensor in discriminator.state_dict().items()}
    return states


def write_small(folder: Path, decoder: str = "residual", *, use_depth: bool = True, seed: int = 0, **how: Any) -> ReleasedFiles:
    """Released files of a small random model, with its discriminator."""
    model = random_model(small_config(decoder, use_depth=use_depth), seed)
    return write(folder, released_states(model, Discriminator(4, width=8, max_width=16)), **how)
