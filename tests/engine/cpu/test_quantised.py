"""The decoder in bytes: near the exact one, with ranges from the sources it draws."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dagan import device
from dagan.bench.job import difference
from dagan.config import GeneratorConfig
from dagan.device import choose_precision
from dagan.engine.cpu.pyramid import Int8Conv, _scale, _to_bytes
from dagan.engine.torch import TorchEngine
from dagan.errors import InputError
from running_samples import TINY, moving_pictures, tiny_model

PICTURES = moving_pictures(5)
CPU = torch.device("cpu")
needs_bytes = pytest.mark.skipif(not device._cpu_multiplies_int8(), reason="this CPU does not multiply bytes")


def engine_of(dtype, **changes):
    model = tiny_model(config=replace(TINY, **changes))
    model.compute_dtype = dtype
    return TorchEngine(model)


@pytest.mark.parametrize("zero", [0, 128])
def test_bytes_are_rounded_and_cut_off(zero):
    x = torch.tensor([-300.0, -3.0, -1.4, -0.9, 0.0, 0.2, 1.6, 7.0, 63.0, 900.0]).view(1, -1, 1, 1)
    wanted = (x.flatten() / 0.5 + zero).round().clamp(0, 255).to(torch.uint8)
    assert torch.equal(_to_bytes(x, 0.5, zero).flatten(), wanted)
    low = torch.linspace(0, 100, 999).view(1, -1, 1, 1).bfloat16()
    scale = _scale(100 + zero / 2)
    far = ((_to_bytes(low, scale, zero).flatten().float() - zero) * scale - low.flatten().float()).abs()
    assert far[low.flatten().float() / scale + zero <= 255].max() < 0.8 * scale  # half a step, and bfloat16's own rounding


@needs_bytes
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("zero", [0, 128])
def test_convolution(relu, zero):
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 24, 3, padding=1)
    fast = Int8Conv(conv, relu, zero)
    for batch in (2, 3):
        x = torch.randn(batch, 16, 10, 12)
        x, scale = (x, 2 * _scale(4)) if zero else (x.relu(), _scale(4))
        with torch.inference_mode():
            wanted = F.relu(conv(x)) if relu else conv(x)
            found = fast(_to_bytes(x, scale, zero), scale)
            assert found.dtype == torch.bfloat16
            assert (found.float() - wanted).abs().max() < 0.03 * wanted.abs().max()
            if relu:
                out_scale = float(wanted.max()) / 255
                as_bytes = fast(_to_bytes(x, scale, zero), scale, out_scale)
                assert as_bytes.dtype == torch.uint8
                assert (as_bytes.float() * out_scale - wanted).abs().max() < 0.03 * wanted.max()


@needs_bytes
def test_pictures_stay_within_a_255th_on_average():
    engine, exact = engine_of(torch.int8), engine_of(torch.float32)
    assert engine.precision == "int8"
    mean, largest = difference(engine, exact, PICTURES)
    low, _ = difference(engine_of(torch.bfloat16), exact, PICTURES)
    assert 0 < mean < 1  # harmless
    assert largest < 20
    assert mean != low  # it is in use


@needs_bytes
def test_ranges_widen_with_each_source():
    engine = engine_of(torch.int8)
    decoder = engine._model.generator.decoder
    engine.encode(np.zeros_like(PICTURES[0]))
    first = list(decoder.ranges)
    engine.encode(PICTURES[0])
    second = list(decoder.ranges)
    assert all(after >= before > 0 for before, after in zip(first, second, strict=True))
    assert second != first
    source = engine.encode(np.zeros_like(PICTURES[0]))
    assert decoder.ranges == second
    assert engine.render(source, source.keypoints).shape == (1, 64, 64, 3)


@needs_bytes
def test_the_model_itself_computes_in_bfloat16():
    images = torch.rand(2, 3, 64, 64)
    results = []
    for dtype in (torch.int8, torch.bfloat16):
        model = tiny_model()
        model.compute_dtype = dtype
        source = model.encode_source(images[:1])
        results.append(model.drive(source, model.keypoints(images)).image)
    assert torch.equal(*results)


def test_what_cannot_be_quantised_is_said(monkeypatch):
    with pytest.raises(InputError, match="int8 is for the lite models' decoder"):
        engine_of(torch.int8, generator=GeneratorConfig(decoder="residual", width=8, max_width=32, downs=2, blocks=1))
    with pytest.raises(InputError, match="needs a CPU that multiplies bytes"):
        choose_precision("int8", torch.device("cuda"))
    monkeypatch.setattr(device, "_cpu_multiplies_int8", lambda: False)
    with pytest.raises(InputError, match="needs a CPU that multiplies bytes"):
        choose_precision("int8", CPU)
    monkeypatch.setattr(device, "_cpu_multiplies_int8", lambda: True)
    assert choose_precision("int8", CPU) == torch.int8


@pytest.mark.parametrize(("limit", "free"), [("AVX2", False), ("avx512_core_vnni", False), ("AVX512_CORE_BF16", True), ("DEFAULT", True)])
def test_a_limit_on_instructions_holds_for_what_is_chosen(limit, free, monkeypatch):
    for check in ("_is_avx512_bf16_supported", "_is_vnni_supported"):
        monkeypatch.setattr(torch.cpu, check, lambda: True, raising=False)
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    assert choose_precision("auto", CPU) == torch.bfloat16
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert choose_precision("auto", CPU) == (torch.bfloat16 if free else torch.float32)
    assert device._cpu_multiplies_int8() is free


def test_bytes_add_up_right_on_this_processor():
    """The largest weights and bytes: a sum of 16 bits cannot hold two of their products."""
    conv = nn.Conv2d(64, 16, 3, padding=1)
    with torch.inference_mode():
        conv.weight.fill_(1)
        conv.bias.zero_()
        full = torch.full((1, 64, 4, 4), 255, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
        inner = Int8Conv(conv, False)(full, 1 / 255)[0, :, 1:3, 1:3].float()
    assert torch.allclose(inner, torch.full_like(inner, 64 * 9), rtol=0.01)
