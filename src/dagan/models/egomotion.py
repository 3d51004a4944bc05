"""Egomotion network: how the head moved between two frames, and which camera saw it (docs/method.md#egomotion).

Only training stage 1 needs it. Legend: B batch of frame pairs, H W image. The camera is normalised as in `geometry.camera`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Lt
from torch import Tensor, nn

from dagan.checks import Checked, Positive, Side
from dagan.config import RESNET_WIDTHS, DepthConfig, Widths, require_encoder
from dagan.geometry import resize
from dagan.models.depth import build_encoder

HEAD_WIDTH = 256
# Bound of the predicted log-scale: weights between 1/e^2 and e^2 keep single pixels from taking over the loss.
LOG_SCALE_BOUND = 2.0


@dataclass(frozen=True, kw_only=True)
class EgomotionConfig(Checked):
    """Egomotion network.

    size: side the frames are resized to first; None keeps their own.
    rotation_scale, translation_scale: factors on the motion numbers, so that training starts near "no motion". Turning a head
        about itself moves its pixels about ten times less than shifting it by the same number: with one factor for both (0.01 in
        the paper) the network takes small turns and makes up for them with too much relief.
    learn_camera: predict focal lengths and principal point; else every camera is `focal`, centred.
    focal: focal length in image widths (and heights) at the start of training, or fixed.
    principal_range: farthest the principal point may lie from the middle, in image widths.
    uncertainty: predict how badly each pixel breaks rigidity (inspired by DaGAN++).
    """

    encoder: Literal["resnet18", "resnet50", "lite"] = "resnet18"
    encoder_widths: Widths = RESNET_WIDTHS
    size: Side | None = None
    rotation_scale: Positive = 0.05
    translation_scale: Positive = 0.01
    learn_camera: bool = True
    focal: Positive = 1.5
    principal_range: Annotated[float, Ge(0), Lt(0.5)] = 0.1
    uncertainty: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_encoder("egomotion", self.encoder, self.encoder_widths)


@dataclass(frozen=True)
class Egomotion:
    """Motion that carries points of the first frame to the second, and the camera, all float32.

    rotation: B x 3 axis-angle, radians. translation: B x 3, in the depth map's unit. focal, principal: B x 2, fractions of the
    image's (width, height). log_scale: B x 1 x H x W logarithm of the expected relative photometric error, or None.
    """

    rotation: Tensor
    translation: Tensor
    focal: Tensor
    principal: Tensor
    log_scale: Tensor | None = None


class EgomotionNetwork(nn.Module):
    """Two frames in temporal order, each B x 3 x H x W in [0, 1] -> Egomotion."""

    def __init__(self, config: EgomotionConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or EgomotionConfig()
        self.encoder = build_encoder(DepthConfig(encoder=config.encoder, encoder_widths=config.encoder_widths), channels_in=6)
        channels = self.encoder.channels
        self.squeeze = nn.Conv2d(channels[-1], HEAD_WIDTH, 1)
        self.trunk = nn.Sequential(
            nn.Conv2d(HEAD_WIDTH, HEAD_WIDTH, 3, 1, 1), nn.ReLU(), nn.Conv2d(HEAD_WIDTH, HEAD_WIDTH, 3, 1, 1), nn.ReLU()
        )
        self.motion = nn.Linear(HEAD_WIDTH, 6)
        # Absent rather than unused: data-parallel training wants a gradient for every parameter.
        self.camera = _zero_start(nn.Linear(HEAD_WIDTH, 4)) if config.learn_camera else None
        self.uncertainty = _Uncertainty(channels[1]) if config.uncertainty else None

    def forward(self, first: Tensor, second: Tensor) -> Egomotion:
        if self.config.size is not None:
            size = (self.config.size, self.config.size)
            small = torch.cat([resize(first, size), resize(second, size)], dim=1)
        else:
            small = torch.cat([first, second], dim=1)
        features = self.encoder(small)
        squeezed = F.relu(self.squeeze(features[-1]))
        trunk = self.trunk(squeezed)
        # A 1x1 convolution averaged over space is a linear layer on the average; float32 because a pose in bfloat16 is a
        # visible fraction of a pixel off.
        with torch.autocast(first.device.type, enabled=False):
            rotation, translation = self.motion(trunk.float().mean((2, 3))).split(3, dim=1)
            focal, principal = self._camera(squeezed.float().mean((2, 3)))
        log_scale = None
        if self.uncertainty is not None:
            log_scale = resize(self.uncertainty(features[1], squeezed), (first.shape[-2], first.shape[-1]))
        scaled = (self.config.rotation_scale * rotation, self.config.translation_scale * translation)
        return Egomotion(*scaled, focal, principal, log_scale)

    def _camera(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        config = self.config
        if self.camera is None:
            shape = (len(pooled), 2)
            return pooled.new_full(shape, config.focal), pooled.new_full(shape, 0.5)
        numbers = self.camera(pooled)
        start = math.log(math.expm1(config.focal))  # softplus(start) = focal
        return F.softplus(numbers[:, :2] + start), 0.5 + config.principal_range * torch.tanh(numbers[:, 2:])


class _Uncertainty(nn.Module):
    """Stride-4 features (where) and squeezed deep features (what) -> B x 1 log-scale at stride 4, within LOG_SCALE_BOUND."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(channels, 32, 3, 1, 1)
        self.deep = nn.Conv2d(HEAD_WIDTH, 32, 1)
        self.out = _zero_start(nn.Conv2d(32, 1, 3, 1, 1))

    def forward(self, near: Tensor, deep: Tensor) -> Tensor:
        x = F.relu(self.near(near) + resize(self.deep(deep), (near.shape[-2], near.shape[-1])))
        return LOG_SCALE_BOUND * torch.tanh(self.out(x).float())


def _zero_start(layer: nn.Linear | nn.Conv2d) -> nn.Linear | nn.Conv2d:
    """Zero weights and bias: the head starts at its neutral value whatever the input."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
