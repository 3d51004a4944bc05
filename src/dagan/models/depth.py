"""The face depth network (docs/method.md#depth-network): a ResNet encoder and a decoder with skips, which gives disparities at four scales.

Disparity is in (0, 1), and near is large. The finest disparity is what the system calls the depth map.

Legend: B batch, H W image.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dagan.config import RESNET_WIDTHS, DepthConfig
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
