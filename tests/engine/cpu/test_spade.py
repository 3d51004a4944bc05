"""The fast SPADE block computes what the block computes, in bands too."""

import copy

import pytest
import torch

from dagan.engine.cpu import fused as spade
from dagan.engine.cpu.fused import FastSpadeBlock
from dagan.models.blocks import SpadeBlock


def plain_block(channels_in, channels_out):
    """A block without spectral norms, with weights that matter."""
    torch.manual_seed(0)
    block = SpadeBlock(channels_in, channels_out, 7)
    for name in ("conv_0", "conv_1", *(("conv_s",) if block.project else ())):
        torch.nn.utils.parametrize.remove_parametrizations(getattr(block, name), "weight")
    return block.eval().requires_grad_(False)


@pytest.mark.parametrize("places", [2**14, 40, 1], ids=["whole maps", "bands of two rows", "row by row"])
@pytest.mark.parametrize("channels", [(8, 8), (16, 8)], ids=["straight", "projected"])
def test_same_result(monkeypatch, places, channels):
    monkeypatch.setattr(spade, "_PLACES_AT_ONCE", places)
    block = plain_block(*channels)
    x, guidance = torch.randn(2, channels[0], 13, 20), torch.randn(2, 7, 26, 40)
    before = x.clone(), guidance.clone()
    wanted = block(x, guidance)
    assert wanted.std() > 0.1
    found = FastSpadeBlock(copy.deepcopy(block))(x, guidance)
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)
    assert torch.equal(x, before[0])
    assert torch.equal(guidance, before[1])
