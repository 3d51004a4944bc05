"""The decoder of the lite models in int8, which takes half the time of bfloat16 where the processor multiplies bytes.

Numbers can be bytes only when their range is known. Ranges come from the source itself: when a source is encoded, it is drawn once in
its own pose in bfloat16, and the largest value of each of the decoder's maps is noted. A driven frame is made of the same features, so
its ranges are much the same; a margin covers the rest.

Weights have one scale for each output channel. Maps between convolutions are bytes. The first map, its residual sums, and the head with
the warped image are not quantised, and neither is anything that has to do with positions.
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

_MARGIN = 1.15  # Ranges are taken this much wider than what was seen.
_SIGNED_ZERO = 128  # This byte stands for 0 in a map with positive and negative numbers.


class Int8Conv(nn.Module):
    """Computes relu(conv(x)) from bytes to bytes. Without the ReLU it computes conv(x), and without `out_scale` it gives bfloat16."""

    def __init__(self, conv: nn.Conv2d, relu: bool, zero: int = 0) -> None:
        """`zero` is the byte that stands for 0 in the inputs."""
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
        """Convolves x, bytes that stand for `scale` times their value. The result is bytes of `out_scale`, or bfloat16 without one."""
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
    """`FastPyramid` whose convolutions are in int8, except for the head's.

    It must know the ranges of its maps before it can draw in int8. For that, an image is first drawn in a block of `watching`.
    """

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
        """While this is open, calls of this thread compute exactly, as `exact` does, and widen the ranges to what they meet."""
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
        scale = 2 * next(scales)  # This map has both signs, so that a byte must cover twice the range.
        x = _to_bytes(x, scale, _SIGNED_ZERO)
        for i, (up, join, skip) in enumerate(zip(self.ups, self.joins, reversed(features[:-1]), strict=True)):
            between, after = next(scales), next(scales)
            joined = spread(up(x, scale, between), _to_bytes(skip, between))
            x = join(joined, between, after if i + 1 < len(self.joins) else None)
            scale = after
        return self.exact.finish(x, warped)


def watch_source(model: DaGAN, source: Source) -> None:
    """Lets a decoder in int8 learn its ranges by drawing the source once in its own pose. Does nothing for other decoders.

    Each source widens the ranges further, so that sources that were encoded earlier stay within them.
    """
    decoder = model.generator.decoder
    if isinstance(decoder, Int8Pyramid):
        with decoder.watching():
            model.drive(source, source.keypoints)


def _scale(most: float) -> float:
    """Returns the number that one step of a byte stands for, such that 255 steps reach `most`.

    Its inverse is exactly a bfloat16 number, because `_to_bytes` multiplies with that.
    """
    return 1 / float(torch.tensor(255 / max(most, 1e-6)).bfloat16())


def _to_bytes(x: Tensor, scale: float, zero: int = 0) -> Tensor:
    """Returns x / scale + zero, rounded and cut off to bytes, in channels last. `scale` comes from `_scale`."""
    # PyTorch converts to signed bytes six times as fast as to unsigned ones. The two differ only in the highest bit.
    signed = torch.add(zero - 128, x, alpha=1 / scale).round_().clamp_(-128, 127).to(torch.int8)
    return signed.view(torch.uint8).bitwise_xor_(128).contiguous(memory_format=torch.channels_last)
