"""Blocks of the networks made fast on a processor. They are for inference only and give the same results but for rounding.

`F.conv2d` rearranges ("packs") the weights for the oneDNN library at every call; for small maps this takes longer than the
multiplications. A sum or a ReLU on its own reads and writes the whole map once more. Here weights are packed once, and a convolution
does the sum and the ReLU that follow it in the same pass. The operators are those that compiled PyTorch models call.

A `SpadeBlock` has two or three SPADE norms. All of them see the same guidance, which is therefore resized once. Where there are
three, two have the same input, which is therefore normalised once. The shortcut has no activation, so its 1 x 1 convolution is
multiplied into the convolution that makes beta, which then has only as many channels as the output. Maps are computed in bands of rows,
so that gamma, beta and what they are computed from stay in the cache.

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
    """Computes relu(conv(x) + add). The sum is left out where `add` is not given, and the ReLU where `relu` is not set.

    Inputs are converted to the weights' precision and to channels last. Where weights can be packed, they are packed at their first use
    for the number of threads that use them: packed for another number, convolutions in float32 take a third longer.
    """

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype, relu: bool = False) -> None:
        super().__init__()
        # The weight is not registered as a parameter, because packed weights are no ordinary tensors.
        self.weight = conv.weight.detach().to(dtype=dtype, memory_format=torch.channels_last)
        self._packed: dict[int, Tensor] = {}  # By the number of threads.
        self.bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        self.stride, self.padding, self.dilation, self.groups = conv.stride, conv.padding, conv.dilation, conv.groups
        self.relu = relu
        self._dtype, self._packs = dtype, _can_pack(dtype)

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        """Convolves x, B x C x H x W, and adds `add`, which has the shape of the result."""
        x = self._brought(x)
        geometry = (self.padding, self.stride, self.dilation, self.groups)
        if not self._packs:
            out = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
            out = out if add is None else out.add_(add)
            return F.relu_(out) if self.relu else out
        threads = torch.get_num_threads()
        weight = self._packed.get(threads)
        if weight is None:  # Packing depends on the size of the first input; it is right for inputs of other sizes too.
            # Several threads may get here at once. Each packs the same. A packed weight takes the plain one's place, which saves a copy.
            plain = self.weight.to_dense() if self.weight.is_mkldnn else self.weight
            weight = torch.ops.mkldnn._reorder_convolution_weight(plain, *geometry, list(x.shape))
            self.weight = self._packed[threads] = weight
        relu = "relu" if self.relu else None
        if add is None:
            return torch.ops.mkldnn._convolution_pointwise(x, weight, self.bias, *geometry, relu or "none", [], "")
        add = self._brought(add)
        return torch.ops.mkldnn._convolution_pointwise.binary(x, add, weight, self.bias, *geometry, "add", 1.0, relu, [], "")

    def _brought(self, x: Tensor) -> Tensor:
        # Asking first is quicker than two calls that change nothing.
        if x.dtype == self._dtype and x.is_contiguous(memory_format=torch.channels_last):
            return x
        return x.to(dtype=self._dtype, memory_format=torch.channels_last)


def _can_pack(dtype: torch.dtype) -> bool:
    """Says whether this PyTorch can pack weights for this processor and this precision."""
    operators = torch.ops.mkldnn
    if not torch.backends.mkldnn.is_available() or not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return False
    if not all(hasattr(operators, name) for name in ("_convolution_pointwise", "_reorder_convolution_weight", "_is_mkldnn_bf16_supported")):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and operators._is_mkldnn_bf16_supported())


class ReluConv(nn.Conv2d):
    """Computes relu(conv(x) + add). `fast.prepare` makes a `FusedConv` of it, which does that in one pass."""

    @classmethod
    def of(cls, conv: nn.Conv2d) -> ReluConv:
        """Returns a ReluConv that shares the weights of `conv`."""
        c = conv
        twin = skip_init(cls, c.in_channels, c.out_channels, c.kernel_size, c.stride, c.padding, c.dilation, c.groups, c.bias is not None)
        twin.weight, twin.bias = c.weight, c.bias
        return twin

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        """Computes what the docstring of the class says."""
        out = super().forward(x)
        return F.relu(out if add is None else out + add)


class FusedSame(nn.Module):
    """A folded `SameBlock`: its convolution does the ReLU."""

    def __init__(self, block: SameBlock) -> None:
        super().__init__()
        self.conv = ReluConv.of(block.conv)

    def forward(self, x: Tensor) -> Tensor:
        """Implements the method of `SameBlock`, which is documented there."""
        return self.conv(x)


class FusedDown(FusedSame):
    """A folded `DownBlock`: its convolution does the ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """Implements the method of `DownBlock`, which is documented there."""
        return F.avg_pool2d(self.conv(x), 2)


class FusedResidual(nn.Module):
    """A folded `ResidualBlock`: its convolutions do the second ReLU and the sum with the input."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.norm1, self.conv1, self.conv2 = block.norm1, ReluConv.of(block.conv1), block.conv2

    def forward(self, x: Tensor) -> Tensor:
        """Implements the method of `ResidualBlock`, which is documented there."""
        return self.conv2(self.conv1(F.relu_(self.norm1(x))), x)


class FusedBasic(nn.Module):
    """A folded `BasicBlock` of the depth network: its convolutions do the ReLUs and the sum with the input."""

    def __init__(self, block: BasicBlock) -> None:
        super().__init__()
        self.conv1, self.conv2, self.downsample = ReluConv.of(block.conv1), ReluConv.of(block.conv2), block.downsample

    def forward(self, x: Tensor) -> Tensor:
        """Implements the method of `BasicBlock`, which is documented there."""
        return self.conv2(self.conv1(x), x if self.downsample is None else self.downsample(x))


class FastElu(nn.Module):
    """`nn.ELU` computed with exp(x) - 1, which takes half the time of PyTorch's expm1.

    Near 0 this loses digits, but never more than 1e-7 in float32.
    """

    def __init__(self, elu: nn.ELU) -> None:
        super().__init__()
        assert elu.alpha == 1

    def forward(self, x: Tensor) -> Tensor:
        """Computes x where x is positive, and exp(x) - 1 elsewhere. As exp(x) - 1 is never below x, a maximum chooses."""
        curve = x.clamp_max(0).exp_().sub_(1)
        return torch.maximum(x, curve, out=curve)


FUSED: dict[type[nn.Module], type[nn.Module]] = {
    SameBlock: FusedSame, DownBlock: FusedDown, ResidualBlock: FusedResidual, BasicBlock: FusedBasic, nn.ELU: FastElu,
}  # fmt: skip


# On a CPU a band has this many places: each map of 128 channels then takes 4 MB in bfloat16.
_PLACES_AT_ONCE = 2**14


class FastSpadeBlock(nn.Module):
    """A `SpadeBlock` for inference. It takes over the block's convolutions and changes them, so the block cannot be used afterwards."""

    def __init__(self, block: SpadeBlock) -> None:
        super().__init__()
        self.norm_0, self.conv_0 = _Modulated(block.norm_0), block.conv_0
        self.norm_1, self.conv_1 = _Modulated(block.norm_1), block.conv_1
        self.shortcut = _Shortcut(block.norm_s, block.conv_s) if block.project else None

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """Implements the method of `SpadeBlock`, which is documented there."""
        guidance = F.interpolate(guidance, size=x.shape[-2:], mode="nearest")
        normal = _normalised(x)
        out = self.conv_1(self.norm_1(_normalised(self.conv_0(self.norm_0(normal, guidance))), guidance))
        return out.add_(x if self.shortcut is None else self.shortcut(normal, guidance))


class _Modulated(nn.Module):
    """Computes leaky(x (1 + gamma) + beta), where gamma and beta come from the guidance."""

    channels: int

    def __init__(self, norm: SpadeNorm) -> None:
        super().__init__()
        self.shared, self.gamma, self.beta = norm.shared, norm.gamma, norm.beta
        for conv in (self.shared, self.gamma, self.beta):
            conv.padding = (0, 1)  # Rows above and below a band are handed over, or added where the map ends.
        self.channels = self.beta.out_channels

    def forward(self, normal: Tensor, guidance: Tensor) -> Tensor:
        """Returns B x C' x H x W for a normalised map, B x C x H x W, and the guidance, B x G x H x W."""
        batch, _, height, width = normal.shape
        out = torch.empty(
            (batch, self.channels, height, width), dtype=normal.dtype, device=normal.device, memory_format=torch.channels_last
        )
        framed = F.pad(guidance, (0, 0, 1, 1))
        for pictures, start, end in _bands(normal):
            first, last = max(start - 1, 0), min(end + 1, height)  # The 3 x 3 convolutions need one more row on either side.
            hidden = F.relu_(self.shared(framed[pictures, :, first : last + 2]))
            hidden = F.pad(hidden, (0, 0, first - start + 1, end + 1 - last))
            out[pictures, :, start:end] = self.combine(normal[pictures, :, start:end], hidden)
        return out

    def combine(self, normal: Tensor, hidden: Tensor) -> Tensor:
        """Returns B x C' x h x W for a band, B x C x h x W, and the hidden map with a row more on either side, B x 128 x (h + 2) x W."""
        # The sum 1 + gamma is never computed, because in bfloat16 it would lose the last bits of gamma.
        return F.leaky_relu_(self.beta(hidden).add_(normal).addcmul_(normal, self.gamma(hidden)), 0.2)


class _Shortcut(_Modulated):
    """Computes conv(x (1 + gamma) + beta) with a 1 x 1 convolution, as conv(x + x gamma) + conv(beta)."""

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
    """Applies instance norm in channels last. Group norm with one channel in each group is the same, and 20 times as fast there."""
    return F.group_norm(x, x.shape[1])


def _bands(x: Tensor) -> Iterator[tuple[slice, int, int]]:
    """Yields (images, first row, row after the last) of each part that is computed at once.

    On a CPU a part is a band of one image; on other devices there is a single part, which is everything.
    """
    batch, _, height, width = x.shape
    if x.device.type != "cpu":
        yield slice(None), 0, height
        return
    rows = max(1, _PLACES_AT_ONCE // width)
    for i in range(batch):
        for start in range(0, height, rows):
            yield slice(i, i + 1), start, min(start + rows, height)
