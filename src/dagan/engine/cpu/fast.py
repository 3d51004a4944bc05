"""Makes a model fast on its device: weights are put into the precision and the layout that the hardware multiplies in.

PyTorch's autocast converts inputs and weights again at every layer, and its tensors are stored channel by channel. Here weights are
converted once, and tensors are stored pixel by pixel (channels last) from end to end. Coordinates, softmaxes and the warped source stay
in float32.

The keypoint detector stays in float32 too. In bfloat16 it would put keypoints 0.07 pixels off at 256 pixels (0.5 at most), and
differently in each frame. It is only a few per cent of the work, and in float32 the pictures differ five times less from the exact ones.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from dagan.engine.cpu.dense_motion import FastDown, FastMotion, FastWarp
from dagan.engine.cpu.fused import FUSED, FastSpadeBlock, FusedConv, ReluConv
from dagan.engine.cpu.pyramid import FastPyramid, PhasedUp
from dagan.engine.cpu.quantised import Int8Pyramid
from dagan.errors import InputError
from dagan.models.blocks import Hourglass, SpadeBlock, UpBlock
from dagan.models.dagan import DaGAN
from dagan.models.generator import CrossModalAttention, PyramidDecoder, Warp
from dagan.weights.fold import fold

# On a CPU attention is computed for this many places at once: their weights stay in the cache, and the whole N x N map is never stored.
_PLACES_AT_ONCE = 256


def prepare(model: DaGAN) -> DaGAN:
    """Returns a folded copy of `model` that computes the same in `model.compute_dtype`. `model` itself stays as it is.

    The copy converts its numbers itself and needs no autocast. It can be neither trained nor saved. On devices other than CPUs and
    CUDA devices the copy is folded and nothing more.
    """
    device = next(model.parameters()).device.type
    folded = model.eval() if model.folded else fold(model)
    if device not in ("cpu", "cuda"):
        return folded
    fast = copy.deepcopy(folded)  # Folding shares tensors with the original, which keeps its precision.
    for name, child in list(fast.named_modules()):
        if isinstance(child, SpadeBlock):
            fast.set_submodule(name, FastSpadeBlock(child))
    if device == "cpu":
        _rebuild(fast)
    low = model.compute_dtype
    if low == torch.int8:
        if not isinstance(fast.generator.decoder, FastPyramid):
            raise InputError(f"int8 is for the lite models' decoder, and {model.config.name!r} has another: use --precision auto")
        fast.generator.set_submodule("decoder", Int8Pyramid(fast.generator.decoder))
        low = torch.bfloat16
    exact = set(fast.keypoint_detector.modules())
    for module in list(fast.modules()):
        dtype = torch.float32 if module in exact else low
        if isinstance(module, Hourglass):
            # The last skip of an hourglass is its own input. Converting it here converts it once instead of twice.
            module.register_forward_pre_hook(_Convert(dtype))
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d) and device == "cpu":
                setattr(module, name, FusedConv(child, dtype, isinstance(child, ReluConv)))
            elif isinstance(child, nn.Conv2d):
                child.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
                child.register_forward_pre_hook(_Convert(dtype))
    fast.compute_dtype = torch.float32  # This keeps the model from using autocast on top.
    return fast.eval()


def _rebuild(model: DaGAN) -> None:
    """Replaces parts of a folded model by parts that compute the same faster on a CPU."""
    model.dense_motion = FastMotion(model.dense_motion)
    for name, child in list(model.named_modules()):
        if isinstance(child, Warp):
            model.set_submodule(name, FastWarp(child.align_corners))
        elif isinstance(child, CrossModalAttention):
            model.set_submodule(name, ChunkedAttention(child))
        elif isinstance(child, PyramidDecoder):
            model.set_submodule(name, FastPyramid(child))
    model.keypoint_detector.down = FastDown(model.keypoint_detector.down, model.config.image_size)
    for name, child in list(model.named_modules()):
        if isinstance(child, UpBlock):
            model.set_submodule(name, PhasedUp(child))
        elif type(child) in FUSED:
            model.set_submodule(name, FUSED[type(child)](child))


class _Convert:
    """Converts a module's input to a precision and to channels last. A tensor that has both already is passed on as it is."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (inputs[0].to(dtype=self._dtype).contiguous(memory_format=torch.channels_last), *inputs[1:])


class ChunkedAttention(CrossModalAttention):
    """`CrossModalAttention`, computed for a few places at a time.

    PyTorch's own fused attention on CPUs wants values as wide as keys. Here keys have C / 8 channels and values have C, so PyTorch would
    store the whole N x N map, which takes half a gigabyte for a batch of four at 64 x 64.
    """

    def __init__(self, attention: CrossModalAttention) -> None:
        nn.Module.__init__(self)
        self.query, self.key, self.value, self.gamma = attention.query, attention.key, attention.value, attention.gamma
        self.keys = attention.keys

    def forward(self, query: Tensor, features: Tensor) -> Tensor:
        """See CrossModalAttention."""
        key, value = self.asked(features)
        keys, values = key.flatten(2), value.flatten(2).transpose(1, 2)  # B C/8 M, B M C
        queries = query.to(keys.dtype).flatten(2).transpose(1, 2)  # B N C/8
        attended = values.new_empty((*queries.shape[:2], values.shape[2]))
        for start in range(0, attended.shape[1], _PLACES_AT_ONCE):
            places = slice(start, start + _PLACES_AT_ONCE)
            attended[:, places] = torch.softmax(queries[:, places] @ keys, dim=-1) @ values
        # The result is stored pixel by pixel already, so it is in channels last without a copy.
        moved = attended.transpose(1, 2).unflatten(2, (query.shape[-2], query.shape[-1]))
        return self.gamma.to(moved.dtype) * moved
