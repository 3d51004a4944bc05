"""Convolutions on CPUs whose weights are packed once, and that take the sum and the ReLU after them into the same pass.

`F.conv2d` packs weights for oneDNN anew at each call, which for small maps takes longer than the multiplications; and every sum and ReLU
on its own reads and writes the map once more. The operators used here are those that compiled models call.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dagan.models.blocks import DownBlock, ResidualBlock, SameBlock
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


class FusedSame(nn.Module):
    """`SameBlock`, folded. relus: which convolutions a ReLU follows, here and below."""

    relus = ("conv",)

    def __init__(self, block: SameBlock) -> None:
        super().__init__()
        self.conv = block.conv

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

    relus = ("conv1",)

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.norm1, self.conv1, self.conv2 = block.norm1, block.conv1, block.conv2

    def forward(self, x: Tensor) -> Tensor:
        """See ResidualBlock."""
        return self.conv2(self.conv1(F.relu_(self.norm1(x))), x)


class FusedBasic(nn.Module):
    """The depth network's `BasicBlock`, folded."""

    relus = ("conv1", "conv2")

    def __init__(self, block: BasicBlock) -> None:
        super().__init__()
        self.conv1, self.conv2, self.downsample = block.conv1, block.conv2, block.downsample

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
