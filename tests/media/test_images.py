"""Every kind of still image arrives as sRGB bytes, or with one clear sentence."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from dagan.errors import InputError
from dagan.media.images import image_files, read_image, write_image


@pytest.fixture
def picture():
    """30 x 40 RGB without symmetry."""
    rows, columns = np.mgrid[0:30, 0:40]
    return np.stack([rows * 8, columns * 6, (rows + columns) * 3], axis=-1).astype(np.uint8)


def write_png16(path, values):
    """A PNG with 16 bits per channel, by hand: Pillow cannot write colour ones."""
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[values.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = b"".join(struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".tif"])
def test_lossless_round_trip(tmp_path, picture, suffix):
    write_image(tmp_path / f"a{suffix}", picture)
    assert np.array_equal(read_image(tmp_path / f"a{suffix}"), picture)


def test_jpeg_is_close(tmp_path, picture):
    write_image(tmp_path / "a.jpg", picture)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - picture).mean() < 1.5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, picture, orientation):
    """Stored pixels are turned such that the orientation tag turns them back."""
    undo = {1: [], 2: [0], 3: [3], 4: [1], 5: [5], 6: [2], 7: [6], 8: [4]}[orientation]
    image = Image.fromarray(picture)
    for operation in undo:
        image = image.transpose(Image.Transpose(operation))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), picture)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_grey_and_palette(tmp_path, picture, mode):
    image = Image.fromarray(picture).convert(mode)
    image.save(tmp_path / "a.png")
    result = read_image(tmp_path / "a.png")
    assert result.shape == (30, 40, 3)
    assert result.dtype == np.uint8
    assert np.array_equal(result, np.asarray(image.convert("RGB")))


def test_transparency_goes_on_white(tmp_path, picture):
    alpha = np.zeros((30, 40), np.uint8)
    alpha[:, 20:] = 255
    alpha[0, 0] = 128
    Image.fromarray(np.dstack([picture, alpha])).save(tmp_path / "a.png")
    result = read_image(tmp_path / "a.png")
    assert (result[1:, :20] == 255).all()
    assert np.array_equal(result[:, 20:], picture[:, 20:])
    assert abs(int(result[0, 0, 0]) - (int(picture[0, 0, 0]) + 255) / 2) <= 1


def test_transparent_grey_and_palette_colour(tmp_path):
    Image.new("LA", (20, 20), (10, 0)).save(tmp_path / "grey.png")
    assert (read_image(tmp_path / "grey.png") == 255).all()
    Image.new("P", (20, 20), 0).save(tmp_path / "palette.gif", transparency=0)
    assert (read_image(tmp_path / "palette.gif") == 255).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_are_scaled_not_cut(tmp_path, channels):
    values = np.full((20, 24, channels), 0x8000, np.uint16)
    values[:10] = 0x2000
    if channels in (2, 4):
        values[..., -1] = 0xFFFF
    write_png16(tmp_path / "a.png", values)
    result = read_image(tmp_path / "a.png")
    assert np.abs(result[:10].astype(int) - 32).max() <= 1
    assert np.abs(result[10:].astype(int) - 128).max() <= 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.full((20, 24, 3), 0x8000, np.uint16), 128),
        (np.full((3, 20, 24), 0x8000, np.uint16), 128),
        (np.full((20, 24, 3), 0.5, np.float32), 128),
        (np.full((20, 24), 0x8000, np.uint16), 128),
        (np.full((20, 24), 0.25, np.float32), 64),
    ],
    ids=["colour16", "planes16", "float-colour", "grey16", "float-grey"],
)
def test_deep_tiff(tmp_path, values, expected):
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb" if values.ndim == 3 else "minisblack")
    result = read_image(tmp_path / "a.tif")
    assert result.shape == (20, 24, 3)
    assert np.abs(result.astype(int) - expected).max() <= 1


def test_cmyk(tmp_path):
    Image.new("CMYK", (20, 20), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    result = read_image(tmp_path / "a.jpg")[10, 10].astype(int)
    assert result[0] > 200
    assert result[1:].max() < 60


def icc_profile(gamma, primaries=None, kind=b"RGB ", name="test"):
    """A small ICC profile: a power curve, and of colour ones the primaries' XYZ; those of sRGB where None."""

    def fixed(value):
        return struct.pack(">i", round(value * 65536))

    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    text = name.encode() + b"\0"
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78 + 1),
        b"wtpt": b"XYZ " + bytes(4) + b"".join(map(fixed, (0.9642, 1.0, 0.8249))),
    }
    if kind == b"GRAY":
        tags[b"kTRC"] = curve
    else:
        columns = primaries or ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
        for letter, xyz in zip(b"rgb", columns, strict=True):
            tags[bytes([letter]) + b"XYZ"] = b"XYZ " + bytes(4) + b"".join(map(fixed, xyz))
            tags[bytes([letter]) + b"TRC"] = curve
    table, body = b"", b""
    for tag, data in tags.items():
        table += tag + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = 128 + 4 + len(table) + len(body)
    header = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x02100000, b"mntr", kind, b"XYZ ") + bytes(12) + b"acsp"
    header += bytes(68 - len(header)) + b"".join(map(fixed, (0.9642, 1.0, 0.8249)))
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA"])
@pytest.mark.parametrize("name", ["linear", "linear sRGB"])
def test_colour_profile_is_converted(tmp_path, mode, name):
    """A profile that says "linear light", even in the name of sRGB: the same numbers are lighter in sRGB."""
    plain = Image.new("RGB", (20, 20), (55, 55, 55))
    image = plain.quantize(4) if mode == "P" else plain.convert(mode)
    profile = icc_profile(1.0, kind=b"GRAY" if mode in ("L", "LA") else b"RGB ", name=name)
    image.save(tmp_path / "a.png", icc_profile=profile)
    expected = 255 * (1.055 * (55 / 255) ** (1 / 2.4) - 0.055)
    assert np.abs(read_image(tmp_path / "a.png").astype(float) - expected).max() < 2.5


def test_wide_gamut_profile_and_deep_tiff_with_profile(tmp_path):
    """Display P3: its green is beyond sRGB's, its half-saturated red is a stronger one there."""
    display_p3 = icc_profile(2.2, ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)))
    Image.new("RGB", (20, 20), (200, 100, 100)).save(tmp_path / "a.jpg", icc_profile=display_p3, quality=100)
    red, green, blue = read_image(tmp_path / "a.jpg")[10, 10].astype(int)
    assert red > 212
    assert green < 96
    assert 90 < blue < 104
    values = np.full((20, 24, 3), 55 * 257, np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", iccprofile=icc_profile(1.0))
    assert abs(float(read_image(tmp_path / "a.tif").mean()) - 128) < 3


def test_srgb_profile_changes_nothing_and_a_broken_one_is_ignored(tmp_path, picture):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(picture).save(tmp_path / "a.png", icc_profile=srgb)
    Image.fromarray(picture).save(tmp_path / "b.png", icc_profile=b"nonsense")
    assert np.array_equal(read_image(tmp_path / "a.png"), picture)
    assert np.array_equal(read_image(tmp_path / "b.png"), picture)


def test_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (20, 20), (255, 0, 0)), Image.new("RGB", (20, 20), (0, 255, 0))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "a.gif")[5, 5].tolist() == [255, 0, 0]


@pytest.mark.parametrize("size", [(16, 16), (3000, 20), (17, 2500)])
def test_any_size(tmp_path, size):
    Image.new("RGB", size, (1, 2, 3)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (size[1], size[0], 3)


def test_bad_inputs_each_get_a_sentence(tmp_path, picture):
    with pytest.raises(InputError, match="does not exist"):
        read_image(tmp_path / "none.png")
    with pytest.raises(InputError, match="is a folder"):
        read_image(tmp_path)
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(InputError, match="0 bytes"):
        read_image(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("no image " * 50)
    with pytest.raises(InputError, match="not an image"):
        read_image(tmp_path / "text.png")
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    with pytest.raises(InputError, match="convert it"):
        read_image(tmp_path / "phone.heic")
    Image.new("RGB", (1, 1)).save(tmp_path / "tiny.png")
    with pytest.raises(InputError, match=r"1 x 1 pixels.*at least 16 x 16"):
        read_image(tmp_path / "tiny.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_cut_off_files(tmp_path, kind):
    noise = np.random.default_rng(0).integers(0, 255, (100, 100, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, kind)
    path = tmp_path / "a.img"
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(InputError, match=r"a\.img"):
        read_image(path)


def test_lab_tiff(tmp_path):
    image = Image.merge("LAB", [Image.new("L", (20, 20), value) for value in (128, 128, 128)])
    image.save(tmp_path / "a.tif")
    assert np.abs(read_image(tmp_path / "a.tif").astype(int) - 119).max() <= 3


@pytest.mark.parametrize(
    ("start", "kind"),
    [(b"\0\0\0\x18ftypheic", "a HEIC image"), (b"\0\0\0\x18ftypmif1", "a HEIC image"), (b"\xff\x0a", "a JPEG XL image")],
)
def test_formats_that_are_not_read_are_named_whatever_the_suffix(tmp_path, start, kind):
    (tmp_path / "a.jpg").write_bytes(start + bytes(100))
    with pytest.raises(InputError, match=rf"a\.jpg is {kind}, which is not read here: convert it to PNG or JPEG first"):
        read_image(tmp_path / "a.jpg")


def test_kinds_of_tiff_that_cannot_be_read_are_named(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((20, 24, 3), np.uint16), photometric="cielab")
    with pytest.raises(InputError, match=r"a\.tif holds colours of the kind CIELAB with 16 bits: save it as RGB"):
        read_image(tmp_path / "a.tif")


def test_infinite_and_missing_numbers(tmp_path):
    values = np.full((20, 24), 0.5, np.float32)
    values[0, :3] = (np.inf, -np.inf, np.nan)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
    result = read_image(tmp_path / "a.tif")[..., 0]
    assert (result[1:] == 128).all()
    assert result[0, :3].tolist() == [128, 0, 0]


def test_write_refuses(tmp_path, picture):
    with pytest.raises(InputError, match="suffix"):
        write_image(tmp_path / "a.xyz", picture)
    write_image(tmp_path / "a.png", picture)
    with pytest.raises(InputError, match="--overwrite"):
        write_image(tmp_path / "a.png", picture)
    write_image(tmp_path / "a.png", 255 - picture, overwrite=True)
    assert np.array_equal(read_image(tmp_path / "a.png"), 255 - picture)
    with pytest.raises(ValueError, match="uint8"):
        write_image(tmp_path / "b.png", picture.astype(np.float32))


def test_write_makes_folders(tmp_path, picture):
    write_image(tmp_path / "x" / "y" / "a.png", picture)
    assert (tmp_path / "x" / "y" / "a.png").exists()


def test_files_of_a_folder_in_natural_order(tmp_path):
    for name in ("f10.png", "f2.png", "F1.PNG", "notes.txt", ".hidden.png"):
        (tmp_path / name).write_bytes(b"x")
    assert [p.name for p in image_files(tmp_path)] == ["F1.PNG", "f2.png", "f10.png"]
