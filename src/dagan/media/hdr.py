"""Wide-gamut and high-dynamic-range colours, brought to what the networks were trained on: BT.709 primaries, standard range.

Each kind of colour (a transfer curve and primaries) becomes one cube of output colours, right within half a level of 255 on average,
which FFmpeg's `lut3d` filter looks colours up in. White of the standard range is taken as 100 cd/m2, as when a standard picture is
mastered in HDR. Brighter light is rolled off by a Moebius curve on the largest of the three channels, so that hues stay.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import av

# Numbers of the H.273 standard.
PQ, HLG = 16, 18
BT2020, DCI_P3, DISPLAY_P3 = 9, 11, 12
CUBE_FORMAT = "gbrp16le"  # the format of the frames that `Cube.apply` takes and gives: for it the filter is fast and exact
_HDR = (PQ, HLG)
_SIDE = 49  # points of the cube along each axis
_KNEE = 0.6  # of standard white; darker light stays as it is, which keeps faces within 2 of 255 of the standard picture
_PEAK = 10.0  # standard whites: 1000 cd/m2, for which nearly all HDR video is mastered, becomes white
_DISPLAY_GAMMA = 2.4  # BT.1886: how standard displays turn values into light
_GRAPHS = 8  # filter graphs that a thread keeps: one for each size and kind of colour

# CIE xy of red, green and blue.
_BT709_PRIMARIES = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
_WIDE_PRIMARIES = {
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    DCI_P3: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    DISPLAY_P3: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
_D65 = (0.3127, 0.3290)  # white; cinema's own one is adapted to it, so that white stays white


@dataclass(frozen=True)
class Cube:
    """The conversion of one kind of colour. transfer, primaries: H.273 numbers."""

    transfer: int
    primaries: int

    @classmethod
    def of(cls, transfer: int, primaries: int) -> Cube | None:
        """The conversion for colours tagged so; None where they are (taken as) standard ones already."""
        return cls(transfer, primaries) if transfer in _HDR or primaries in _WIDE_PRIMARIES else None

    def convert(self, values: np.ndarray) -> np.ndarray:
        """n x 3 BT.709 values in [0, 1] for n x 3 full-range values in [0, 1] of this kind: the exact conversion."""
        light = _light(values.astype(np.float64), self.transfer)
        if self.primaries in _WIDE_PRIMARIES:
            light = light @ _to_bt709(_WIDE_PRIMARIES[self.primaries]).T
        light = np.maximum(light, 0)
        if self.transfer in _HDR:
            largest = light.max(axis=1, keepdims=True)
            light = light * (_rolled_off(largest) / np.maximum(largest, 1e-9))
        return np.clip(light, 0, 1) ** (1 / _DISPLAY_GAMMA)

    def apply(self, frame: av.VideoFrame) -> av.VideoFrame:
        """A full-range frame of `CUBE_FORMAT` converted, in the same format."""
        graph = _graph(self, frame)
        graph.vpush(frame)
        return graph.vpull()

    def apply_to_image(self, image: np.ndarray) -> np.ndarray:
        """An H x W x 3 uint8 picture converted."""
        import av

        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(format=CUBE_FORMAT)
        return self.apply(frame).reformat(format="rgb24").to_ndarray()


def _light(values: np.ndarray, transfer: int) -> np.ndarray:
    """Linear light, n x 3, in units of standard white."""
    if transfer == PQ:  # SMPTE ST 2084
        power = values ** (32 / 2523)
        return 100 * (np.maximum(power - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * power)) ** (16384 / 2610)
    if transfer == HLG:  # ARIB STD-B67, shown on a display of 1000 cd/m2, where the system's gamma is 1.2
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)
        luminance = scene @ np.asarray((0.2627, 0.6780, 0.0593))
        return 10 * scene * (luminance**0.2)[:, None]
    return values**_DISPLAY_GAMMA


def _to_bt709(primaries: tuple[tuple[float, float], ...]) -> np.ndarray:
    """The 3 x 3 matrix from linear light in these primaries to linear light in BT.709's."""
    return np.linalg.inv(_to_xyz(_BT709_PRIMARIES)) @ _to_xyz(primaries)


def _to_xyz(primaries: tuple[tuple[float, float], ...]) -> np.ndarray:
    """The 3 x 3 matrix from linear light in these primaries, with D65 as white, to CIE XYZ."""
    columns = np.stack([(x / y, 1.0, (1 - x - y) / y) for x, y in primaries], axis=1)
    x, y = _D65
    return columns * np.linalg.solve(columns, (x / y, 1.0, (1 - x - y) / y))


def _rolled_off(light: np.ndarray) -> np.ndarray:
    """The Moebius curve: the identity up to the knee, then smoothly up to 1 at the peak."""
    j, peak = _KNEE, _PEAK
    a = -j * j * (peak - 1) / (j * j - 2 * j + peak)
    b = (j * j - 2 * j * peak + peak) / (peak - 1)
    return np.where(light <= j, light, (b + j) ** 2 / (b - a) * (light + a) / (light + b))


@lru_cache
def _cube_text(cube: Cube) -> str:
    """The conversion as a .cube file, the format of the film trade; red runs fastest."""
    axis = np.linspace(0, 1, _SIDE)
    blues, greens, reds = np.meshgrid(axis, axis, axis, indexing="ij")
    colours = cube.convert(np.stack([reds, greens, blues], axis=-1).reshape(-1, 3))
    return "\n".join([f"LUT_3D_SIZE {_SIDE}", *(f"{red:.6f} {green:.6f} {blue:.6f}" for red, green, blue in colours.tolist()), ""])


_own = threading.local()  # a graph serves one thread at a time


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
