"""Up blocks that never form the doubled picture of their input.

Legend: B batch, C channels, h w the small picture.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from dagan.models.blocks import UpBlock


class PhasedUp(nn.Module):
    """`UpBlock` without the doubled picture.

    Of a doubled picture's 3 x 3 neighbours many are the same pixel: each of the four places that a pixel becomes sees 2 x 2 pixels of
    the small picture, through sums of the kernel's rows and columns. 4 / 9 of the multiplications, the same result but for rounding.
    """

    relus = ("conv",)

    def __init__(self, block: UpBlock) -> None:
        super().__init__()
        weight, bias = block.conv.weight.detach(), block.conv.bias
        assert bias is not None
        # Row sums: the upper place of a pixel sees the row above (kernel row 0) and its own (1, 2), the lower its own and the row below.
        split = torch.tensor([[[1.0, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])  # place, small row, kernel row
        kernels = torch.einsum("pak,qbl,oikl->pqoiab", split, split, weight.float().cpu())
        channels, into = weight.shape[:2]
        self.conv = skip_init(nn.Conv2d, into, 4 * channels, 2, padding=1)
        self.conv.weight = nn.Parameter(kernels.reshape(4 * channels, into, 2, 2).to(weight), requires_grad=False)
        self.conv.bias = nn.Parameter(bias.detach().repeat(4), requires_grad=False)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """See UpBlock; with `skip`, B x C' x 2 h x 2 w, its channels follow as by `torch.cat`."""
        return spread(self.conv(x), skip)


def spread(four: Tensor, skip: Tensor | None = None) -> Tensor:
    """B x C x 2 h x 2 w from B x 4 C x h + 1 x w + 1, what `PhasedUp.conv` gives: each place has its own offset in it.

    With `skip`, its channels follow as by `torch.cat`.
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
