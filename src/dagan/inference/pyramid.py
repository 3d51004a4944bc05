"""The lite decoder on a CPU: joined maps are written where they are needed, and whole pixels are moved, not single channels.

Legend: B batch, S side of the image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dagan.inference.upsampling import PhasedUp
from dagan.models.generator import PyramidDecoder

_WHOLE = {2: torch.int64, 4: torch.complex128}  # bytes of a number -> a type that holds four of them


class FastPyramid(nn.Module):
    """`PyramidDecoder`; `ups` are `PhasedUp`, and the head's channels are grouped by place instead of by colour."""

    def __init__(self, decoder: PyramidDecoder) -> None:
        super().__init__()
        self.blocks, self.joins, self.final = decoder.blocks, decoder.joins, decoder.final
        self.ups = nn.ModuleList(PhasedUp(up) for up in decoder.ups)
        by_place = torch.arange(16).view(4, 4).T.reshape(-1)  # 4 c + place -> 4 place + c
        weight, bias = decoder.final.weight.detach(), decoder.final.bias
        assert bias is not None
        features, seen = weight[by_place].split([weight.shape[1] - 12, 12], dim=1)
        # The fourth "colour" of a place's pixel is there for its size, and counts nothing.
        seen = F.pad(seen.unflatten(1, (3, 4)), (0, 0, 0, 0, 0, 0, 0, 1)).transpose(1, 2).flatten(1, 2)
        self.final.weight = nn.Parameter(torch.cat([features, seen], dim=1), requires_grad=False)
        self.final.bias = nn.Parameter(bias.detach()[by_place], requires_grad=False)
        self.final.in_channels = self.final.weight.shape[1]

    def forward(self, features: list[Tensor], warped: Tensor) -> Tensor:
        """See PyramidDecoder."""
        x = self.blocks(features[-1])
        for up, join, skip in zip(self.ups, self.joins, reversed(features[:-1]), strict=True):
            x = join(up(x, skip))
        pixels = F.pad(warped.to(x.dtype), (0, 0, 0, 0, 0, 1))
        x = torch.cat([x, _gathered(pixels)], dim=1)
        out = torch.sigmoid(_spread(self.final(x)).float())
        return torch.lerp(out[:, :3], warped.float(), out[:, 3:])


def _gathered(pixels: Tensor) -> Tensor:
    """B x 16 x S/2 x S/2 from B x 4 x S x S: the pixels of a place's 2 x 2 one after the other; channels last."""
    batch, _, height, width = pixels.shape
    whole = pixels.permute(0, 2, 3, 1).contiguous().view(_WHOLE[pixels.element_size()])
    places = whole.view(batch, height // 2, 2, width // 2, 2).transpose(2, 3).reshape(batch, height // 2, width // 2, 4)
    return places.view(pixels.dtype).permute(0, 3, 1, 2)


def _spread(places: Tensor) -> Tensor:
    """The way back: B x 4 x S x S, contiguous, from B x 16 x S/2 x S/2."""
    batch, _, height, width = places.shape
    whole = places.permute(0, 2, 3, 1).contiguous().view(_WHOLE[places.element_size()])
    pixels = whole.view(batch, height, width, 2, 2).transpose(2, 3).reshape(batch, 2 * height, 2 * width, 1)
    return pixels.view(places.dtype).permute(0, 3, 1, 2).contiguous()
