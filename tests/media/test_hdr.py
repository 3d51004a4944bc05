"""HDR and wide-gamut pictures come out as the standard picture that they were made from."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, features

from dagan.data.clips import Clip
from dagan.media.colour import BT2020, DISPLAY_P3, HLG, PQ, Cube
from dagan.media.decode import read_clip
from dagan.media.images import read_image
from dagan.media.video import open_video
from hdr_samples import BT709, encoded, write

UNSPECIFIED = 2


@pytest.fixture
def standard():
    """64 x 64 RGB: soft shades of skin, grey and blue, mean about 130."""
    rows, columns = np.mgrid[0:64, 0:64] / 63
    skin, blue = np.array([225, 170, 140]), np.array([60, 90, 160])
    picture = skin * columns[..., None] + blue * (1 - columns[..., None])
    return np.clip(picture * (0.55 + 0.5 * rows[..., None]), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("transfer", [PQ, HLG])
@pytest.mark.parametrize(("pixels", "color_range"), [("yuv420p", 1), ("yuv420p10le", 1), ("yuv420p10le", 2), ("yuv444p12le", 1)])
def test_hdr_video_looks_like_its_standard_master(tmp_path, standard, transfer, pixels, color_range):
    path = write(tmp_path / "a.mkv", encoded(standard, transfer, BT2020), transfer, BT2020, pixels, color_range)
    frames = [frame.image.astype(int) for frame in open_video(path)]
    assert len(frames) == 3
    error = frames[1] - standard
    assert abs(error.mean()) < 4
    # Only bright parts are rolled off: light below the knee, six tenths of white's, stays.
    dark = standard.max(axis=2) < 190
    assert np.abs(error[dark]).mean() < (4 if pixels == "yuv420p" else 2)
    trained = read_clip(Clip(path, "a", "a"), 64)
    assert np.array_equal(trained[1].transpose(1, 2, 0), frames[1])
    looked = next(iter(open_video(path).frames(max_side=32))).image
    assert abs(looked.mean() - standard.mean()) < 10


@pytest.mark.parametrize(("primaries", "matrix"), [(BT2020, 9), (DISPLAY_P3, 1)])
def test_wide_gamut_without_hdr(tmp_path, standard, primaries, matrix):
    path = write(tmp_path / "a.mkv", encoded(standard, BT709, primaries), BT709, primaries, matrix=matrix)
    assert np.abs(next(iter(open_video(path))).image.astype(int) - standard).mean() < 1


@pytest.mark.parametrize("tags", [(UNSPECIFIED, UNSPECIFIED), (BT709, BT709)])
def test_standard_and_untagged_video_stays_as_it_is(tmp_path, standard, tags):
    path = write(tmp_path / "a.mkv", standard / 255, *tags, pixels="yuv444p", matrix=1)
    assert np.abs(next(iter(open_video(path))).image.astype(int) - standard).mean() < 1.5


def test_bright_light_is_rolled_off_and_keeps_its_order_and_hue():
    nits = np.array([0, 30, 60, 100, 203, 400, 1000, 4000]) / 10_000
    power = nits ** (2610 / 16384)
    grey = ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    shown = 255 * Cube(PQ, BT709).convert(np.repeat(grey[:, None], 3, axis=1))[:, 0]
    assert np.allclose(shown[:3], 255 * (nits[:3] * 100) ** (1 / 2.4), atol=0.1)
    assert (np.diff(shown) >= 0).all()
    assert 225 < shown[3] < 240 < shown[4] < shown[5] < shown[6] == pytest.approx(255)
    red = Cube(PQ, BT709).convert(np.array([[0.75, 0.5, 0.5]]))[0]
    assert red[0] > red[1] == pytest.approx(red[2])


def write_png(path, picture, transfer, primaries):
    """An 8-bit PNG with a cICP chunk."""
    rows = b"".join(b"\0" + row.tobytes() for row in picture)
    header = struct.pack(">IIBBBBB", picture.shape[1], picture.shape[0], 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"cICP", bytes([primaries, transfer, 0, 1])), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = b"".join(struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


@pytest.mark.parametrize(("transfer", "primaries"), [(PQ, BT2020), (HLG, BT2020), (13, DISPLAY_P3)])
def test_photos_with_numeric_tags(tmp_path, standard, transfer, primaries):
    values = np.rint(encoded(standard, transfer, primaries) * 255).astype(np.uint8)
    write_png(tmp_path / "a.png", values, transfer, primaries)
    assert abs(read_image(tmp_path / "a.png").mean() - standard.mean()) < 4
    write_png(tmp_path / "b.png", standard, 13, 1)
    assert np.array_equal(read_image(tmp_path / "b.png"), standard)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")
def test_hdr_avif(tmp_path, standard):
    path = tmp_path / "a.avif"
    Image.fromarray(np.rint(encoded(standard, PQ, BT2020) * 255).astype(np.uint8)).save(path, quality=95, subsampling="4:4:4")
    data = path.read_bytes()
    place = data.index(b"colrnclx") + 8
    path.write_bytes(data[:place] + struct.pack(">HH", BT2020, PQ) + data[place + 4 :])
    assert abs(read_image(path).mean() - standard.mean()) < 5
