"""Blocks of the networks made ready to compute fast on a processor. They give the same results but for rounding, for inference alone.

`F.conv2d` packs weights for oneDNN anew at each call, which for small maps takes longer than the multiplications; and every sum and ReLU
on its own reads and writes the map once more. Here weights are packed once, and a convolution takes the sum and the ReLU after it into
the same pass. The operators are those that compiled models call.

The two or three SPADE norms of a `SpadeBlock` see the same guidance, and two of them the same input: resized and normalised once. The
shortcut has no activation, so its 1 x 1 convolution goes into the convolution that makes beta, which then has the output's channels
only. Maps are computed band by band, so that gamma, beta and what they come from stay in the cache.

Legend: B batch, C channels, G guidance channels, H W map, h rows of a band.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init

from dagan.models.blocks import DownBlock, ResidualBlock, SameBlock, SpadeBlock, SpadeNorm
from dagan.models.depth import BasicBlock


class FusedConv(nn.Module):
    """relu(conv(x) + add): `add` where it is given, the ReLU where `relu` is set. Brings inputs to the weights' precision and to
    channels last."""

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype, relu: bool = False) -> None:
        super().__init__()
        # Not a parameter: packed weights are no ordinary tensors.
        self.weight = conv.weight.detach().to(dtype=dtype, memory_format=torch.channels_last)
        self.bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        self.stride, self.padding, self.dilation, self.groups = conv.stride, conv.padding, conv.dilation, conv.groups
        self.relu = relu
        self._dtype, self._packs = dtype, _can_pack(dtype)

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        """See the class: B x C x H x W and, of the result's shape, what to add."""
        x = self._brought(x)
        geometry = (self.padding, self.stride, self.dilation, self.groups)
        if not self._packs:
            out = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
            out = out if add is None else out.add_(add)
            return F.relu_(out) if self.relu else out
        weight = self.weight  # read once: other threads may pack it meanwhile
        if not weight.is_mkldnn:  # the first input's size tells how; others are computed with it as well
            weight = self.weight = torch.ops.mkldnn._reorder_convolution_weight(weight, *geometry, list(x.shape))
        relu = "relu" if self.relu else None
        if add is None:
            return torch.ops.mkldnn._convolution_pointwise(x, weight, self.bias, *geometry, relu or "none", [], "")
        add = self._brought(add)
        return torch.ops.mkldnn._convolution_pointwise.binary(x, add, weight, self.bias, *geometry, "add", 1.0, relu, [], "")

    def _brought(self, x: Tensor) -> Tensor:
        return x.to(dtype=self._dtype).contiguous(memory_format=torch.channels_last)


def _can_pack(dtype: torch.dtype) -> bool:
    """Whether this PyTorch has the operators for this processor and precision."""
    operators = torch.ops.mkldnn
    if not torch.backends.mkldnn.is_available() or not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return False
    if not all(hasattr(operators, name) for name in ("_convolution_pointwise", "_reorder_convolution_weight", "_is_mkldnn_bf16_supported")):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and operators._is_mkldnn_bf16_supported())


class ReluConv(nn.Conv2d):
    """relu(conv(x) + add): a convolution and what follows it, which `fast.prepare` computes in one pass (see `FusedConv`)."""

    @classmethod
    def of(cls, conv: nn.Conv2d) -> ReluConv:
        """With the weights of a convolution."""
        c = conv
        twin = skip_init(cls, c.in_channels, c.out_channels, c.kernel_size, c.stride, c.padding, c.dilation, c.groups, c.bias is not None)
        twin.weight, twin.bias = c.weight, c.bias
        return twin

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        """See the class."""
        out = super().forward(x)
        return F.relu(out if add is None else out + add)


class FusedSame(nn.Module):
    """`SameBlock`, folded."""

    def __init__(self, block: SameBlock) -> None:
        super().__init__()
        self.conv = ReluConv.of(block.conv)

    def forward(self, x: Tensor) -> Tensor:
        """See SameBlock."""
        return self.conv(x)


class FusedDown(FusedSame):
    """`DownBlock`, folded."""

    def forward(self, x: Tensor) -> Tensor:
        """See DownBlock."""
        return F.avg_pool2d(self.conv(x), 2)


class FusedResidual(nn.Module):
    """`ResidualBlock`, folded."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.norm1, self.conv1, self.conv2 = block.norm1, ReluConv.of(block.conv1), block.conv2

    def forward(self, x: Tensor) -> Tensor:
        """See ResidualBlock."""
        return self.conv2(self.conv1(F.relu_(self.norm1(x))), x)


class FusedBasic(nn.Module):
    """The depth network's `BasicBlock`, folded."""

    def __init__(self, block: BasicBlock) -> None:
        super().__init__()
        self.conv1, self.conv2, self.downsample = ReluConv.of(block.conv1), ReluConv.of(block.conv2), block.downsample

    def forward(self, x: Tensor) -> Tensor:
        """See BasicBlock."""
        return self.conv2(self.conv1(x), x if self.downsample is None else self.downsample(x))


class FastElu(nn.Module):
    """`nn.ELU` by exp(x) - 1, half the time of PyTorch's expm1. What it loses near 0 is below 1: 1e-7 in float32."""

    def __init__(self, elu: nn.ELU) -> None:
        super().__init__()
        assert elu.alpha == 1

    def forward(self, x: Tensor) -> Tensor:
        """See ELU: x where it is positive, else exp(x) - 1, which is never below x."""
        curve = x.clamp_max(0).exp_().sub_(1)
        return torch.maximum(x, curve, out=curve)


FUSED: dict[type[nn.Module], type[nn.Module]] = {
    SameBlock: FusedSame, DownBlock: FusedDown, ResidualBlock: FusedResidual, BasicBlock: FusedBasic, nn.ELU: FastElu,
}  # fmt: skip


# Places of a band on a CPU: 4 MB of each map of 128 channels in bfloat16.
_PLACES_AT_ONCE = 2**14


class FastSpadeBlock(nn.Module):
    """See SpadeBlock. Takes the block's convolutions, which serve no other block afterwards."""

    def __init__(self, block: SpadeBlock) -> None:
        super().__init__()
        self.norm_0, self.conv_0 = _Modulated(block.norm_0), block.conv_0
        self.norm_1, self.conv_1 = _Modulated(block.norm_1), block.conv_1
        self.shortcut = _Shortcut(block.norm_s, block.conv_s) if block.project else None

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """See SpadeBlock."""
        guidance = F.interpolate(guidance, size=x.shape[-2:], mode="nearest")
        normal = _normalised(x)
        out = self.conv_1(self.norm_1(_normalised(self.conv_0(self.norm_0(normal, guidance))), guidance))
        return out.add_(x if self.shortcut is None else self.shortcut(normal, guidance))


class _Modulated(nn.Module):
    """leaky(x (1 + gamma) + beta), both from the guidance."""

    channels: int

    def __init__(self, norm: SpadeNorm) -> None:
        super().__init__()
        self.shared, self.gamma, self.beta = norm.shared, norm.gamma, norm.beta
        for conv in (self.shared, self.gamma, self.beta):
            conv.padding = (0, 1)  # rows are there, or added at the map's ends
        self.channels = self.beta.out_channels

    def forward(self, normal: Tensor, guidance: Tensor) -> Tensor:
        """B x C' x H x W from B x C x H x W, which is normalised, and B x G x H x W."""
        batch, _, height, width = normal.shape
        out = torch.empty(
            (batch, self.channels, height, width), dtype=normal.dtype, device=normal.device, memory_format=torch.channels_last
        )
        framed = F.pad(guidance, (0, 0, 1, 1))
        for pictures, start, end in _bands(normal):
            first, last = max(start - 1, 0), min(end + 1, height)  # a row more on either side, where there is one
            hidden = F.relu_(self.shared(framed[pictures, :, first : last + 2]))
            hidden = F.pad(hidden, (0, 0, first - start + 1, end + 1 - last))
            out[pictures, :, start:end] = self.combine(normal[pictures, :, start:end], hidden)
        return out

    def combine(self, normal: Tensor, hidden: Tensor) -> Tensor:
        """B x C' x h x W from B x C x h x W and B x 128 x h+2 x W."""
        # 1 + gamma is never formed: in bfloat16 it would lose gamma's last bits.
        return F.leaky_relu_(self.beta(hidden).add_(normal).addcmul_(normal, self.gamma(hidden)), 0.2)


class _Shortcut(_Modulated):
    """conv(x (1 + gamma) + beta) with a 1 x 1 convolution, as conv(x + x gamma) + conv(beta)."""

    def __init__(self, norm: SpadeNorm, conv: nn.Conv2d) -> None:
        super().__init__(norm)
        self.conv, beta = conv, norm.beta
        assert beta.bias is not None
        assert conv.bias is None
        matrix = conv.weight.detach()[:, :, 0, 0].float()
        self.beta = skip_init(nn.Conv2d, beta.in_channels, conv.out_channels, 3, padding=(0, 1))
        weight = torch.einsum("oc,cikl->oikl", matrix, beta.weight.detach().float())
        self.beta.weight = nn.Parameter(weight.to(beta.weight), requires_grad=False)
        self.beta.bias = nn.Parameter((matrix @ beta.bias.detach().float()).to(beta.bias), requires_grad=False)
        self.channels = conv.out_channels

    def combine(self, normal: Tensor, hidden: Tensor) -> Tensor:
        """See _Modulated."""
        return self.beta(hidden).add_(self.conv(torch.addcmul(normal, normal, self.gamma(hidden))))


def _normalised(x: Tensor) -> Tensor:
    """Instance norm that stays in channels last: group norm with a group for each channel is the same sum, 20 times faster there."""
    return F.group_norm(x, x.shape[1])


def _bands(x: Tensor) -> Iterator[tuple[slice, int, int]]:
    """(pictures, first row, row after the last) of the parts that are computed at once: all, or on a CPU bands of one picture."""
    batch, _, height, width = x.shape
    if x.device.type != "cpu":
        yield slice(None), 0, height
        return
    rows = max(1, _PLACES_AT_ONCE // width)
    for i in range(batch):
        for start in range(0, height, rows):
            yield slice(i, i + 1), start, min(start + rows, height)
