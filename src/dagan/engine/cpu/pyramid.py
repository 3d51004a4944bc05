"""The decoder of the lite models, made fast on a processor.

Three things make it fast. Its up blocks compute without storing their input at doubled size. Maps that are joined are written straight
to where they are needed. Pixels are moved whole and not channel by channel.

Legend: B batch, C channels, h w the small map that an up block takes, S side of the image.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init

from dagan.engine.cpu.fused import ReluConv
from dagan.models.blocks import UpBlock
from dagan.models.generator import PyramidDecoder


class PhasedUp(nn.Module):
    """`UpBlock` that never stores its input at doubled size.

    An up block doubles a map by repeating pixels and then convolves it with a 3 x 3 kernel. In the doubled map many of the nine
    neighbours are the same pixel. Each of the four places that a pixel becomes really sees only 2 x 2 pixels of the small map,
    weighted by sums of the kernel's rows and columns. Using these sums takes 4 / 9 of the multiplications and gives the same result but
    for rounding.
    """

    def __init__(self, block: UpBlock) -> None:
        super().__init__()
        weight, bias = block.conv.weight.detach(), block.conv.bias
        assert bias is not None
        # The upper place of a pixel sees the row above it through kernel row 0, and its own row through kernel rows 1 and 2. The lower
        # place sees its own row through kernel rows 0 and 1, and the row below through kernel row 2.
        split = torch.tensor([[[1.0, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])  # place, small row, kernel row
        kernels = torch.einsum("pak,qbl,oikl->pqoiab", split, split, weight.float().cpu())
        channels, into = weight.shape[:2]
        self.conv = skip_init(ReluConv, into, 4 * channels, 2, padding=1)
        self.conv.weight = nn.Parameter(kernels.reshape(4 * channels, into, 2, 2).to(weight), requires_grad=False)
        self.conv.bias = nn.Parameter(bias.detach().repeat(4), requires_grad=False)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """See UpBlock. Where `skip`, B x C' x 2h x 2w, is given, its channels follow those of the result, as `torch.cat` would do it."""
        return spread(self.conv(x), skip)


def spread(four: Tensor, skip: Tensor | None = None) -> Tensor:
    """Interleaves the four maps that `PhasedUp.conv` gives, B x 4C x (h + 1) x (w + 1), to one of B x C x 2h x 2w.

    Each of the four places begins at a row and a column of its own in them. Where `skip` is given, its channels follow.
    """
    batch, height, width = four.shape[0], four.shape[2] - 1, four.shape[3] - 1
    channels = four.shape[1] // 4
    size = (batch, channels + (0 if skip is None else skip.shape[1]), 2 * height, 2 * width)
    joined = torch.empty(size, dtype=four.dtype, device=four.device, memory_format=torch.channels_last)
    for i, place in enumerate(four.split(channels, dim=1)):
        row, column = divmod(i, 2)
        joined[:, :channels, row::2, column::2] = place[:, :, row : row + height, column : column + width]
    if skip is not None:
        joined[:, channels:] = skip
    return joined


# Moving pixels two at a time, as one large number, is ten times as fast as moving channels. Two neighbouring pixels of four bfloat16
# numbers fill one complex128; two pixels of four float32 numbers fill two.
_PAIR = torch.complex128


class FastPyramid(nn.Module):
    """`PyramidDecoder` whose `ups` are `PhasedUp`, and whose head groups its channels by place instead of by colour."""

    def __init__(self, decoder: PyramidDecoder) -> None:
        super().__init__()
        self.blocks, self.joins = decoder.blocks, decoder.joins
        self.ups = nn.ModuleList(PhasedUp(cast(UpBlock, up)) for up in decoder.ups)
        weight, bias = decoder.final.weight.detach(), decoder.final.bias
        assert bias is not None
        by_place = torch.arange(16).view(4, 4).T.reshape(-1)  # 4 c + place -> 4 place + c
        features, seen = weight[by_place].split([weight.shape[1] - 12, 12], dim=1)
        # A pixel is padded from three colours to four, so that pixels can be moved whole. The fourth colour has weight zero.
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
        """The head: draws the image from the finest joined map, B x C x S/2 x S/2, and the warped source image."""
        out = _spread(self.final(torch.cat([x, _gathered(warped.to(x.dtype))], dim=1))).float().sigmoid_()
        return torch.lerp(out[:, :3], warped.float(), out[:, 3:])


def _gathered(image: Tensor) -> Tensor:
    """Turns an image, B x 3 x S x S, into B x 16 x S/2 x S/2 in channels last.

    Each place of the result holds 2 x 2 pixels one after the other, each as red, green, blue and a zero.
    """
    batch, colours, height, width = image.shape
    pixels = torch.empty((batch, height, width, 4), dtype=image.dtype, device=image.device)
    for i in range(colours):
        pixels[..., i] = image[:, i]
    pixels[..., colours:] = 0
    pairs = pixels.view(batch, height // 2, 2, width // 2, 8).view(_PAIR)
    return pairs.transpose(2, 3).contiguous().view(image.dtype).view(batch, height // 2, width // 2, 16).permute(0, 3, 1, 2)


def _spread(places: Tensor) -> Tensor:
    """Does the opposite of `_gathered`: turns B x 16 x S/2 x S/2 into a contiguous B x 4 x S x S."""
    batch, _, height, width = places.shape
    pairs = places.permute(0, 2, 3, 1).contiguous().view(batch, height, width, 2, 8).view(_PAIR)
    return pairs.transpose(2, 3).contiguous().view(places.dtype).view(batch, 2 * height, 2 * width, 4).permute(0, 3, 1, 2).contiguous()
