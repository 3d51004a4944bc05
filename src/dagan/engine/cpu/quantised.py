"""The lite decoder in int8: half the time of bfloat16 where the processor multiplies bytes.

Ranges come from the source itself: when one is encoded it is drawn once, as it stands, in bfloat16, and the decoder's maps are watched.
What a frame looks up is that source's features again, so its ranges are much the same; a margin covers the rest.

Weights have a scale for each output channel. Maps between convolutions are bytes; the first map, its residual sums, and the head with
the warped picture stay as they are, as does everything that has to do with positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dagan.engine.cpu.fused import FusedResidual, FusedSame
from dagan.engine.cpu.pyramid import FastPyramid, PhasedUp, spread
from dagan.models.dagan import DaGAN, Source

_MARGIN = 1.15  # above the ranges that were seen
_SIGNED_ZERO = 128  # the byte that stands for 0 where a map has both signs


class Int8Conv(nn.Module):
    """relu(conv(x)) of bytes, to bytes, or without the ReLU to bfloat16."""

    def __init__(self, conv: nn.Conv2d, relu: bool, zero: int = 0) -> None:
        """zero: the byte that stands for 0 in the inputs."""
        super().__init__()
        weight = conv.weight.detach().float()
        assert conv.bias is not None
        self.scales = weight.abs().amax((1, 2, 3)).clamp_min(1e-12) / 127
        self.bias = conv.bias.detach().float()
        self.geometry = (conv.stride, conv.padding, conv.dilation, conv.groups)
        self.relu, self.zero = relu, zero
        self._plain = (weight / self.scales.view(-1, 1, 1, 1)).round().to(torch.int8)
        self._zeros = torch.zeros(len(weight), dtype=torch.int32)
        self._packed: Tensor | None = None

    def forward(self, x: Tensor, scale: float, out_scale: float | None = None) -> Tensor:
        """x: uint8, times `scale` what it stands for. The result: uint8 likewise, of `out_scale`; bfloat16 without one."""
        packed = self._packed
        if packed is None:
            packed = torch.ops.onednn.qconv_prepack(self._plain, self.scales, scale, self.zero, *self.geometry, list(x.shape))
            self._packed = packed
        kind = torch.bfloat16 if out_scale is None else torch.uint8
        return torch.ops.onednn.qconv2d_pointwise(
            x, scale, self.zero, packed, self.scales, self._zeros, self.bias, *self.geometry, out_scale or 1.0, 0, kind,
            "relu" if self.relu else "none", [], "",
        )  # fmt: skip


class Int8Pyramid(nn.Module):
    """`FastPyramid` whose convolutions, but for the head's, are in int8. Ranges are to be seen first: `watching`."""

    def __init__(self, decoder: FastPyramid) -> None:
        super().__init__()
        self.exact = decoder
        blocks = [cast(FusedResidual, block) for block in decoder.blocks]
        self.blocks = nn.ModuleList(nn.ModuleList([Int8Conv(b.conv1, True), Int8Conv(b.conv2, False)]) for b in blocks)
        ups, joins = [cast(PhasedUp, up) for up in decoder.ups], [cast(FusedSame, join) for join in decoder.joins]
        self.ups = nn.ModuleList(Int8Conv(up.conv, True, 0 if i else _SIGNED_ZERO) for i, up in enumerate(ups))
        self.joins = nn.ModuleList(Int8Conv(join.conv, True) for join in joins)
        self.ranges: list[float] = []
        self._watchers: set[int] = set()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within, this thread's calls compute as `exact` does, and widen the ranges by what occurs on the way."""
        self._watchers.add(get_ident())
        try:
            yield
        finally:
            self._watchers.discard(get_ident())

    def _watch(self, features: list[Tensor], warped: Tensor) -> Tensor:
        seen: list[float] = []

        def note(x: Tensor) -> Tensor:
            seen.append(float(x.abs().max()) * _MARGIN)
            return x

        x = features[-1]
        for block in cast(list[FusedResidual], self.exact.blocks):
            x = block.conv2(note(block.conv1(note(F.relu(block.norm1(x))))), x)
        note(x)
        for up, join, skip in zip(self.exact.ups, self.exact.joins, reversed(features[:-1]), strict=True):
            x = note(join(note(up(x, skip))))
        self.ranges = [max(pair) for pair in zip(seen, self.ranges or seen, strict=True)]
        return self.exact.finish(x, warped)

    def forward(self, features: list[Tensor], warped: Tensor) -> Tensor:
        """See PyramidDecoder."""
        if get_ident() in self._watchers:
            return self._watch(features, warped)
        scales = iter([_scale(most) for most in self.ranges])
        x = features[-1]
        for block, convs in zip(cast(list[FusedResidual], self.exact.blocks), cast(list[nn.ModuleList], self.blocks), strict=True):
            scale, between = next(scales), next(scales)
            x = convs[1](convs[0](_to_bytes(F.relu_(block.norm1(x)), scale), scale, between), between).add_(x)
        scale = 2 * next(scales)  # both signs
        x = _to_bytes(x, scale, _SIGNED_ZERO)
        for i, (up, join, skip) in enumerate(zip(self.ups, self.joins, reversed(features[:-1]), strict=True)):
            between, after = next(scales), next(scales)
            joined = spread(up(x, scale, between), _to_bytes(skip, between))
            x = join(joined, between, after if i + 1 < len(self.joins) else None)
            scale = after
        return self.exact.finish(x, warped)


def watch_source(model: DaGAN, source: Source) -> None:
    """Draws the source once, as it stands, where the model's decoder is in int8 and takes its ranges from that; else does nothing.

    Ranges are widened by each source, so that sources that were encoded before stay within them.
    """
    decoder = model.generator.decoder
    if isinstance(decoder, Int8Pyramid):
        with decoder.watching():
            model.drive(source, source.keypoints)


def _scale(most: float) -> float:
    """What a byte's step stands for where 255 steps reach `most`: its inverse is a bfloat16, which `_to_bytes` multiplies with."""
    return 1 / float(torch.tensor(255 / max(most, 1e-6)).bfloat16())


def _to_bytes(x: Tensor, scale: float, zero: int = 0) -> Tensor:
    """uint8, channels last: x / scale + zero, rounded, what lies beyond cut off. scale: of `_scale`."""
    # By way of signed bytes: PyTorch converts to those six times as fast. They differ in the highest bit.
    signed = torch.add(zero - 128, x, alpha=1 / scale).round_().clamp_(-128, 127).to(torch.int8)
    return signed.view(torch.uint8).bitwise_xor_(128).contiguous(memory_format=torch.channels_last)
