"""Convolutions that take sums and ReLUs along, and the blocks made of them."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dagan.config import HourglassConfig, MotionConfig
from dagan.engine.cpu import fused
from dagan.engine.cpu.fast import FastDown, FastMotion
from dagan.engine.cpu.fused import FUSED, FastElu, FusedConv, ReluConv
from dagan.engine.cpu.pyramid import PhasedUp
from dagan.models.blocks import BandLimitedDown, DownBlock, Hourglass, ResidualBlock, SameBlock, UpBlock
from dagan.models.depth import BasicBlock
from dagan.models.keypoints import DenseMotion, Keypoints


@pytest.fixture(params=[True, False], ids=["packed", "plain"])
def packing(request, monkeypatch):
    """With oneDNN's operators where this machine has them, and without."""
    if request.param and not fused._can_pack(torch.float32):
        pytest.skip("no such operators here")
    if not request.param:
        monkeypatch.setattr(fused, "_can_pack", lambda dtype: False)
    return request.param


@pytest.mark.parametrize("relu", [False, True])
def test_convolution_sum_and_relu(packing, relu):
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 16, 3, stride=2, padding=1)
    fast = FusedConv(conv, torch.float32, relu)
    for batch in (3, 1, 4):  # packed for the first
        x, add = torch.randn(batch, 8, 12, 10), torch.randn(batch, 16, 6, 5)
        kept = add.clone()
        with torch.inference_mode():
            alone, summed = fast(x), fast(x, add)
        wanted = conv(x), conv(x) + add
        for found, exact in zip((alone, summed), wanted, strict=True):
            assert (exact < 0).any()
            torch.testing.assert_close(found, F.relu(exact) if relu else exact, atol=1e-5, rtol=0)
        assert torch.equal(add, kept)
    assert fast.weight.is_mkldnn == packing


def test_weights_are_packed_for_the_number_of_threads_that_use_them(request):
    if not fused._can_pack(torch.float32):
        pytest.skip("weights cannot be packed here")
    threads = torch.get_num_threads()
    request.addfinalizer(lambda: torch.set_num_threads(threads))
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 16, 3, padding=1)
    fast, x = FusedConv(conv, torch.float32), torch.randn(1, 8, 12, 10)
    for count in (2, 1, 2):
        torch.set_num_threads(count)
        with torch.inference_mode():
            torch.testing.assert_close(fast(x), conv(x), atol=1e-5, rtol=0)
    assert sorted(fast._packed) == [1, 2]


def test_inputs_are_brought_to_the_weights_precision(packing):
    if packing and not fused._can_pack(torch.bfloat16):
        pytest.skip("no bfloat16 here")
    conv = nn.Conv2d(8, 16, 3)
    with torch.inference_mode():
        found = FusedConv(conv, torch.bfloat16)(torch.randn(1, 8, 9, 9))
    assert found.dtype == torch.bfloat16
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_elu():
    x = torch.linspace(-6, 6, 500)
    kept = x.clone()
    torch.testing.assert_close(FastElu(nn.ELU())(x), F.elu(x), atol=2e-7, rtol=1e-6)
    assert torch.equal(x, kept)


def folded(block):
    """The block with identities for the norms that folding takes away, and other norms that do something."""
    torch.manual_seed(0)
    for name, child in block.named_children():
        if isinstance(child, nn.BatchNorm2d):
            child.running_mean.normal_()
            if name != "norm1" or not isinstance(block, ResidualBlock):
                setattr(block, name, nn.Identity())
    return block.eval().requires_grad_(False)


def fast_copy(kind, block):
    """`kind` of the block, its convolutions fused as `prepare` does it."""
    fast = kind(copy.deepcopy(block)).eval()
    for module in list(fast.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d):
                setattr(module, name, FusedConv(child, torch.float32, isinstance(child, ReluConv)))
    return fast


@pytest.mark.parametrize(
    ("kind", "sizes"), [(SameBlock, (8, 8)), (DownBlock, (8, 16)), (ResidualBlock, (8,)), (BasicBlock, (8, 8, 1))], ids=lambda x: str(x)
)
def test_blocks(packing, kind, sizes):
    block = folded(kind(*sizes))
    x = torch.randn(2, 8, 12, 12)
    wanted = block(x.clone())
    torch.testing.assert_close(fast_copy(FUSED[kind], block)(x), wanted, atol=1e-5, rtol=0)


def test_up_blocks_without_the_doubled_picture(packing):
    up = folded(UpBlock(8, 6))
    x, skip = torch.randn(2, 8, 5, 7), torch.randn(2, 3, 10, 14)
    wanted = up(x)
    fast = fast_copy(PhasedUp, up)
    torch.testing.assert_close(fast(x), wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(fast(x, skip), torch.cat([wanted, skip], dim=1), atol=1e-5, rtol=0)


def test_hourglass(packing):
    hourglass = Hourglass(HourglassConfig(width=4, max_width=16, levels=3), 5)
    for block in hourglass.modules():
        folded(block)
    x = torch.randn(2, 5, 16, 24)
    wanted = hourglass(x)
    for place, up in enumerate(hourglass.ups):
        hourglass.ups[place] = fast_copy(PhasedUp, up)
    torch.testing.assert_close(hourglass(x), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("factor", "size"), [(4, 256), (2, 40), (4, 20)])
def test_the_blur_as_a_matrix(factor, size):
    torch.manual_seed(0)
    x, down = torch.rand(2, 3, size, size), BandLimitedDown(3, factor)
    torch.testing.assert_close(FastDown(down, size)(x), down(x), atol=1e-6, rtol=0)


@pytest.mark.parametrize("align_corners", [True, False])
def test_motion(packing, align_corners):
    torch.manual_seed(0)
    config = MotionConfig(hourglass=HourglassConfig(width=4, max_width=16, levels=3), kernel=3)
    motion = DenseMotion(config, 5, 4, align_corners)
    for block in motion.modules():
        folded(block)
    identity = torch.eye(2).expand(2, 5, 2, 2)
    source, driving = (Keypoints(torch.rand(2, 5, 2) - 0.5, identity + 0.2 * torch.randn(2, 5, 2, 2)) for _ in range(2))
    small = torch.rand(2, 3, 16, 16)
    wanted, found = motion(small, source, driving), fast_copy(FastMotion, motion)(small, source, driving)
    assert wanted.mask.std() > 0.01
    for name in ("deformation", "occlusion", "mask"):
        torch.testing.assert_close(getattr(found, name), getattr(wanted, name), atol=1e-5, rtol=0)
