"""Colours: converts between the YUV frames of video files and RGB, and makes disparity maps visible.

Matrix and range are decided only here, so that no colour shifts. Files that are written are BT.709 with limited range, and say so. Files
that are read are taken as their tags say. Untagged ones are taken as players take them: as BT.709 from 720 lines up, and as BT.601 below.
Colours of wide gamut and of high dynamic range (HDR) are brought to what the networks were trained on, which are BT.709 primaries and
standard range.

Each kind of such colours has a transfer curve and primaries. It becomes a cube (a table of output colours), in which FFmpeg's `lut3d`
filter looks colours up; the result is right within half a level of 255 on average. White of the standard range is taken as 100 cd/m2, as
it is when a standard picture is mastered in HDR. Brighter light is compressed by a Moebius curve on the largest of the three channels, so
that hues stay.

A disparity map is shown in a range that outliers do not stretch, with the colours of a colour map.
"""

from __future__ import annotations

import difflib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from dagan.errors import InputError

if TYPE_CHECKING:
    import av


# These are numbers of the H.273 standard.
PQ, HLG = 16, 18
BT2020, DCI_P3, DISPLAY_P3 = 9, 11, 12
CUBE_FORMAT = "gbrp16le"  # `Cube.apply` takes and gives frames of this format, for which the filter is fast and exact.
_HDR = (PQ, HLG)
_SIDE = 49  # The cube has this many points along each axis.
_KNEE = 0.6  # This share of standard white; darker light stays as it is, which keeps faces within 2 of 255 of the standard picture.
_PEAK = 10.0  # So many standard whites become white: 1000 cd/m2, for which nearly all HDR video is mastered.
_DISPLAY_GAMMA = 2.4  # Standard displays turn values into light with this exponent (BT.1886).
_GRAPHS = 8  # A thread keeps so many filter graphs, one for each size and kind of colour.

# These are the CIE xy coordinates of red, green and blue.
_BT709_PRIMARIES = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
_WIDE_PRIMARIES = {
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    DCI_P3: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    DISPLAY_P3: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
_D65 = (0.3127, 0.3290)  # This is white. Cinema has a white of its own, which is adapted to this one so that white stays white.


@dataclass(frozen=True)
class Cube:
    """The conversion of one kind of colours to standard ones."""

    transfer: int
    """The number of the transfer curve in H.273."""
    primaries: int
    """The number of the primaries in H.273."""

    @classmethod
    def of(cls, transfer: int, primaries: int) -> Cube | None:
        """Returns the conversion for colours with these tags, or None where they are, or are taken as, standard colours."""
        return cls(transfer, primaries) if transfer in _HDR or primaries in _WIDE_PRIMARIES else None

    def convert(self, values: np.ndarray) -> np.ndarray:
        """Converts n x 3 full-range values in [0, 1] of this kind to n x 3 BT.709 values in [0, 1], exactly."""
        light = _light(values.astype(np.float64), self.transfer)
        if self.primaries in _WIDE_PRIMARIES:
            light = light @ _to_bt709(_WIDE_PRIMARIES[self.primaries]).T
        light = np.maximum(light, 0)
        if self.transfer in _HDR:
            largest = light.max(axis=1, keepdims=True)
            light = light * (_rolled_off(largest) / np.maximum(largest, 1e-9))
        return np.clip(light, 0, 1) ** (1 / _DISPLAY_GAMMA)

    def apply(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Converts a full-range frame of `CUBE_FORMAT`. The result has the same format."""
        graph = _graph(self, frame)
        graph.vpush(frame)
        return graph.vpull()

    def apply_to_image(self, image: np.ndarray) -> np.ndarray:
        """Converts an H x W x 3 uint8 picture."""
        import av

        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(format=CUBE_FORMAT)
        return self.apply(frame).reformat(format="rgb24").to_ndarray()


def _light(values: np.ndarray, transfer: int) -> np.ndarray:
    """Returns linear light, n x 3, in units of standard white."""
    if transfer == PQ:  # SMPTE ST 2084
        power = values ** (32 / 2523)
        return 100 * (np.maximum(power - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * power)) ** (16384 / 2610)
    if transfer == HLG:  # ARIB STD-B67, shown on a display of 1000 cd/m2, where the system's gamma is 1.2.
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)
        luminance = scene @ np.asarray((0.2627, 0.6780, 0.0593))
        return 10 * scene * (luminance**0.2)[:, None]
    return values**_DISPLAY_GAMMA


def _to_bt709(primaries: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Returns the 3 x 3 matrix from linear light in these primaries to linear light in those of BT.709."""
    return np.linalg.inv(_to_xyz(_BT709_PRIMARIES)) @ _to_xyz(primaries)


def _to_xyz(primaries: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Returns the 3 x 3 matrix from linear light in these primaries, with D65 as white, to CIE XYZ."""
    columns = np.stack([(x / y, 1.0, (1 - x - y) / y) for x, y in primaries], axis=1)
    x, y = _D65
    return columns * np.linalg.solve(columns, (x / y, 1.0, (1 - x - y) / y))


def _rolled_off(light: np.ndarray) -> np.ndarray:
    """Applies the Moebius curve: it changes nothing up to the knee and then rises smoothly to 1 at the peak."""
    j, peak = _KNEE, _PEAK
    a = -j * j * (peak - 1) / (j * j - 2 * j + peak)
    b = (j * j - 2 * j * peak + peak) / (peak - 1)
    return np.where(light <= j, light, (b + j) ** 2 / (b - a) * (light + a) / (light + b))


@lru_cache
def _cube_text(cube: Cube) -> str:
    """Writes the conversion as text in the .cube format, which film programs use. Red changes fastest."""
    axis = np.linspace(0, 1, _SIDE)
    blues, greens, reds = np.meshgrid(axis, axis, axis, indexing="ij")
    colours = cube.convert(np.stack([reds, greens, blues], axis=-1).reshape(-1, 3))
    return "\n".join([f"LUT_3D_SIZE {_SIDE}", *(f"{red:.6f} {green:.6f} {blue:.6f}" for red, green, blue in colours.tolist()), ""])


_own = threading.local()  # Each thread has graphs of its own, because a graph serves one thread at a time.


def _graph(cube: Cube, frame: av.VideoFrame) -> av.filter.Graph:
    import av.filter

    graphs: OrderedDict[tuple[Cube, int, int], av.filter.Graph] = _own.__dict__.setdefault("graphs", OrderedDict())
    key = (cube, frame.width, frame.height)
    if key not in graphs:
        graph = av.filter.Graph()
        with TemporaryDirectory() as folder:
            file = Path(folder) / "colours.cube"
            file.write_text(_cube_text(cube), encoding="ascii")
            graph.link_nodes(
                graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 25)),
                graph.add("lut3d", file=str(file), interp="tetrahedral"),
                graph.add("buffersink"),
            ).configure()
        graphs[key] = graph
        if len(graphs) > _GRAPHS:
            graphs.popitem(last=False)
    graphs.move_to_end(key)
    return graphs[key]


# These are numbers of the H.273 standard. FFmpeg uses them for frames, and its scaler uses them for matrices too.
BT709 = 1
BT601 = 6
UNSPECIFIED = 2
LIMITED = 1
FULL = 2
# These are flags of the scaler. _EXACT is bicubic with full chroma and exact rounding: flat colours come back within 1 of 255 (0.35 on
# average). _FAST is bilinear: they come back within 3 (1.2 on average), in 1 ms instead of 20 ms for 1920 x 1080 on one core.
_EXACT = 4 | 0x2000 | 0x40000
_FAST = 2
_SCALER_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}  # The scaler's number for each number of the standard.
_FULL_RANGE_FORMATS = ("yuvj", "gray", "ya8", "ya16", "mono")
_HD_LINES = 720
_HD_COLUMNS = 1280


def to_rgb(frame: av.VideoFrame, width: int, height: int, *, fast: bool = False) -> np.ndarray:
    """Turns a decoded frame into height x width x 3 uint8 RGB of that size. Transparent pixels are put on white.

    Matrix, range, transfer curve (HDR is tone-mapped) and primaries are taken from the frame's own tags, so they may change within a
    video. With `fast`, colours may be off by up to 3 of 255, which is good enough for finding faces.
    """
    quality = _FAST if fast else _EXACT
    colours: dict[str, int] = {"interpolation": quality}
    if not (frame.format.is_rgb or frame.format.name == "pal8"):
        colours |= {"src_colorspace": _matrix(frame), "src_color_range": _range(frame), "dst_color_range": FULL}
    cube = Cube.of(frame.color_trc, frame.color_primaries)
    if cube is not None:
        wide = frame.reformat(width, height, CUBE_FORMAT, **colours)
        return cube.apply(wide).reformat(format="rgb24", interpolation=quality).to_ndarray()
    if frame.format.name == "pal8" or any(part.is_alpha for part in frame.format.components):
        return on_white(frame.reformat(width, height, "rgba", **colours).to_ndarray())
    return frame.reformat(width, height, "rgb24", **colours).to_ndarray()


def from_rgb(image: np.ndarray, pixel_format: str) -> av.VideoFrame:
    """Makes a frame from H x W x 3 uint8 RGB, or x 4 RGBA. Its sides must fit the pixel format.

    The format is an RGB one, or a YUV one, which gets BT.709 in limited range.
    """
    import av

    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgba" if image.shape[2] == 4 else "rgb24")
    if av.VideoFormat(pixel_format).is_rgb:
        return frame.reformat(format=pixel_format)
    return frame.reformat(
        format=pixel_format, dst_colorspace=BT709, src_color_range=FULL, dst_color_range=LIMITED, interpolation=_EXACT
    )


def tag_stream(context: av.VideoCodecContext) -> None:
    """Writes into the stream's header that it is BT.709 in limited range, as `from_rgb` makes it."""
    context.colorspace = context.color_primaries = context.color_trc = BT709
    context.color_range = LIMITED


def on_white(pixels: np.ndarray) -> np.ndarray:
    """Lays H x W x 4 uint8 RGBA on white and returns H x W x 3 uint8 RGB. Everything transparent that is read is treated so."""
    alpha = pixels[..., 3:].astype(np.uint16)
    return ((pixels[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _matrix(frame: av.VideoFrame) -> int:
    """Returns the scaler's number of the frame's matrix. It lacks constant-luminance and YCgCo matrices; BT.709 stands in for them."""
    if frame.colorspace in (0, UNSPECIFIED):
        return _SCALER_MATRICES[BT709 if frame.height >= _HD_LINES or frame.width >= _HD_COLUMNS else BT601]
    return _SCALER_MATRICES.get(frame.colorspace, BT709)


def _range(frame: av.VideoFrame) -> int:
    """Returns the frame's range. Untagged video is limited, except for the kinds of pixels that come from still pictures."""
    return frame.color_range or (FULL if frame.format.name.startswith(_FULL_RANGE_FORMATS) else LIMITED)


DEFAULT_MAP = "inferno"
# This percentage of places is left out at each end of the range, so that specks and the image's border do not set the contrast.
_OUTLIERS = 2.0
# A map with a smaller spread is flat. Stretching its colours would only show rounding.
_LEAST_SPREAD = 1e-6


def robust_range(disparity: np.ndarray) -> tuple[float, float]:
    """Returns (low, high), the 2nd and the 98th percentile of disparities of any shape."""
    low, high = np.percentile(disparity, (_OUTLIERS, 100 - _OUTLIERS))
    return float(low), float(high)


def colour_table(name: str = DEFAULT_MAP) -> np.ndarray:
    """Returns 256 x 3 uint8 colours of a named colour map, such as inferno or turbo.

    Raises InputError for an unknown one, and names similar ones.
    """
    from cmap import Colormap

    try:
        table = Colormap(name).lut(256)
    except (ValueError, TypeError):
        known = sorted(str(key) for key in Colormap.catalog().short_keys())
        near = difflib.get_close_matches(name, known, n=3)
        raise InputError(f"there is no colour map {name!r}: use {', '.join(near or ['inferno', 'turbo', 'viridis', 'gray'])}") from None
    return np.rint(np.asarray(table)[:, :3] * 255).astype(np.uint8)


def colourise(disparity: np.ndarray, low: float, high: float, table: np.ndarray) -> np.ndarray:
    """Colours disparities of any shape as ... x 3 uint8: `low` gets the table's first colour and `high` its last."""
    scaled = (disparity - low) / max(high - low, _LEAST_SPREAD)
    return table[np.clip(np.rint(scaled * 255), 0, 255).astype(np.uint8)]
