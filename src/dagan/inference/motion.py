"""Dense motion on a CPU: its pictures lie plane by plane until the hourglass takes them, its heads are one convolution."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init

from dagan.models.blocks import BandLimitedDown, DownBlock
from dagan.models.motion import DenseMotion

_BLOCK = 8  # rows of the small picture that are computed together


class FastDown(BandLimitedDown):
    """`BandLimitedDown` as products with a matrix from either side: its kernel is one along lines times one along columns.

    The matrix is a band. From the left, where all columns are there still, blocks of it are multiplied with the rows that they reach.
    """

    matrix: Tensor

    def __init__(self, down: BandLimitedDown, size: int) -> None:
        """size: side of the pictures."""
        nn.Module.__init__(self)
        self.factor = down.factor
        line = down.weight[0].float().sum(1)[None]  # 1 1 k
        responses = F.conv1d(torch.eye(size)[:, None], line, stride=down.factor, padding=line.shape[-1] // 2)
        self.register_buffer("matrix", responses[:, 0].contiguous(), persistent=False)  # S S/factor
        reached = [block.any(1).nonzero() for block in self.matrix.split(_BLOCK, dim=1)]
        self._rows = [slice(int(rows.min()), int(rows.max()) + 1) for rows in reached]

    def forward(self, x: Tensor) -> Tensor:
        """See BandLimitedDown."""
        x = x.contiguous()
        blocks = zip(self._rows, self.matrix.split(_BLOCK, dim=1), strict=True)
        return torch.cat([block[rows].T @ x[:, :, rows] for rows, block in blocks], dim=2) @ self.matrix


class FastMotion(DenseMotion):
    """`DenseMotion` with a hourglass that takes all heatmaps first, then all reds, greens and blues."""

    def __init__(self, motion: DenseMotion) -> None:
        nn.Module.__init__(self)
        self.config, self.align_corners, self.down = motion.config, motion.align_corners, motion.down
        self.landmarks = motion.landmarks
        count = motion.mask.out_channels
        by_plane = torch.arange(4 * count).view(count, 4).T.reshape(-1)  # 4 k + plane -> k + plane (K + 1)
        first = cast(DownBlock, motion.hourglass.downs[0]).conv
        first.weight = nn.Parameter(first.weight.detach()[:, by_plane], requires_grad=False)
        self.add_module("hourglass", motion.hourglass)
        self.heads = _joined(motion.mask, motion.occlusion)
        weight = self.heads.weight.detach()
        skipped = weight.shape[1] - 4 * count
        self.heads.weight = nn.Parameter(torch.cat([weight[:, :skipped], weight[:, skipped:][:, by_plane]], dim=1), requires_grad=False)

    def join(self, heatmaps: Tensor, warped: Tensor) -> Tensor:
        """See DenseMotion; in the order that this hourglass takes, in channels last."""
        planes = torch.cat([heatmaps, warped.flatten(1, 2)], dim=1).to(self.heads.weight.dtype).flatten(2)  # B C N
        pixels = torch.empty_like(planes.transpose(1, 2), memory_format=torch.contiguous_format)
        for one, turned in zip(pixels, planes.transpose(1, 2), strict=True):  # one picture after the other: PyTorch turns matrices fast,
            one.copy_(turned)  # stacks of them slowly
        return pixels.transpose(1, 2).unflatten(2, warped.shape[-2:])

    def shares(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See DenseMotion."""
        logits = self.heads(self.hourglass(x)).float().contiguous()
        return torch.softmax(torch.cat([torch.zeros_like(logits[:, :1]), logits[:, 1:]], dim=1), dim=1), torch.sigmoid(logits[:, :1])


def _joined(mask: nn.Conv2d, occlusion: nn.Conv2d) -> nn.Conv2d:
    """One convolution for both: occlusion in place of the background's logit, which is taken off all others.

    Shares depend on differences of logits alone. Convolutions count by sixteen channels: 16 + 1 would cost twice as much.
    """
    heads = skip_init(nn.Conv2d, mask.in_channels, mask.out_channels, mask.kernel_size, padding=mask.padding)
    for name in ("weight", "bias"):
        logits, visible = getattr(mask, name).detach(), getattr(occlusion, name).detach()
        setattr(heads, name, nn.Parameter(torch.cat([visible, logits[1:] - logits[:1]]), requires_grad=False))
    return heads
