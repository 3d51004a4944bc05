"""Training reads pictures and videos by the rules of `dagan animate`: the same file gives the same pixels, byte for byte."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, features

from dagan.data.clips import Clip, find_clips, find_stills
from dagan.errors import InputError
from dagan.evaluate.pairs import read_frame
from dagan.media.decode import RandomReader, probe, read_clip
from dagan.media.framing import to_square
from dagan.media.images import read_image
from dagan.media.video import open_video

SIDE = 48


def colours() -> np.ndarray:
    """48 x 48 RGB without symmetry."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    return np.stack([rows * 5, columns * 4, (rows + columns) * 2], axis=-1).astype(np.uint8)


def alpha() -> np.ndarray:
    return np.linspace(0, 255, SIDE * SIDE).reshape(SIDE, SIDE).astype(np.uint8)


def on_white(values: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    share = opacity[..., None] / 255
    return values * share + 255 * (1 - share)


def grey() -> np.ndarray:
    return colours()[..., 0]


def turned(path: Path, orientation: int) -> None:
    """The picture stored so that its tag turns it upright."""
    undo = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270, 3: Image.Transpose.ROTATE_180}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if path.suffix == ".jpg" else {"lossless": True} if path.suffix == ".webp" else {}
    Image.fromarray(colours()).transpose(undo).save(path, exif=exif, **options)


def deep_png(path: Path, values: np.ndarray, extra: tuple[bytes, bytes] | None = None) -> None:
    """A PNG of 16 bits a channel."""
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[values.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    chunks = [(b"IHDR", header), *([extra] if extra else []), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = b"".join(struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def palette(path: Path) -> None:
    image = Image.fromarray(colours()).quantize(16)
    image.info.pop("transparency", None)
    image.save(path, transparency=3)


def pages(path: Path) -> None:
    first, second = Image.fromarray(colours()), Image.new("RGB", (SIDE, SIDE), "red")
    first.save(path, save_all=True, append_images=[second])


def wide(values: np.ndarray) -> np.ndarray:
    return values.astype(np.uint16) * 257


def tiff(path: Path, values: np.ndarray, photometric: str, **options: object) -> None:
    tifffile.imwrite(path, values, photometric=photometric, **options)


def premultiplied() -> np.ndarray:
    return (wide(np.dstack([colours(), np.full_like(alpha(), 255)])) * (alpha()[..., None] / 255)).astype(np.uint16)


RGB, GREY = colours, lambda: np.repeat(grey()[..., None], 3, axis=2)
# Name of the file, how it is written, what it shows (None: only that both readers agree), how far off of 255 it may be.
TABLE: dict[str, tuple[Callable[[Path], object], Callable[[], np.ndarray] | None, float]] = {
    "plain.png": (lambda p: Image.fromarray(colours()).save(p), RGB, 0),
    "plain.jpg": (lambda p: Image.fromarray(colours()).save(p, quality=100, subsampling=0), RGB, 4),
    "plain.webp": (lambda p: Image.fromarray(colours()).save(p, lossless=True), RGB, 0),
    "plain.bmp": (lambda p: Image.fromarray(colours()).save(p), RGB, 0),
    "plain.tif": (lambda p: Image.fromarray(colours()).save(p), RGB, 0),
    "exif6.jpg": (lambda p: turned(p, 6), RGB, 4),
    "exif8.png": (lambda p: turned(p, 8), RGB, 0),
    "exif3.tif": (lambda p: turned(p, 3), RGB, 0),
    "exif6.tiff": (lambda p: turned(p, 6), RGB, 0),
    "exif6.webp": (lambda p: turned(p, 6), RGB, 0),
    "alpha.png": (lambda p: Image.fromarray(np.dstack([colours(), alpha()])).save(p), lambda: on_white(colours(), alpha()), 1),
    "alpha.webp": (lambda p: Image.fromarray(np.dstack([colours(), alpha()])).save(p, lossless=True, exact=True),
                   lambda: on_white(colours(), alpha()), 1),
    "alpha.tif": (lambda p: Image.fromarray(np.dstack([colours(), alpha()])).save(p), lambda: on_white(colours(), alpha()), 1),
    "greyalpha.png": (lambda p: Image.fromarray(np.dstack([grey(), alpha()]), "LA").save(p), lambda: on_white(GREY(), alpha()), 1),
    "palette.png": (palette, None, 0),
    "palette.gif": (palette, None, 0),
    "onebit.png": (lambda p: Image.fromarray(grey() > 100).save(p), lambda: np.where(GREY() > 100, 255, 0), 0),
    "onebit.tif": (lambda p: Image.fromarray(grey() > 100).save(p), lambda: np.where(GREY() > 100, 255, 0), 0),
    "cmyk.jpg": (lambda p: Image.fromarray(colours()).convert("CMYK").save(p, quality=100, subsampling=0), RGB, 6),
    "cmyk.tif": (lambda p: Image.fromarray(colours()).convert("CMYK").save(p), RGB, 1),
    "grey16.png": (lambda p: deep_png(p, wide(grey())[..., None]), GREY, 0),
    "greyalpha16.png": (lambda p: deep_png(p, wide(np.dstack([grey(), alpha()]))), lambda: on_white(GREY(), alpha()), 1),
    "rgb16.png": (lambda p: deep_png(p, wide(colours())), RGB, 0),
    "rgba16.png": (lambda p: deep_png(p, wide(np.dstack([colours(), alpha()]))), lambda: on_white(colours(), alpha()), 1),
    "clear16.png": (lambda p: deep_png(p, wide(grey())[..., None], (b"tRNS", struct.pack(">H", 100 * 257))),
                    lambda: np.where(GREY() == 100, 255, GREY()), 0),
    "grey16.tif": (lambda p: tiff(p, wide(grey()), "minisblack"), GREY, 0),
    "white0_16.tif": (lambda p: tiff(p, 65535 - wide(grey()), "miniswhite"), GREY, 0),
    "white0_8.tif": (lambda p: tiff(p, 255 - grey(), "miniswhite"), GREY, 0),
    "white0_16_deflate.tif": (lambda p: tiff(p, 65535 - wide(grey()), "miniswhite", compression="zlib"), GREY, 0),
    "ga16.tif": (lambda p: tiff(p, wide(np.dstack([grey(), alpha()])), "minisblack", extrasamples=["unassalpha"]),
                 lambda: on_white(GREY(), alpha()), 1),
    "ga8.tif": (lambda p: tiff(p, np.dstack([grey(), alpha()]), "minisblack", extrasamples=["unassalpha"]),
                lambda: on_white(GREY(), alpha()), 1),
    "rgb16.tif": (lambda p: tiff(p, wide(colours()), "rgb"), RGB, 0),
    "rgba16.tif": (lambda p: tiff(p, wide(np.dstack([colours(), alpha()])), "rgb", extrasamples=["unassalpha"]),
                   lambda: on_white(colours(), alpha()), 1),
    "premultiplied16.tif": (
        lambda p: tiff(p, premultiplied(), "rgb", extrasamples=["assocalpha"]),
        lambda: on_white(colours(), alpha()),
        2,
    ),
    "planes16.tif": (lambda p: tiff(p, wide(np.moveaxis(colours(), -1, 0)), "rgb", planarconfig="separate"), RGB, 0),
    "bigendian16.tif": (lambda p: tiff(p, wide(colours()), "rgb", byteorder=">"), RGB, 0),
    "cmyk16.tif": (lambda p: tiff(p, wide(np.asarray(Image.fromarray(colours()).convert("CMYK"))), "separated"), RGB, 1),
    "float.tif": (lambda p: tiff(p, (colours() / 255).astype(np.float32), "rgb"), RGB, 0),
    "floatgrey.tif": (lambda p: tiff(p, (grey() / 255).astype(np.float32), "minisblack"), lambda: GREY(), 0),
    "turned16.tif": (lambda p: tiff(p, wide(np.rot90(colours())), "rgb", extratags=[(274, "H", 1, 6, True)]), RGB, 0),
    "pages.tif": (pages, RGB, 0),
}  # fmt: skip
if features.check("avif"):
    TABLE["plain.avif"] = (lambda p: Image.fromarray(colours()).save(p, quality=100, subsampling="4:4:4"), RGB, 6)


@pytest.mark.parametrize("name", TABLE)
def test_a_picture_is_what_it_shows_and_the_same_everywhere(tmp_path: Path, name: str) -> None:
    write, shown, tolerance = TABLE[name]
    path = tmp_path / name
    write(path)
    image = read_image(path)
    assert image.dtype == np.uint8
    if shown is not None:
        assert np.abs(image.astype(float) - shown()).max() <= tolerance + 0.5
    clip = Clip(path, name, "x", still=True)
    for size in (SIDE, 32):
        expected = to_square(image, size).transpose(2, 0, 1)[None]
        assert np.array_equal(read_clip(clip, size), expected)
        assert np.array_equal(RandomReader(size).read(clip, probe(clip), [0]), expected)
    assert np.array_equal(read_frame(clip, 0), image)
    assert np.array_equal(next(iter(open_video(path))).image, image)
    (tmp_path / "folder").mkdir()
    for i in range(2):
        write(tmp_path / "folder" / f"{i}{path.suffix}")
    if path.suffix not in (".gif", ".avif"):  # those are videos to the search for clips, or not looked for
        assert [still.path for still in find_stills(tmp_path)] == sorted([path, *(tmp_path / "folder").iterdir()])
        (folder,) = [clip for clip in find_clips(tmp_path) if clip.path.is_dir()]
        assert np.array_equal(read_clip(folder, SIDE), np.stack([to_square(image, SIDE).transpose(2, 0, 1)] * 2))


@pytest.mark.parametrize("damage", ["empty", "header", "cut", "bomb"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_damaged_pictures_get_one_sentence_in_both(tmp_path: Path, damage: str, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"a{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "header": data[:30], "bomb": data}[damage])
    if damage == "bomb":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for read in (read_image, lambda path: read_clip(Clip(path, "a", "a", still=True), 32)):
        with pytest.raises(InputError, match=rf"a\{suffix}") as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_animated_pictures_are_clips_too(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.roll(colours(), 5 * i, axis=0)) for i in range(6)]
    for name in ("a.webp", "b.png", "c.gif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=40, lossless=True)
    found = find_clips(tmp_path)
    assert [clip.name for clip in found] == ["a.webp", "b.png", "c.gif"]
    for clip in found:
        expected = np.stack([frame.image.transpose(2, 0, 1) for frame in open_video(clip.path)])
        assert (probe(clip).count, probe(clip).rate) == (6, 25)
        assert np.array_equal(read_clip(clip, SIDE), expected)
        assert np.array_equal(RandomReader(SIDE).read(clip, probe(clip), [5, 0]), expected[[5, 0]])
