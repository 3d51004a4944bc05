"""The egomotion network: how the head moved between two frames, and which camera saw it (docs/method.md#egomotion).

Only stage 1 of training needs it. The camera is normalised as in `geometry.camera`.

Legend: B batch of frame pairs, H W image.
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

HEAD_WIDTH = 256  # The channels of the layers that follow the encoder.
# The predicted log-scale is bounded by this. Weights then lie between 1/e^2 and e^2, so that single pixels cannot dominate the loss.
LOG_SCALE_BOUND = 2.0


@dataclass(frozen=True, kw_only=True)
class EgomotionConfig(Checked):
    """The settings of the egomotion network."""

    encoder: Literal["resnet18", "resnet50", "lite"] = "resnet18"
    encoder_widths: Widths = RESNET_WIDTHS
    size: Side | None = None
    """The side to which frames are resized first; None keeps their own."""
    rotation_scale: Positive = 0.05
    """The factor on the rotation's numbers, with which training starts near "no motion".

    Turning a head about itself moves its pixels about ten times less than shifting it by the same number. With one factor for both (0.01
    in the paper) the network finds turns too small and makes up for them with too much relief.
    """
    translation_scale: Positive = 0.01
    """The factor on the translation's numbers."""
    learn_camera: bool = True
    """Whether focal lengths and principal point are predicted; else every camera has `focal` and is centred."""
    focal: Positive = 1.5
    """The focal length in image widths (and heights) at the start of training, or the fixed one."""
    principal_range: Annotated[float, Ge(0), Lt(0.5)] = 0.1
    """How far the principal point may lie from the middle, in image widths."""
    uncertainty: bool = False
    """Whether the network predicts how badly each pixel breaks rigidity (inspired by DaGAN++)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_encoder("egomotion", self.encoder, self.encoder_widths)


@dataclass(frozen=True)
class Egomotion:
    """The motion that carries points of the first frame to the second, and the camera, all in float32."""

    rotation: Tensor
    """The rotation, B x 3, as axis times angle in radians."""
    translation: Tensor
    """The translation, B x 3, in the unit of the depth map."""
    focal: Tensor
    """The focal lengths, B x 2, as fractions of the image's (width, height)."""
    principal: Tensor
    """The principal points, B x 2, likewise."""
    log_scale: Tensor | None = None
    """The logarithm of each pixel's expected relative photometric error, B x 1 x H x W, if it is predicted."""


class EgomotionNetwork(nn.Module):
    """Estimates an `Egomotion` from two frames in temporal order, each B x 3 x H x W in [0, 1]."""

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
        # Parts that are not used are left out, because data-parallel training needs a gradient for every parameter.
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
        # A 1 x 1 convolution averaged over space is a linear layer on the average. It is in float32, because a pose in bfloat16 is off
        # by a visible fraction of a pixel.
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
        start = math.log(math.expm1(config.focal))  # softplus(start) is the starting focal length.
        return F.softplus(numbers[:, :2] + start), 0.5 + config.principal_range * torch.tanh(numbers[:, 2:])


class _Uncertainty(nn.Module):
    """Predicts a log-scale within LOG_SCALE_BOUND, B x 1 at stride 4.

    Features at stride 4 tell where something is, and the squeezed deep features tell what it is.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(channels, 32, 3, 1, 1)
        self.deep = nn.Conv2d(HEAD_WIDTH, 32, 1)
        self.out = _zero_start(nn.Conv2d(32, 1, 3, 1, 1))

    def forward(self, near: Tensor, deep: Tensor) -> Tensor:
        x = F.relu(self.near(near) + resize(self.deep(deep), (near.shape[-2], near.shape[-1])))
        return LOG_SCALE_BOUND * torch.tanh(self.out(x).float())


def _zero_start(layer: nn.Linear | nn.Conv2d) -> nn.Linear | nn.Conv2d:
    """Sets weights and bias to zero, so that the layer starts at its neutral value whatever its input."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
