"""Makes a model fast on its device: weights are put into the precision and the layout that the hardware multiplies in.

PyTorch's autocast converts inputs and weights again at every layer, and its tensors are stored channel by channel. Here weights are
converted once, and tensors are stored pixel by pixel (channels last) from end to end. Coordinates, softmaxes and the warped source stay
in float32.

The keypoint detector stays in float32 too. In bfloat16 it would put keypoints 0.07 pixels off at 256 pixels (0.5 at most), and
differently in each frame. It is only a few per cent of the work, and in float32 the pictures differ five times less from the exact ones.

On a processor the dense motion network and the warping of maps get fast parts, which are here too. `grid_sample` wants float32 and looks
up one channel after the other. `FastWarp` looks up whole pixels with all their channels, which lie together in channels last. A bilinear
look-up takes four pixels by their numbers and adds them up with four weights; PyTorch calls that an embedding bag. It works in the map's
own precision and is 25 times as fast as `grid_sample`. The images that `FastMotion` makes are stored one colour plane after the other
until the hourglass takes them. Its two heads, for the masks and for the occlusion, are one convolution.

Legend: B images, C channels, H W the map, h w the deformation.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init

from dagan.engine.cpu.fused import FUSED, FastSpadeBlock, FusedConv, ReluConv
from dagan.engine.cpu.pyramid import FastPyramid, Int8Pyramid, PhasedUp
from dagan.errors import InputError
from dagan.geometry import resize
from dagan.models.blocks import BandLimitedDown, DownBlock, Hourglass, SpadeBlock, UpBlock
from dagan.models.dagan import DaGAN, fold
from dagan.models.generator import CrossModalAttention, PyramidDecoder, Warp
from dagan.models.keypoints import DenseMotion

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
        """Implements the method of `CrossModalAttention`, which is documented there."""
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


_LEAST_CHANNELS = 8  # With fewer channels a pixel is too short for this to pay, and `grid_sample` is faster.
_BEFORE, _AFTER = 1, 2  # Rows and columns of zeros that are put before and after the map: what lies outside the map is zero.
_FAR = 1e6  # A place this many pixels away is outside every map. Places that are not numbers are put there, so that they see nothing.


class FastWarp(Warp):
    """`Warp` for maps in channels last on a CPU."""

    def forward(self, x: Tensor, deformation: Tensor, occlusion: Tensor | None = None) -> Tensor:
        """Implements the method of `Warp`, which is documented there."""
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
        """Returns the numbers of the padded map's pixels to add up, and their weights, both B x H x W x 4.

        The weights are multiplied by the occlusion, B x 1 x H x W, where it is given.
        """
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
        # Float32 holds these numbers exactly, because maps have fewer than 2^24 pixels.
        first = torch.add(left, top, alpha=width + _BEFORE + _AFTER).to(torch.int32)
        below = first + (width + _BEFORE + _AFTER)
        seen = torch.ones_like(x) if occlusion is None else occlusion[:, 0]
        x = seen * x  # This is the share of the right column.
        corner = x * y
        lower = seen * y - corner
        numbers = torch.stack([first, first + 1, below, below + 1], dim=-1)
        return numbers, torch.stack([seen - x - lower, x - corner, lower, corner], dim=-1)


_BLOCK = 8  # This many rows of the small image are computed together.


class FastDown(BandLimitedDown):
    """`BandLimitedDown` computed as two products with a matrix, one from the left and one from the right.

    This is possible because its kernel is a product of one kernel along rows and one along columns. Most of the matrix is zero: each
    row of the small image depends on few rows of the large one. In the product from the left, where the image still has all its
    columns, blocks of the matrix are therefore multiplied with only those rows that they need.
    """

    matrix: Tensor

    def __init__(self, down: BandLimitedDown, size: int) -> None:
        """Makes the matrix for square images with sides of `size` pixels."""
        nn.Module.__init__(self)
        self.factor = down.factor
        line = down.weight[0].float().sum(1)[None]  # 1 1 k
        responses = F.conv1d(torch.eye(size)[:, None], line, stride=down.factor, padding=line.shape[-1] // 2)
        self.register_buffer("matrix", responses[:, 0].contiguous(), persistent=False)  # S S/factor
        reached = [block.any(1).nonzero() for block in self.matrix.split(_BLOCK, dim=1)]
        self._rows = [slice(int(rows.min()), int(rows.max()) + 1) for rows in reached]

    def forward(self, x: Tensor) -> Tensor:
        """Implements the method of `BandLimitedDown`, which is documented there."""
        x = x.contiguous()
        blocks = zip(self._rows, self.matrix.split(_BLOCK, dim=1), strict=True)
        return torch.cat([block[rows].T @ x[:, :, rows] for rows, block in blocks], dim=2) @ self.matrix


class FastMotion(DenseMotion):
    """`DenseMotion` whose hourglass takes all heatmaps first, then all red planes, then all green ones, then all blue ones."""

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
        """See DenseMotion. The result has the channel order that this hourglass takes, and is in channels last."""
        planes = torch.cat([heatmaps, warped.flatten(1, 2)], dim=1).to(self.heads.weight.dtype).flatten(2)  # B C N
        pixels = torch.empty_like(planes.transpose(1, 2), memory_format=torch.contiguous_format)
        # PyTorch transposes a single matrix fast and a stack of matrices slowly, so images are transposed one after the other.
        for one, turned in zip(pixels, planes.transpose(1, 2), strict=True):
            one.copy_(turned)
        return pixels.transpose(1, 2).unflatten(2, warped.shape[-2:])

    def shares(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Implements the method of `DenseMotion`, which is documented there."""
        logits = self.heads(self.hourglass(x)).float().contiguous()
        return torch.softmax(torch.cat([torch.zeros_like(logits[:, :1]), logits[:, 1:]], dim=1), dim=1), torch.sigmoid(logits[:, :1])


def _joined(mask: nn.Conv2d, occlusion: nn.Conv2d) -> nn.Conv2d:
    """Makes one convolution of both. Its first channel is the occlusion; it takes the place of the background's logit.

    The shares of a softmax depend only on differences of logits, so the background's logit is subtracted from all others and is then
    always 0. Without this there would be 17 channels; convolutions compute channels in groups of 16, so that 17 would cost twice as much.
    """
    heads = skip_init(nn.Conv2d, mask.in_channels, mask.out_channels, mask.kernel_size, padding=mask.padding)
    for name in ("weight", "bias"):
        logits, visible = getattr(mask, name).detach(), getattr(occlusion, name).detach()
        setattr(heads, name, nn.Parameter(torch.cat([visible, logits[1:] - logits[:1]]), requires_grad=False))
    return heads
