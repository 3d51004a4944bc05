"""The networks that learn depth: the face depth network, and the egomotion network that it is trained with.

The face depth network (docs/method.md#depth-network) is a ResNet encoder and a decoder with skips, which gives disparities at four scales.
Disparity is in (0, 1), and near is large. The finest disparity is what the system calls the depth map.

The egomotion network tells how the head moved between two frames, and which camera saw it (docs/method.md#egomotion). Only stage 1 of
training needs it. The camera is normalised as in `geometry`.

Legend: B batch, for egomotion of frame pairs, H W image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal, cast

import torch
import torch.nn.functional as F
from annotated_types import Ge, Lt
from torch import Tensor, nn

from dagan.checks import Checked, Positive, Side
from dagan.config import RESNET_WIDTHS, DepthConfig, Widths, require_encoder
from dagan.geometry import resize


def disparity_to_depth(disparity: Tensor, minimum: float = 0.1, maximum: float = 100.0) -> Tensor:
    """Turns disparity in (0, 1), of any shape, into depth in [minimum, maximum] (docs/method.md#depth-network)."""
    return 1 / (1 / maximum + (1 / minimum - 1 / maximum) * disparity)


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(channels_in, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu_(self.bn1(self.conv1(x)))))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class _Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = _shortcut(channels_in, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu_(self.bn2(self.conv2(F.relu_(self.bn1(self.conv1(x))))))
        return F.relu_(self.bn3(self.conv3(out)) + (x if self.downsample is None else self.downsample(x)))


def _shortcut(channels_in: int, channels_out: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and channels_in == channels_out:
        return None
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out))


class ResNetEncoder(nn.Module):
    """A ResNet without classifier. An image in [0, 1] becomes five feature maps at strides 2, 4, 8, 16, 32 with `.channels`.

    Modules have the names of the common ResNet state dicts, so that ImageNet weights load as they are.
    """

    def __init__(
        self, block: type[BasicBlock] | type[_Bottleneck], layers: tuple[int, ...], widths: tuple[int, ...], channels_in: int
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, widths[0], 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        channels = widths[0]
        self.channels: tuple[int, ...] = (channels,)
        for i, (count, width) in enumerate(zip(layers, widths[1:], strict=True)):
            blocks = []
            for j in range(count):
                blocks.append(block(channels, width, 2 if j == 0 and i > 0 else 1))
                channels = width * block.expansion
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
            self.channels += (channels,)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> list[Tensor]:
        features = [F.relu_(self.bn1(self.conv1((image - 0.45) / 0.225)))]
        x = F.max_pool2d(features[0], 3, 2, 1)
        for i in range(1, 5):
            x = getattr(self, f"layer{i}")(x)
            features.append(x)
        return features


def build_encoder(config: DepthConfig, channels_in: int = 3) -> ResNetEncoder:
    """Builds the encoder that `config.encoder` names. "lite" is a ResNet of basic blocks with `config.encoder_widths`."""
    if config.encoder == "resnet50":
        return ResNetEncoder(_Bottleneck, (3, 4, 6, 3), RESNET_WIDTHS, channels_in)
    widths = config.encoder_widths if config.encoder == "lite" else RESNET_WIDTHS
    return ResNetEncoder(BasicBlock, (2, 2, 2, 2), widths, channels_in)


class _ReflectConv(nn.Module):
    """A 3 x 3 convolution with reflection padding."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (1, 1, 1, 1), mode="reflect"))


class DepthDecoder(nn.Module):
    """Turns encoder features into the `scales` finest of four disparities, the finest first."""

    def __init__(self, encoder_channels: tuple[int, ...], widths: tuple[int, ...]) -> None:
        super().__init__()
        self.elu = nn.ELU()
        self.up = nn.ModuleList()  # There are two for each stage, from stage 4 down.
        channels = encoder_channels[-1]
        for i in range(4, -1, -1):
            self.up.append(_ReflectConv(channels, widths[i]))
            self.up.append(_ReflectConv(widths[i] + (encoder_channels[i - 1] if i > 0 else 0), widths[i]))
            channels = widths[i]
        self.disparity = nn.ModuleList(_ReflectConv(widths[i], 1) for i in range(4))

    def forward(self, features: list[Tensor], scales: int = 4) -> tuple[Tensor, ...]:
        x = features[-1]
        disparities: list[Tensor] = []
        for i in range(4, -1, -1):
            x = self.elu(self.up[2 * (4 - i)](x))
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            if i > 0:
                x = torch.cat([x, features[i - 1]], dim=1)
            x = self.elu(self.up[2 * (4 - i) + 1](x))
            if i < scales:
                disparities.insert(0, torch.sigmoid(self.disparity[i](x).float()))
        return tuple(disparities)


class DepthNetwork(nn.Module):
    """Estimates disparities, B x 1 x H/2^i x W/2^i in (0, 1) for scales i = 0..3, of images B x 3 x H x W in [0, 1].

    H and W must be multiples of 32. `scales` says how many disparities are made, the finest first; only training needs more than one.
    """

    def __init__(self, config: DepthConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = build_encoder(config)
        self.decoder = DepthDecoder(self.encoder.channels, config.decoder_widths)

    def forward(self, image: Tensor, scales: int = 4) -> tuple[Tensor, ...]:
        height, width = image.shape[-2:]
        size = self.config.size
        # Halving by bilinear look-up is an exact 2 x 2 mean, so that the network sees an image without aliasing.
        small = image if size is None else resize(image, (size, size))
        disparities = cast(tuple[Tensor, ...], self.decoder(self.encoder(small), scales))
        return tuple(resize(d, (height >> i, width >> i)) for i, d in enumerate(disparities))


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
