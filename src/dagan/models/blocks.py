"""Building blocks that the networks share (docs/method.md#building-blocks). Legend: B batch, C channels, H W size."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dagan.config import HourglassConfig


class SameBlock(nn.Module):
    """Convolution, batch norm and ReLU, which keep the size."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2)
        self.norm = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(self.norm(self.conv(x)))


class DownBlock(SameBlock):
    """A same block, then a 2 x 2 average pool."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(super().forward(x), 2)


class UpBlock(SameBlock):
    """Doubling by nearest neighbours, then a same block."""

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Returns B x C x 2h x 2w for h x w. Where `skip`, of that size, is given, its channels follow."""
        up = super().forward(F.interpolate(x, scale_factor=2, mode="nearest"))
        return up if skip is None else torch.cat([up, skip], dim=1)


class ResidualBlock(nn.Module):
    """A residual block with pre-activation: BN, ReLU, 3x3, BN, ReLU, 3x3, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(F.relu_(self.norm1(x)))
        return self.conv2(F.relu_(self.norm2(out))) + x


class Hourglass(nn.Module):
    """A U-shaped network. Its last skip is its own input, so that it gives `config.width + channels_in` channels."""

    def __init__(self, config: HourglassConfig, channels_in: int) -> None:
        super().__init__()

        def width(i: int) -> int:
            return min(config.max_width, config.width * 2**i)

        downs, ups = [], []
        skips = [channels_in] + [width(i + 1) for i in range(config.levels)]
        for i in range(config.levels):
            downs.append(DownBlock(skips[i], skips[i + 1]))
        channels = skips[-1]
        for i in reversed(range(config.levels)):
            ups.append(UpBlock(channels, width(i)))
            channels = width(i) + skips[i]
        self.downs = nn.ModuleList(downs)
        self.ups = nn.ModuleList(ups)
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        skips = [x]
        for down in self.downs:
            skips.append(down(skips[-1]))
        out = skips.pop()
        for up in self.ups:
            out = up(out, skips.pop())
        return out


class BandLimitedDown(nn.Module):
    """A Gaussian blur, of which every `factor`-th pixel is kept, from the first on. The kernel is not learnt.

    See docs/method.md#building-blocks.
    """

    weight: Tensor

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        sigma = (factor - 1) / 2
        size = 2 * round(4 * sigma) + 1
        x = torch.arange(size, dtype=torch.float32) - size // 2
        line = torch.exp(-(x**2) / (2 * sigma**2)) if sigma > 0 else torch.ones(1)
        kernel = torch.outer(line, line)
        self.register_buffer("weight", (kernel / kernel.sum()).expand(channels, 1, size, size).clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.factor == 1:
            return x
        # A strided convolution computes only the pixels that are kept.
        return F.conv2d(x, self.weight.to(x.dtype), stride=self.factor, padding=self.weight.shape[-1] // 2, groups=x.shape[1])


class SpadeNorm(nn.Module):
    """Instance norm without affine, then x (1 + gamma) + beta. Both come from the guidance map (docs/method.md#spade-decoder)."""

    def __init__(self, channels: int, guidance: int, hidden: int = 128) -> None:
        super().__init__()
        self.shared = nn.Conv2d(guidance, hidden, 3, padding=1)
        self.gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.beta = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        hidden = F.relu(self.shared(F.interpolate(guidance, size=x.shape[-2:], mode="nearest")))
        return F.instance_norm(x) * (1 + self.gamma(hidden)) + self.beta(hidden)


def _spectral_conv(channels_in: int, channels_out: int, kernel: int, bias: bool = True) -> nn.Conv2d:
    conv = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=bias)
    return cast(nn.Conv2d, nn.utils.parametrizations.spectral_norm(conv))


class SpadeBlock(nn.Module):
    """The SPADE residual block x_s + conv(leaky(SPADE(conv(leaky(SPADE(x)))))). The shortcut x_s is normalised, without activation."""

    def __init__(self, channels_in: int, channels_out: int, guidance: int) -> None:
        super().__init__()
        middle = min(channels_in, channels_out)
        self.norm_0 = SpadeNorm(channels_in, guidance)
        self.conv_0 = _spectral_conv(channels_in, middle, 3)
        self.norm_1 = SpadeNorm(middle, guidance)
        self.conv_1 = _spectral_conv(middle, channels_out, 3)
        self.project = channels_in != channels_out
        if self.project:
            self.norm_s = SpadeNorm(channels_in, guidance)
            self.conv_s = _spectral_conv(channels_in, channels_out, 1, bias=False)

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        shortcut = self.conv_s(self.norm_s(x, guidance)) if self.project else x
        out = self.conv_0(F.leaky_relu(self.norm_0(x, guidance), 0.2))
        return shortcut + self.conv_1(F.leaky_relu(self.norm_1(out, guidance), 0.2))
