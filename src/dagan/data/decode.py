"""Reads frames of clips as square pictures of one size. Legend: N frames, S side; frames are uint8 N x 3 x S x S, RGB.

Colours and rotation are those of `dagan.media`. Frames that are not square are cut to their middle square.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from dagan.data.clips import Clip, images_of
from dagan.errors import InputError
from dagan.media.colour import to_rgb
from dagan.media.container import frame_turn, open_container, video_stream

# Folders of images and stills carry no time: the frame rate of the usual sets.
IMAGE_RATE = 25.0
Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Probe:
    """What is known of a clip without decoding: frames in all, frames per second, and each frame's presentation time, in
    the stream's unit, in order (None where the file does not say); keys: which of them decoding may start at."""

    count: int
    rate: float
    times: NDArray[np.int64] | None = None
    keys: NDArray[np.bool_] | None = None


def probe(clip: Clip) -> Probe:
    """Counts frames by reading packets only. Raises InputError for a file that is no video."""
    if clip.still:
        return Probe(1, IMAGE_RATE)
    if clip.path.is_dir():
        return Probe(len(images_of(clip.path)), IMAGE_RATE)
    with open_container(clip.path) as container:
        stream = _stream(container, clip.path)
        try:
            packets = [(p.pts, p.is_keyframe) for p in container.demux(stream) if p.size and not p.is_discard]
        except av.FFmpegError as error:
            raise InputError(f"{clip.path} is damaged ({error}): remove it from the data folder, or replace it") from None
        rate = float(stream.average_rate or IMAGE_RATE)
    if not packets:
        raise InputError(f"{clip.path} holds no frames: remove it from the data folder, or replace it")
    known = sorted((time, key) for time, key in packets if time is not None)
    if len(known) < len(packets):
        return Probe(len(packets), rate)
    times, keys = zip(*known, strict=True)
    return Probe(len(times), rate, np.asarray(times, np.int64), np.asarray(keys, bool))


def read_clip(clip: Clip, size: int) -> Frames:
    """Every frame of a clip. Raises InputError for files that cannot be decoded."""
    frames = list(_images(clip, size) if clip.still or clip.path.is_dir() else _video(clip.path, size))
    if not frames:
        raise InputError(f"{clip.path} holds no frames: remove it from the data folder, or replace it")
    return np.stack(frames)


class RandomReader:
    """Decodes single frames of many clips, keeping the `limit` last used files open. For one thread."""

    def __init__(self, size: int, limit: int = 32) -> None:
        self.size, self.limit = size, limit
        self._open: OrderedDict[Path, tuple[Any, Any]] = OrderedDict()  # container and stream

    def read(self, clip: Clip, known: Probe, indices: list[int]) -> Frames:
        """The frames of these indices, n x 3 x S x S, in the order asked for."""
        if clip.still:
            return np.stack([_image(clip.path, self.size)] * len(indices))
        if clip.path.is_dir():
            images = images_of(clip.path)
            return np.stack([_image(images[i], self.size) for i in indices])
        if known.times is None or known.keys is None or not known.keys.any():
            raise InputError(f"{clip.path} has no frame times to seek by: convert it to .mp4, or set data.storage to memory")
        try:
            found = self._decode(clip.path, known.times, known.keys, sorted(set(indices)))
        except av.FFmpegError as error:
            raise InputError(f"{clip.path} is damaged ({error}): remove it from the data folder, or replace it") from None
        return np.stack([found[i] for i in indices])

    def _decode(self, path: Path, times: NDArray[np.int64], keys: NDArray[np.bool_], wanted: list[int]) -> dict[int, Frames]:
        container, stream = self._opened(path)
        found: dict[int, Frames] = {}
        starts = np.flatnonzero(keys)
        groups: dict[int, list[int]] = {}
        for i in wanted:
            groups.setdefault(int(np.searchsorted(starts, i, side="right")), []).append(i)
        for group in groups.values():
            container.seek(int(times[group[0]]), stream=stream, backward=True)
            last = int(times[group[-1]])
            for frame in container.decode(stream):
                # Frames between the key frame and the wanted one only serve the decoder: they are not converted.
                i = int(np.searchsorted(times, frame.pts))
                if i in group:
                    found[i] = _square(frame, self.size)
                if frame.pts >= last:
                    break
        missing = [i for i in wanted if i not in found]
        if missing:
            raise InputError(f"{path}: frame {missing[0]} cannot be decoded: remove the file from the data folder, or replace it")
        return found

    def _opened(self, path: Path) -> tuple[Any, Any]:
        if path in self._open:
            self._open.move_to_end(path)
        else:
            container = open_container(path)
            self._open[path] = container, _stream(container, path)
            if len(self._open) > self.limit:
                self._open.popitem(last=False)[1][0].close()
        return self._open[path]


def _stream(container: Any, path: Path) -> Any:
    stream = video_stream(container, path)
    # Many files are decoded at a time: threads inside one decoder would only compete.
    stream.thread_type, stream.thread_count = "NONE", 1
    return stream


def _video(path: Path, size: int) -> Iterator[Frames]:
    with open_container(path) as container:
        try:
            for frame in container.decode(_stream(container, path)):
                yield _square(frame, size)
        except av.FFmpegError as error:
            raise InputError(f"{path} is damaged ({error}): remove it from the data folder, or replace it") from None


def _images(clip: Clip, size: int) -> Iterator[Frames]:
    for path in [clip.path] if clip.still else images_of(clip.path):
        yield _image(path, size)


def _image(path: Path, size: int) -> Frames:
    try:
        with Image.open(path) as image:
            square = ImageOps.fit(ImageOps.exif_transpose(image).convert("RGB"), (size, size), Image.Resampling.BICUBIC)
    except OSError as error:
        raise InputError(f"{path} cannot be read as an image ({error}): remove it from the data folder, or replace it") from None
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def _square(frame: Any, size: int) -> Frames:
    short = min(frame.width, frame.height)
    width, height = round(frame.width * size / short), round(frame.height * size / short)
    picture = to_rgb(frame, width, height)
    x, y = (width - size) // 2, (height - size) // 2
    return np.ascontiguousarray(frame_turn(frame).apply(picture[y : y + size, x : x + size]).transpose(2, 0, 1))
