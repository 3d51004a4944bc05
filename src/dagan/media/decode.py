"""Reads frames of clips as square pictures of one size: from videos and images, and from the small files of which shards consist.

Everything is decoded as for animation, so that the same pixels come out. Frames that are not square are cut to their middle square.

In shards every frame is a small file of its own, which is decoded without any other. Such files are written here too. JPEG is written and
read fastest, WebP takes little more than half of its bytes (the figures are in docs/shards.md). FFmpeg decodes both, because it lets other
threads of the program go on, which Pillow does not.

Legend: N frames, S side; frames are uint8 N x 3 x S x S, RGB.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import av
import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from dagan.errors import InputError
from dagan.media.colour import to_rgb
from dagan.media.container import first_frame, open_container, video_stream
from dagan.media.framing import to_square
from dagan.media.images import Clip, image_files, is_picture, read_image
from dagan.media.screen import Screen, deinterlaced
from dagan.media.video import Frame, open_video

DECODER = 2  # It is raised when the same files give other pixels than before, so that cached frames are decoded again.
IMAGE_RATE = 25.0  # Folders of images and stills have no times. They get this frame rate, which the usual data sets have.
Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Probe:
    """What is known of a clip without decoding it."""

    count: int
    """The number of frames."""
    rate: float
    """Frames per second."""
    times: NDArray[np.int64] | None = None
    """When each frame is shown, in order, in the stream's unit. None where the file does not say, or gives two frames one time."""
    keys: NDArray[np.bool_] | None = None
    """Which frames are key frames, at which decoding may start."""


def probe(clip: Clip) -> Probe:
    """Counts a clip's frames by reading packets only. Raises InputError for a file that is no video."""
    if clip.still:
        return Probe(1, IMAGE_RATE)
    if clip.path.is_dir():
        return Probe(len(image_files(clip.path)), IMAGE_RATE)
    if is_picture(clip.path):
        with open_video(clip.path) as animation:
            return Probe(animation.frame_count, float(animation.rate))
    with open_container(clip.path) as container:
        stream = _stream(container, clip.path)
        try:
            packets = [(p.pts, p.is_keyframe, p.dts) for p in container.demux(stream) if p.size and not p.is_discard]
        except av.FFmpegError as error:
            raise InputError(f"{clip.path} is damaged ({error}): remove it from the data folder, or replace it") from None
        # Both are read while the container is open. PyAV reads freed memory otherwise.
        rate, unit = float(stream.average_rate or IMAGE_RATE), float(stream.time_base)
    if not packets:
        raise InputError(f"{clip.path} holds no frames: remove it from the data folder, or replace it")
    known = sorted((time, key) for time, key, _ in packets if time is not None)
    if len(known) < len(packets) or _starts_again([time for _, _, time in packets if time is not None], unit):
        return Probe(len(packets), rate)
    times, keys = zip(*known, strict=True)
    if len(set(times)) < len(times):
        return Probe(len(packets), rate)
    return Probe(len(times), rate, np.asarray(times, np.int64), np.asarray(keys, bool))


def _starts_again(times: list[int], unit: float) -> bool:
    """Says whether the clock of a joined recording jumps back. Some encoders start with a delay, so that a small step back is none."""
    return any((earlier - later) * unit > 0.4 for earlier, later in pairwise(times))


def read_clip(clip: Clip, size: int) -> Frames:
    """Reads every frame of a clip. Raises InputError for files that cannot be decoded."""
    frames = list(_images(clip, size) if clip.still or clip.path.is_dir() else _video(clip.path, size))
    if not frames:
        raise InputError(f"{clip.path} holds no frames: remove it from the data folder, or replace it")
    return np.stack(frames)


@dataclass(frozen=True)
class _Opened:
    """A video file that is kept open."""

    container: Any
    stream: Any
    screen: Screen
    interlaced: bool
    """Whether its frames are interlaced, so that decoding one needs its neighbours."""


class RandomReader:
    """Decodes single frames of many clips and keeps the `limit` last used files open. It serves one thread."""

    def __init__(self, size: int, limit: int = 32) -> None:
        self.size, self.limit = size, limit
        self._open: OrderedDict[Path, _Opened] = OrderedDict()

    def read(self, clip: Clip, known: Probe, indices: list[int]) -> Frames:
        """Returns the frames with these indices, n x 3 x S x S, in the order in which they were asked for."""
        if clip.still:
            return np.stack([_image(clip.path, self.size)] * len(indices))
        if clip.path.is_dir():
            images = image_files(clip.path)
            return np.stack([_image(images[i], self.size) for i in indices])
        if known.times is None or known.keys is None or not known.keys.any():  # Without times and key frames one cannot seek.
            return np.stack(list(_video(clip.path, self.size)))[indices]
        try:
            found = self._decode(clip.path, known.times, known.keys, sorted(set(indices)))
        except av.FFmpegError as error:
            raise InputError(f"{clip.path} is damaged ({error}): remove it from the data folder, or replace it") from None
        return np.stack([found[i] for i in indices])

    def _decode(self, path: Path, times: NDArray[np.int64], keys: NDArray[np.bool_], wanted: list[int]) -> dict[int, Frames]:
        opened = self._opened(path)
        found: dict[int, Frames] = {}
        starts = np.flatnonzero(keys)
        groups: dict[int, list[int]] = {}
        for i in wanted:
            groups.setdefault(int(np.searchsorted(starts, i, side="right")), []).append(i)
        for group in groups.values():
            first = max(0, group[0] - 1) if opened.interlaced else group[0]
            opened.container.seek(int(times[first]), stream=opened.stream, backward=True)
            last = int(times[group[-1]])
            for frame, pts in deinterlaced((frame, frame.pts) for frame in opened.container.decode(opened.stream)):
                # Frames between the key frame and the wanted one only serve the decoder, so they are not converted.
                i = int(np.searchsorted(times, pts))
                if i in group:
                    image, place = opened.screen.picture(frame, opened.stream)
                    found[i] = _square(Frame(image, Fraction(0), i, Fraction(0), place).filled, self.size)
                if pts >= last:
                    break
        missing = [i for i in wanted if i not in found]
        if missing:  # Broadcast streams have no index, and seeking in them may land too late.
            found |= {i: picture for i, picture in enumerate(_video(path, self.size)) if i in missing}
            missing = [i for i in wanted if i not in found]
        if missing:
            raise InputError(f"{path}: frame {missing[0]} cannot be decoded: remove the file from the data folder, or replace it")
        return found

    def _opened(self, path: Path) -> _Opened:
        if path in self._open:
            self._open.move_to_end(path)
        else:
            container = open_container(path)
            stream = _stream(container, path)
            first = first_frame(container, stream, path)
            self._open[path] = _Opened(container, stream, Screen(first, stream, container), first.interlaced_frame)
            if len(self._open) > self.limit:
                self._open.popitem(last=False)[1].container.close()
        return self._open[path]


def _stream(container: Any, path: Path) -> Any:
    stream = video_stream(container, path)
    # Many files are decoded at the same time, so threads inside one decoder would only compete.
    stream.thread_type, stream.thread_count = "NONE", 1
    return stream


def _video(path: Path, size: int) -> Iterator[Frames]:
    with open_video(path, threads=False) as video:
        for frame in video:
            yield _square(frame.filled, size)
        if video.damaged:
            raise InputError(f"{path} is damaged ({video.problem()}): remove it from the data folder, or replace it")


def _images(clip: Clip, size: int) -> Iterator[Frames]:
    for path in [clip.path] if clip.still else image_files(clip.path):
        yield _image(path, size)


def _image(path: Path, size: int) -> Frames:
    try:
        return _square(read_image(path), size)
    except InputError as error:
        raise InputError(f"{error}; remove it from the data folder, or replace it") from None


def _square(picture: NDArray[np.uint8], size: int) -> Frames:
    return np.ascontiguousarray(to_square(picture, size).transpose(2, 0, 1))


Encoding = Literal["jpeg", "webp"]
Quality = Annotated[int, Ge(1), Le(100)]
SUFFIXES: dict[Encoding, str] = {"jpeg": "jpg", "webp": "webp"}
# Chroma is kept at full size, because lips and irises are small and coloured.
_SETTINGS: dict[Encoding, dict[str, Any]] = {
    "jpeg": {"format": "JPEG", "subsampling": 0, "optimize": True},
    "webp": {"format": "WEBP", "method": 4},
}


def encode(picture: NDArray[np.uint8], encoding: Encoding, quality: int) -> bytes:
    """Returns a picture, H x W x 3 uint8, as the bytes of an image file."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(picture).save(out, quality=quality, **_SETTINGS[encoding])
    return out.getvalue()


class FrameDecoder:
    """Decodes such files. Threads may share it, because each has decoders of its own."""

    def __init__(self) -> None:
        self._own = threading.local()

    def decode(self, block: bytes, size: int, where: str) -> NDArray[np.uint8]:
        """Returns the picture as uint8 size x size x 3. Raises InputError, which names `where` the bytes are from, for damaged ones."""
        name = "webp" if block[8:12] == b"WEBP" else "mjpeg"
        decoder = self._decoder(name)
        try:
            # A decoder may hold a picture back until it is told that no more bytes come.
            frames = decoder.decode(av.Packet(block)) or decoder.decode(None)
            picture = to_rgb(frames[0], frames[0].width, frames[0].height)
        except (av.FFmpegError, IndexError) as error:
            self._own.decoders.pop(name)
            raise InputError(f"{where} is damaged ({error}): pack the clips again") from None
        if decoder.is_open and name == "webp":
            decoder.flush_buffers()
        return to_square(picture, size)

    def _decoder(self, name: str) -> Any:
        decoders = self._own.__dict__.setdefault("decoders", {})
        if name not in decoders:
            decoders[name] = av.CodecContext.create(name, "r")
            decoders[name].thread_type, decoders[name].thread_count = "NONE", 1
        return decoders[name]
