"""The depth job. It takes a picture, a video or a folder of images and writes colours, numbers, a point cloud or a mesh.

The output's suffix says which. What is estimated is the disparity map of docs/method.md#depth-network: near is large, values are in
(0, 1), in the model's own unit. Videos are streamed, so that memory does not grow with length.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from dagan.depth.outputs import ASSUMED_FOCAL, depth_mesh, map_archive, point_cloud, write_glb, write_ply
from dagan.engine.base import Engine
from dagan.errors import InputError
from dagan.media.colour_maps import DEFAULT_MAP, colour_table, colourise, robust_range
from dagan.media.faces import FaceFinder
from dagan.media.framing import Framing, crop
from dagan.media.images import read_image, write_image
from dagan.media.kinds import IMAGE_SUFFIXES, is_photo
from dagan.media.output import atomic_output, check_destination, check_distinct
from dagan.media.reader import Frame
from dagan.media.video import VideoReader, VideoWriter, open_video
from dagan.media.view import View, read_ahead, square_of, view_still, view_video
from dagan.media.writer import VIDEO_SUFFIXES
from dagan.progress import Progress, Warn, counted, silent, to_stderr
from dagan.stream import batched, on_workers

LOOK, RANGE, MEASURE = "finding the face", "finding the range", "measuring depth"
_NUMBERS, _CLOUD, _MESH = ".npz", ".ply", ".glb"
_RANGE_SAMPLES = 48  # About so many frames decide on the range of a video's colours.


@dataclass(frozen=True, kw_only=True)
class DepthOptions:
    """How to estimate depth."""

    crop: bool = True
    """Whether the face is found; otherwise the middle is taken."""
    colours: str = DEFAULT_MAP
    """The name of the colour map."""
    focal: float = ASSUMED_FOCAL
    """The focal length that is assumed for point clouds and meshes, in picture widths (see `dagan.depth.outputs`)."""
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
