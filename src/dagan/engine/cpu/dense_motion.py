"""Dense motion and its look-ups on a processor.

A look-up takes whole pixels, with all their channels, in place of one channel after the other. Bilinear, it takes four pixels by their
numbers and adds them up with four weights: an embedding bag. It reads each pixel as it lies in channels last, and works in the map's own
precision: 25 times as fast as `grid_sample`, which wants float32, plane by plane.

The pictures of `FastMotion` lie plane by plane until the hourglass takes them, and its two heads are one convolution.

Legend: B pictures, C channels, H W the map, h w the deformation.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init

from dagan.geometry import resize
from dagan.models.blocks import BandLimitedDown, DownBlock
from dagan.models.generator import Warp
from dagan.models.motion import DenseMotion

_LEAST_CHANNELS = 8  # with fewer, pixels are too short, and planes faster
_BEFORE, _AFTER = 1, 2  # rows and columns of zeros around the map: what lies outside
_FAR = 1e6  # pixels; beyond it, and where the deformation is no number, nothing is seen


class FastWarp(Warp):
    """`Warp` for maps in channels last on a CPU."""

    def forward(self, x: Tensor, deformation: Tensor, occlusion: Tensor | None = None) -> Tensor:
        """See Warp."""
        sources, channels, height, width = x.shape
        if channels < _LEAST_CHANNELS:
            return super().forward(x, deformation, occlusion)
        batch = deformation.shape[0]
        framed = F.pad(x.permute(0, 2, 3, 1), (0, 0, _BEFORE, _AFTER, _BEFORE, _AFTER))
        numbers, weights = self._taps(deformation, height, width, None if occlusion is None else resize(occlusion, (height, width)))
        if sources > 1:
            numbers += torch.arange(sources, dtype=numbers.dtype).view(-1, 1, 1, 1) * (framed.shape[1] * framed.shape[2])
        found = F.embedding_bag(
            numbers.view(-1, 4), framed.view(-1, channels), mode="sum", per_sample_weights=weights.to(x.dtype).view(-1, 4)
        )
        return found.view(batch, height, width, channels).permute(0, 3, 1, 2)

    def _taps(self, deformation: Tensor, height: int, width: int, occlusion: Tensor | None) -> tuple[Tensor, Tensor]:
        """B x H x W x 4: numbers of the framed map's pixels to add up, and their weights, all times the occlusion B x 1 x H x W."""
        size = torch.tensor([width, height], dtype=torch.float32).view(2, 1, 1)
        planes = deformation.permute(0, 3, 1, 2) + 1  # B 2 h w
        pixels = planes * ((size - 1) / 2) if self.align_corners else planes * (size / 2) - 0.5
        pixels = pixels.nan_to_num_(nan=_FAR).clamp_(-_FAR, _FAR)
        if pixels.shape[-2:] != (height, width):
            pixels = F.interpolate(pixels, size=(height, width), mode="bilinear", align_corners=self.align_corners)
        x, y = torch.add(pixels, _BEFORE).unbind(1)
        x, y = x.clamp_(0, width + _BEFORE), y.clamp_(0, height + _BEFORE)
        left, top = x.floor(), y.floor()
        x, y = x.sub_(left), y.sub_(top)
        first = torch.add(left, top, alpha=width + _BEFORE + _AFTER).to(torch.int32)  # exact in float32: maps have fewer than 2^24 pixels
        below = first + (width + _BEFORE + _AFTER)
        seen = torch.ones_like(x) if occlusion is None else occlusion[:, 0]
        x = seen * x  # the right column's share
        corner = x * y
        lower = seen * y - corner
        numbers = torch.stack([first, first + 1, below, below + 1], dim=-1)
        return numbers, torch.stack([seen - x - lower, x - corner, lower, corner], dim=-1)


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
