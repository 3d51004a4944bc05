"""The lite decoder on a CPU: joined maps are written where they are needed, and whole pixels are moved, not single channels.

Legend: B batch, S side of the image.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init

from dagan.inference.upsampling import PhasedUp
from dagan.models.blocks import UpBlock
from dagan.models.generator import PyramidDecoder

# Two neighbouring pixels of four bfloat16 each are one such number, of four float32 each two: moved whole, ten times as fast.
_PAIR = torch.complex128


class FastPyramid(nn.Module):
    """`PyramidDecoder`; `ups` are `PhasedUp`, and the head's channels are grouped by place instead of by colour."""

    def __init__(self, decoder: PyramidDecoder) -> None:
        super().__init__()
        self.blocks, self.joins = decoder.blocks, decoder.joins
        self.ups = nn.ModuleList(PhasedUp(cast(UpBlock, up)) for up in decoder.ups)
        weight, bias = decoder.final.weight.detach(), decoder.final.bias
        assert bias is not None
        by_place = torch.arange(16).view(4, 4).T.reshape(-1)  # 4 c + place -> 4 place + c
        features, seen = weight[by_place].split([weight.shape[1] - 12, 12], dim=1)
        # The fourth "colour" of a place's pixel is there for its size, and counts nothing.
        seen = F.pad(seen.unflatten(1, (3, 4)), (0, 0, 0, 0, 0, 0, 0, 1)).transpose(1, 2).flatten(1, 2)
        self.final = skip_init(nn.Conv2d, weight.shape[1] + 4, 16, decoder.final.kernel_size, padding=decoder.final.padding)
        self.final.weight = nn.Parameter(torch.cat([features, seen], dim=1), requires_grad=False)
        self.final.bias = nn.Parameter(bias.detach()[by_place], requires_grad=False)

    def forward(self, features: list[Tensor], warped: Tensor) -> Tensor:
        """See PyramidDecoder."""
        x = self.blocks(features[-1])
        for up, join, skip in zip(self.ups, self.joins, reversed(features[:-1]), strict=True):
            x = join(up(x, skip))
        return self.finish(x, warped)

    def finish(self, x: Tensor, warped: Tensor) -> Tensor:
        """The head: the picture from the finest joined map, B x C x S/2 x S/2, and the warped source image."""
        out = _spread(self.final(torch.cat([x, _gathered(warped.to(x.dtype))], dim=1))).float().sigmoid_()
        return torch.lerp(out[:, :3], warped.float(), out[:, 3:])


def _gathered(image: Tensor) -> Tensor:
    """B x 16 x S/2 x S/2 from B x 3 x S x S: red, green, blue and nothing of a place's 2 x 2 pixels in turn; channels last."""
    batch, colours, height, width = image.shape
    pixels = torch.empty((batch, height, width, 4), dtype=image.dtype, device=image.device)
    for i in range(colours):
        pixels[..., i] = image[:, i]
    pixels[..., colours:] = 0
    pairs = pixels.view(batch, height // 2, 2, width // 2, 8).view(_PAIR)
    return pairs.transpose(2, 3).contiguous().view(image.dtype).view(batch, height // 2, width // 2, 16).permute(0, 3, 1, 2)


def _spread(places: Tensor) -> Tensor:
    """The way back: B x 4 x S x S, contiguous, from B x 16 x S/2 x S/2."""
    batch, _, height, width = places.shape
    pairs = places.permute(0, 2, 3, 1).contiguous().view(batch, height, width, 2, 8).view(_PAIR)
    return pairs.transpose(2, 3).contiguous().view(places.dtype).view(batch, 2 * height, 2 * width, 4).permute(0, 3, 1, 2).contiguous()
