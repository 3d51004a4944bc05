"""The depth job. It takes a picture, a video or a folder of images and writes colours, numbers, a point cloud or a mesh.

The output's suffix says which. What is estimated is the disparity map of docs/method.md#depth-network: near is large, values are in
(0, 1), in the model's own unit. Videos are streamed, so that memory does not grow with length.

Numbers are the maps of a whole video in one .npz file, which is written without holding the maps in memory. A point cloud is a binary
PLY file, which every 3-D viewer opens. One picture does not tell its camera. `ASSUMED_FOCAL` is the focal length from which stage 1 of
training starts. A wrong one stretches the cloud along the line of sight and leaves its frontal view as it is. Distances are in the depth
network's own unit, not in metres.

Legend: H W map.
"""

from __future__ import annotations

import io
import json
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.lib import format as npy

from dagan.engine.base import Engine
from dagan.errors import InputError
from dagan.geometry import back_project, intrinsics, invert_intrinsics
from dagan.media.colour import DEFAULT_MAP, colour_table, colourise, robust_range
from dagan.media.container import Frame
from dagan.media.framing import FaceFinder, Framing, crop
from dagan.media.images import IMAGE_SUFFIXES, is_photo, read_image, write_image
from dagan.media.output import atomic_output, check_destination, check_distinct
from dagan.media.video import VideoReader, VideoWriter, open_video
from dagan.media.view import View, read_ahead, square_of, view_still, view_video
from dagan.media.writer import VIDEO_SUFFIXES
from dagan.models.depth import EgomotionConfig, disparity_to_depth
from dagan.progress import Progress, Warn, counted, silent, to_stderr
from dagan.stream import batched, on_workers


class MapArchive:
    """Collects float32 maps of one shape, and small arrays to store beside them. `map_archive` makes it."""

    def __init__(self, spool: IO[bytes]) -> None:
        self._spool = spool
        self._shape: tuple[int, ...] | None = None
        self._count = 0
        self.notes: dict[str, np.ndarray] = {}

    def add(self, maps: np.ndarray) -> None:
        """Adds n maps, n x H x W."""
        if self._shape is None:
            self._shape = maps.shape[1:]
        if maps.shape[1:] != self._shape:
            raise ValueError(f"maps of {maps.shape[1:]} among maps of {self._shape}")
        self._spool.write(np.ascontiguousarray(maps, dtype="<f4").tobytes())
        self._count += len(maps)

    def write(self, file: Path) -> None:
        """Writes everything that was collected to `file`, as `np.load` reads it."""
        if self._shape is None:
            raise InputError("no depth is written: there was no frame to measure")
        self._spool.seek(0)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            with archive.open("disparity.npy", "w", force_zip64=True) as member:
                npy.write_array_header_2_0(member, {"descr": "<f4", "fortran_order": False, "shape": (self._count, *self._shape)})
                shutil.copyfileobj(self._spool, member, 2**20)
            for name, array in self.notes.items():
                with archive.open(f"{name}.npy", "w") as member:
                    npy.write_array(member, np.asarray(array), allow_pickle=False)


@contextmanager
def map_archive(path: Path, overwrite: bool = False) -> Iterator[MapArchive]:
    """Yields an archive to fill. At the end of the block it is written to `path`: N x H x W float32 "disparity", and its notes.

    When the block raises anything, nothing is left behind. Raises InputError as `atomic_output` does, and for an empty archive.
    """
    # The header of an array says how many maps follow, which is known only at the end. Until then they wait in a nameless file.
    with atomic_output(path, overwrite) as temporary, tempfile.TemporaryFile(dir=temporary.parent) as spool:
        archive = MapArchive(spool)
        yield archive
        archive.write(temporary)


ASSUMED_FOCAL = EgomotionConfig().focal  # In image widths.
_VERTEX = np.dtype([(axis, "<f4") for axis in "xyz"] + [(colour, "u1") for colour in ("red", "green", "blue")])


def point_cloud(disparity: np.ndarray, depth_range: tuple[float, float], focal: float = ASSUMED_FOCAL) -> np.ndarray:
    """Returns (H W) x 3 float32 points, row by row: x to the right, y up, z towards the viewer. The camera is at 0 and looks along -z.

    `disparity` is H x W in (0, 1). `depth_range` is the model's smallest and largest depth (docs/method.md#depth-network). `focal` is the
    focal length in picture widths. Raises InputError when it is not above 0.
    """
    if not focal > 0:
        raise InputError(f"focal length is {focal}: must be above 0, in picture widths")
    height, width = disparity.shape
    depth = disparity_to_depth(torch.from_numpy(np.ascontiguousarray(disparity, dtype=np.float32)), *depth_range)[None, None]
    # Pixels are square, so both directions have the same focal length in pixels.
    lengths = torch.tensor([[focal, focal * width / height]])
    camera = invert_intrinsics(intrinsics(lengths, torch.full((1, 2), 0.5), (height, width)))
    points = back_project(depth, camera)[0].flatten(1).T
    return (points * torch.tensor([1.0, -1.0, -1.0])).numpy()


def write_ply(path: Path | str, points: np.ndarray, colours: np.ndarray, overwrite: bool = False) -> None:
    """Writes N x 3 float points with N x 3 uint8 colours in binary little-endian. Raises InputError as `atomic_output` does."""
    vertices = np.empty(len(points), _VERTEX)
    for i, axis in enumerate("xyz"):
        vertices[axis] = points[:, i]
    for i, colour in enumerate(("red", "green", "blue")):
        vertices[colour] = colours[:, i]
    properties = [f"property {'float' if name in 'xyz' else 'uchar'} {name}" for name in _VERTEX.names or ()]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}", *properties, "end_header", ""]
    with atomic_output(path, overwrite) as temporary, temporary.open("wb") as file:
        file.write("\n".join(header).encode("ascii"))
        file.write(vertices.tobytes())


# Where a triangle reaches farther back than this share of its distance, the surface is torn: there is an outline, and nothing behind it was
# seen.
_TEAR = 0.03
_MESH_STEP = 2  # Every second row and column of the map is a point of the mesh; finer ones add size and no shape.


@dataclass(frozen=True, eq=False)
class Mesh:
    """A surface of triangles."""

    points: np.ndarray
    """N x 3 float32 positions: x to the right, y up, z towards the viewer."""
    places: np.ndarray
    """N x 2 float32 places of the points in the picture, from (0, 0) at its top left to (1, 1)."""
    triangles: np.ndarray
    """T x 3 uint32 numbers of points, counter-clockwise as seen from the camera."""


def depth_mesh(disparity: np.ndarray, depth_range: tuple[float, float], focal: float = ASSUMED_FOCAL) -> Mesh:
    """Returns the surface that a disparity map describes, torn where it jumps. The middle of its points is at 0.

    The arguments are those of `point_cloud`. Raises InputError as that does.
    """
    height, width = disparity.shape
    rows, columns = (np.unique(np.append(np.arange(0, length, _MESH_STEP), length - 1)) for length in (height, width))
    points = point_cloud(disparity, depth_range, focal).reshape(height, width, 3)[np.ix_(rows, columns)]
    places = np.stack(np.meshgrid((columns + 0.5) / width, (rows + 0.5) / height), axis=-1)
    number = np.arange(len(rows) * len(columns), dtype=np.uint32).reshape(len(rows), len(columns))
    a, b, c, d = number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]
    triangles = np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])
    depth = -points[..., 2].reshape(-1)[triangles]
    whole = depth.max(axis=1) - depth.min(axis=1) < _TEAR * depth.min(axis=1)
    flat = points.reshape(-1, 3)
    middle = (flat.min(axis=0) + flat.max(axis=0)) / 2
    return Mesh((flat - middle).astype(np.float32), places.reshape(-1, 2).astype(np.float32), triangles[whole])


def write_glb(path: Path | str, mesh: Mesh, picture: np.ndarray, overwrite: bool = False) -> None:
    """Writes a mesh with its picture, H x W x 3 uint8, as binary glTF 2.0, which browsers and 3-D programs show.

    The picture is shown as it is, without light. Raises InputError as `atomic_output` does.
    """
    from PIL import Image

    texture = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(texture, "PNG")
    parts = [mesh.points.tobytes(), mesh.places.tobytes(), mesh.triangles.astype("<u4").tobytes(), texture.getvalue()]
    views, data = [], b""
    for part in parts:
        views.append({"buffer": 0, "byteOffset": len(data), "byteLength": len(part)})
        data += part + b"\0" * (-len(part) % 4)
    count, corners = len(mesh.points), int(mesh.triangles.size)
    extent = {"min": mesh.points.min(axis=0).tolist(), "max": mesh.points.max(axis=0).tolist()}
    note = {
        "asset": {"version": "2.0", "generator": "dagan"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
        "extensionsUsed": ["KHR_materials_unlit"],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "indices": 2, "material": 0}]}],
        "materials": [{
            "pbrMetallicRoughness": {"baseColorTexture": {"index": 0}, "metallicFactor": 0, "roughnessFactor": 1},
            "extensions": {"KHR_materials_unlit": {}}, "doubleSided": True,
        }],
        "textures": [{"source": 0}], "images": [{"bufferView": 3, "mimeType": "image/png"}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": count, "type": "VEC3", **extent},
            {"bufferView": 1, "componentType": 5126, "count": count, "type": "VEC2"},
            {"bufferView": 2, "componentType": 5125, "count": corners, "type": "SCALAR"},
        ],
        "bufferViews": views, "buffers": [{"byteLength": len(data)}],
    }  # fmt: skip
    text = json.dumps(note).encode()
    text += b" " * (-len(text) % 4)
    with atomic_output(path, overwrite) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + len(data)))
        file.write(struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(data), b"BIN\0") + data)


LOOK, RANGE, MEASURE = "finding the face", "finding the range", "measuring depth"
_NUMBERS, _CLOUD, _MESH = ".npz", ".ply", ".glb"
_RANGE_SAMPLES = 48  # About so many frames decide on the range of a video's colours.


@dataclass(frozen=True, kw_only=True)
class DepthOptions:
    """What the depth job is asked for beside its input and output: see each field."""

    crop: bool = True
    """Whether the face is found; otherwise the middle is taken."""
    colours: str = DEFAULT_MAP
    """The name of the colour map."""
    focal: float = ASSUMED_FOCAL
    """The focal length that is assumed for point clouds and meshes, in picture widths (see `dagan.depth`)."""
    overwrite: bool = False
    frame_rate: Fraction | None = None
    """The frame rate of a folder of images; None is 25."""


def measure_depth(
    engine: Engine, source: Path, output: Path, options: DepthOptions | None = None, progress: Progress = silent, warn: Warn = to_stderr
) -> int:  # fmt: skip
    """Estimates depth in `source` with `engine` and writes `output`. Returns the number of frames.

    Raises InputError for inputs, outputs and options that cannot work, before any long work where possible. Nothing is left behind then,
    and nothing when interrupted.
    """
    options = options or DepthOptions()
    still = is_photo(source)
    check_depth(source, output, options)
    table = colour_table(options.colours)
    if not engine.has_depth:
        raise InputError(f"model {engine.name!r} has no depth network: use one whose name does not end in -rgb")
    finder = FaceFinder() if options.crop else None
    if still:
        image = read_image(source)
        _write_still(output, image, view_still(image, finder, str(source), warn), engine, table, options)
        return 1
    with open_video(source, options.frame_rate or 25) as reader:
        view, faces = view_video(reader, finder, warn, progress, LOOK)
        if faces is not None and faces.missing:
            warn(f"{source}: no face in {faces.missing} of {faces.frames} pictures looked at: the framing is held there")
        if output.suffix.lower() == _NUMBERS:
            count = _write_numbers(output, reader, view, engine, options, progress)
        else:
            count = _write_colours(output, reader, view, engine, table, options, progress, warn)
        if (problem := reader.problem()) is not None and finder is None:  # With a finder, the user was told already.
            warn(problem)
    return count


def check_depth(source: Path, output: Path, options: DepthOptions) -> None:
    """Raises InputError for what cannot work, without a model and before inputs are read to their end."""
    if not source.exists():
        raise InputError(f"{source} does not exist: give a photo, a video or a folder of images")
    still = is_photo(source)
    check_distinct((output,), (source,))
    suffix = output.suffix.lower()
    if still and suffix in VIDEO_SUFFIXES and suffix not in IMAGE_SUFFIXES:
        kinds = ".png (colours), .npz (numbers), .ply (points) or .glb (mesh)"
        raise InputError(f"{source} is one picture: its depth is written to {kinds}, not {suffix}")
    if not still and suffix in (*IMAGE_SUFFIXES, _CLOUD, _MESH) and suffix not in VIDEO_SUFFIXES:
        raise InputError(f"{source} holds many pictures: their depth is written to .mp4 (colours) or .npz (numbers), not {suffix}")
    allowed = (*IMAGE_SUFFIXES, _NUMBERS, _CLOUD, _MESH) if still else (*VIDEO_SUFFIXES, _NUMBERS)
    check_destination(output, "depth", allowed, options.overwrite)
    if options.frame_rate is not None and not source.is_dir():
        raise InputError(f"--frame-rate is for a folder of images: {source} is a file")
    if not options.focal > 0:
        raise InputError(f"focal length is {options.focal}: must be above 0, in picture widths")
    colour_table(options.colours)  # This refuses an unknown name.


def _write_still(
    output: Path, image: np.ndarray, framing: Framing, engine: Engine, table: np.ndarray, options: DepthOptions
) -> None:  # fmt: skip
    picture = crop(image, framing, engine.size)
    disparity = engine.disparity([picture])[0]
    suffix = output.suffix.lower()
    if suffix == _CLOUD:
        points = point_cloud(disparity, engine.depth_range, options.focal)
        write_ply(output, points, picture.reshape(-1, 3), options.overwrite)
    elif suffix == _MESH:
        write_glb(output, depth_mesh(disparity, engine.depth_range, options.focal), picture, options.overwrite)
    elif suffix == _NUMBERS:
        square = {"framing": np.array(framing.bounds), "framing_angle": np.array(framing.angle)}
        arrays = {"disparity": disparity, **square, **_facts(image.shape[1], image.shape[0], engine)}
        with atomic_output(output, options.overwrite) as temporary:
            np.savez(temporary, **arrays)
    else:
        write_image(output, colourise(disparity, *robust_range(disparity), table), options.overwrite)


def _write_numbers(output: Path, reader: VideoReader, view: View, engine: Engine, options: DepthOptions, progress: Progress) -> int:
    times: list[float] = []
    framings: list[tuple[float, float, float, float, float]] = []
    with map_archive(output, options.overwrite) as archive:
        for frames, maps in _measured(reader, view, engine, progress):
            archive.add(maps)
            times += [float(frame.time) for frame in frames]
            squares = [square_of(frame, view) for frame in frames]
            framings += [(*square.bounds, square.angle) for square in squares]
        placed = np.array(framings).reshape(-1, 5)
        facts = {"framing": placed[:, :4], "framing_angle": placed[:, 4], **_facts(reader.width, reader.height, engine)}
        archive.notes |= {"times": np.array(times)} | facts
    return len(times)


def _write_colours(
    output: Path,
    reader: VideoReader,
    view: View,
    engine: Engine,
    table: np.ndarray,
    options: DepthOptions,
    progress: Progress,
    warn: Warn,
) -> int:
    low, high = _range_of(reader, view, engine, progress)
    with VideoWriter(
        output,
        engine.size,
        engine.size,
        rate=reader.rate,
        time_base=reader.time_base,
        audio_from=reader.path if reader.has_audio else None,
        overwrite=options.overwrite,
        warn=warn,
    ) as writer:
        for frames, maps in _measured(reader, view, engine, progress):
            for frame, disparity in zip(frames, maps, strict=True):
                writer.write(colourise(disparity, low, high, table), frame.time, frame.duration)
    return writer.frames_written


def _measured(reader: VideoReader, view: View, engine: Engine, progress: Progress) -> Iterator[tuple[list[Frame], np.ndarray]]:
    """Yields frames with their disparity maps, a batch at a time."""
    pictures = counted(read_ahead(reader, view, engine.size), progress, MEASURE, reader.frame_count)

    def measure(batch: list[tuple[Frame, np.ndarray]]) -> tuple[list[Frame], np.ndarray]:
        return [frame for frame, _ in batch], engine.disparity([picture for _, picture in batch])

    with closing(on_workers(engine.workers, measure, batched(pictures, engine.batch_size))) as measured:
        yield from measured


def _range_of(reader: VideoReader, view: View, engine: Engine, progress: Progress) -> tuple[float, float]:
    """Finds one range for the whole video from frames spread over it, because colours that change would look like motion."""
    step = max(1, reader.frame_count // _RANGE_SAMPLES)
    sampled = (crop(frame.image, square_of(frame, view), engine.size) for frame in reader.frames(step))
    pictures = counted(sampled, progress, RANGE, -(-reader.frame_count // step))
        # Every fourth row and column suffices: the range stays the same, and memory is saved.
    maps = [engine.disparity(batch)[:, ::4, ::4] for batch in batched(pictures, engine.batch_size)]
    if not maps:
        raise InputError(f"{reader.path}: no frame could be read: give another file")
    return robust_range(np.concatenate(maps))


def _facts(width: int, height: int, engine: Engine) -> dict[str, np.ndarray]:
    return {"picture_size": np.array([width, height]), "depth_range": np.array(engine.depth_range)}
