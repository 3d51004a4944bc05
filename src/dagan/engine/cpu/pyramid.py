"""The decoder of the lite models, made fast on a processor: in the model's precision, and in int8.

Three things make it fast. Its up blocks compute without storing their input at doubled size. Maps that are joined are written straight
to where they are needed. Pixels are moved whole and not channel by channel.

In int8 it takes half the time of bfloat16 where the processor multiplies bytes. Numbers can be bytes only when their range is known.
Ranges come from the source itself: when a source is encoded, it is drawn once in its own pose in bfloat16, and the largest value of each
of the decoder's maps is noted. A driven frame is made of the same features, so its ranges are much the same; a margin covers the rest.
Weights have one scale for each output channel. Maps between convolutions are bytes. The first map, its residual sums, and the head with
the warped image are not quantised, and neither is anything that has to do with positions.

Legend: B batch, C channels, h w the small map that an up block takes, S side of the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init

from dagan.engine.cpu.fused import FusedResidual, FusedSame, ReluConv
from dagan.models.blocks import UpBlock
from dagan.models.dagan import DaGAN, Source
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
        """Implements the method of `PyramidDecoder`, which is documented there."""
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
        """Implements the method of `PyramidDecoder`, which is documented there."""
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
