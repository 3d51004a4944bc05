"""Hardware encoders: taken where one opens, else left alone with a word about it."""

from fractions import Fraction

import av
import numpy as np
import pytest

from dagan.errors import InputError
from dagan.media import writer as hardware
from dagan.media.video import VideoWriter
from dagan.media.writer import ENCODERS, HARDWARE, HardwareEncoder, find_hardware_encoder


def codec_of(path):
    with av.open(str(path)) as container:
        return container.streams.video[0].codec_context.name


def write(path, **options):
    """Three frames; what was warned of."""
    said = []
    with VideoWriter(path, 65, 48, codec=HARDWARE, warn=said.append, **options) as writer:
        for i in range(3):
            writer.write(np.full((48, 65, 3), 40 * i, np.uint8), Fraction(i, 25))
    return said


def test_the_first_that_opens_is_taken_with_its_options(monkeypatch, tmp_path):
    missing, there = HardwareEncoder("h264_of_no_card"), HardwareEncoder("mpeg4", "yuv420p", {"qscale": "3"})
    monkeypatch.setattr(hardware, "ENCODERS", (missing, there))
    assert find_hardware_encoder(64, 48) == there
    assert write(tmp_path / "a.mp4") == []
    assert codec_of(tmp_path / "a.mp4") == "mpeg4"


def test_without_one_the_usual_encoder_is_used_and_that_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(hardware, "ENCODERS", (HardwareEncoder("h264_of_no_card"), HardwareEncoder("libx264", "no_such_format")))
    assert write(tmp_path / "a.mp4") == ["no hardware encoder for .mp4 files opens here: libx264 is used"]
    assert codec_of(tmp_path / "a.mp4") == "h264"
    assert write(tmp_path / "a.webm") == ["no hardware encoder for .webm files opens here: libvpx-vp9 is used"]


def test_every_real_one_either_opens_or_does_not():
    found = find_hardware_encoder(256, 256)
    assert found is None or found in ENCODERS


def test_a_named_encoder_that_lacks_its_device_is_said(tmp_path):
    if find_hardware_encoder(64, 48) is not None:
        pytest.skip("there is one here")
    name = next((e.name for e in ENCODERS if e.name in av.codecs_available), None)
    if name is None:
        pytest.skip("this FFmpeg knows none")
    with pytest.raises(InputError, match=name), VideoWriter(tmp_path / "a.mp4", 64, 48, codec=name) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8), Fraction(0))
    assert list(tmp_path.iterdir()) == []
