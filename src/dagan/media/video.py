"""Reads moving pictures: `open_video` opens a file, an animated picture or a folder of images, `camera_pictures` a camera.

Frames of a video file come through PyAV, with exact times and rotation applied. A file that is cut off is reported as such. `VideoWriter`
(in `writer`) writes videos.

A camera of this machine is read through FFmpeg's devices; a video file can take a camera's place. A camera is never waited for with old
pictures: whoever takes them gets the newest. A file is then shown at its own pace, as a camera would show it, and ends.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dagan.errors import InputError
from dagan.media import container as files
from dagan.media.animations import AnimationReader
from dagan.media.clock import LONGEST_PAUSE, Clock, clock_may_jump
from dagan.media.container import Frame, VideoReader
from dagan.media.images import IMAGE_SUFFIXES, image_files, is_animation, is_photo, read_image, shrunk
from dagan.media.screen import Place, Screen, deinterlaced
from dagan.media.writer import VideoWriter

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


class FileReader(VideoReader):
    """Reads the frames of a video file. Raises InputError when it is missing, no video, or has no frame that can be decoded.

    `threads` says whether the decoder may use several; it should not where many files are read at the same time.
    """

    def __init__(self, path: Path, threads: bool = True) -> None:
        super().__init__()
        self.path = path
        self._threads = threads
        with files.open_container(path) as container:
            stream = files.video_stream(container, path)
            first = files.first_frame(container, stream, path)
            self._stream_index = stream.index
            self._screen = Screen(first, stream, container)
            self.width, self.height = self._screen.width, self._screen.height
            self.rotation = self._screen.degrees
            self.start = files.frame_time(first, stream) or Fraction(0)
            self.time_base = Fraction(first.time_base or stream.time_base or Fraction(1, 90_000))
            self.has_audio = bool(container.streams.audio)
            self.rate = files.frame_rate(stream, path)
            self._header_frames = stream.frames
            self._counts_all = "mov" not in container.format.name.split(",")  # MOV and MP4 also count frames that edits cut away.
            self._video_end, self._file_end = _header_ends(stream, container)
            may_jump = clock_may_jump(container)
        count, length = self._header_frames, None if self._file_end is None else self._file_end - self.start
        # A recording that was never finished has no length in its header. One whose clock jumps has a wrong length.
        if length is None or may_jump or length > LONGEST_PAUSE:
            packets, last, joints = files.packet_span(path)
            if length is None or joints:
                count, length = packets, last - self.start
                measured = packets / max(length, self.time_base)
                if not 0.8 < measured / self.rate < 1.25:  # The header's average counts the jumps as time.
                    self.rate = measured.limit_denominator(1001) or self.rate  # Damaged clocks make it next to nothing.
        self.duration = max(length, 1 / self.rate)
        self.frame_count = count or max(1, round(self.duration * self.rate))

    def _read(self, step: int, max_side: int | None) -> Generator[Frame]:
        """Yields frames. Each is held back until the next one's time is known, which gives its duration."""
        held: tuple[np.ndarray | None, Fraction, int, Place | None] | None = None
        duration = 1 / self.rate
        with closing(self._decode()) as decoded:
            for index, (frame, (time, stream)) in enumerate(deinterlaced(decoded)):
                if held is not None and held[0] is not None:
                    yield Frame(held[0], held[1], held[2], time - held[1], held[3])
                image, place = self._screen.picture(frame, stream, max_side) if index % step == 0 else (None, None)
                held = (image, time, index, place)
                duration = frame.duration * self.time_base if frame.duration else 1 / self.rate
        if held is not None and held[0] is not None:
            left = None if self._video_end is None or self._shifted else self._video_end - self.start - held[1]
            if left is not None and left > 0 and not self.truncated:
                duration = left
            yield Frame(held[0], held[1], held[2], duration, held[3])

    def _decode(self) -> Generator[tuple[VideoFrame, tuple[Fraction, VideoStream]]]:
        """Yields all frames that can be decoded, with strictly increasing times from 0 on, and counts what goes wrong."""
        import av

        self.frames_read, self.truncated, self.damaged = 0, False, 0
        self._failed, self._shifted, self._seen_to = False, False, self.start
        previous = Fraction(0)
        with files.open_container(self.path) as container:
            stream = container.streams[self._stream_index]
            assert isinstance(stream, av.VideoStream)
            stream.thread_type = "AUTO" if self._threads else "NONE"
            for packet in self._packets(container, stream):
                for frame in self._decode_packet(stream, packet):
                    stamp = files.frame_time(frame, stream)
                    time = previous + 1 / self.rate if stamp is None else stamp - self.start
                    if self.frames_read == 0:
                        time = Fraction(0)
                    elif time <= previous:  # The clock is broken, but at least the order is kept.
                        time = previous + self.time_base
                    previous = time
                    self._seen_to = max(self._seen_to, self.start + time + (frame.duration or 0) * self.time_base)
                    self.frames_read += 1
                    yield frame, (time, stream)
        self.truncated = self._failed or self._is_short()

    def _packets(self, container: InputContainer, stream: VideoStream) -> Iterator[Packet | None]:
        """Yields the packets of the video stream on a clock without jumps. The last ones are empty: they flush the decoder.

        After a read error an empty packet comes too. Where only the file as a whole has a length, its sound helps to tell whether the
        end was reached.
        """
        import av

        clock = Clock(container, stream, files.sound_stream(container))
        try:
            for packet in clock.packets():
                self._shifted = clock.joints > 0
                if packet.stream is stream:
                    yield packet
                elif packet.pts is not None and self._video_end is None:
                    self._seen_to = max(self._seen_to, (packet.pts + (packet.duration or 0)) * packet.time_base)
        except av.FFmpegError:
            self._failed = True
            yield None

    def _decode_packet(self, stream: VideoStream, packet: Packet | None) -> list[VideoFrame]:
        import av

        try:
            return stream.decode(packet)
        except av.EOFError:  # The decoder was flushed twice.
            return []
        except (av.FFmpegError, ValueError):
            self.damaged += 1
            return []

    def _is_short(self) -> bool:
        """Says whether the header promised more than was found. Headers may round. They know nothing of jumps of the clock."""
        if self._shifted:
            return False
        if self._header_frames and self.frames_read >= self._header_frames:
            return False
        if self._counts_all and self._header_frames and self.frames_read < self._header_frames - 2:
            return True
        if self._video_end is not None:
            return self._seen_to < self._video_end - max(3 / self.rate, Fraction(1, 4))
        return self._file_end is not None and self._seen_to < self._file_end - max(3 / self.rate, Fraction(1, 2))


def _header_ends(stream: VideoStream, container: InputContainer) -> tuple[Fraction | None, Fraction | None]:
    """Returns the ends of the video stream and of the file in the file's clock, as its header says; None where it does not say."""
    if stream.duration and stream.time_base:
        video_end = ((stream.start_time or 0) + stream.duration) * Fraction(stream.time_base)
        return video_end, video_end
    if container.duration:
        file_end = Fraction((container.start_time or 0) + container.duration, 1_000_000)
        return None if container.streams.audio else file_end, file_end
    return None, None


class FolderReader(VideoReader):
    """Reads the images of a folder in natural order, or one image. Raises InputError when there are none, or when sizes differ."""

    def __init__(self, folder: Path, rate: Fraction) -> None:
        super().__init__()
        self.path = folder
        self._files = image_files(folder) if folder.is_dir() else [folder]
        if not self._files:
            raise InputError(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)}): give a video file or a folder of images")
        if rate <= 0:
            raise InputError(f"the frame rate {rate} for {folder} must be above 0")
        self.rate = rate
        self.time_base = 1 / rate
        self.frame_count = len(self._files)
        self.duration = self.frame_count / rate
        self.height, self.width = read_image(self._files[0]).shape[:2]

    def _read(self, step: int, max_side: int | None) -> Generator[Frame]:
        self.frames_read = 0
        for index, file in enumerate(self._files):
            self.frames_read = index + 1
            if index % step:
                continue
            image = read_image(file)
            if image.shape[:2] != (self.height, self.width):
                raise InputError(
                    f"{file} is {image.shape[1]} x {image.shape[0]} pixels, the first image of its folder {self.width} x {self.height}: "
                    "give all images of a video the same size"
                )
            yield Frame(shrunk(image, max_side), index / self.rate, index, 1 / self.rate)


__all__ = ["Frame", "VideoReader", "VideoWriter", "open_video"]


def open_video(path: Path | str, rate: Fraction | int = 25, threads: bool = True) -> VideoReader:
    """Opens a video file, an animated picture, or a folder of images. A folder is a video of `rate` frames a second.

    A file is opened as what it holds, whatever its name says. A photo is a video of one frame. `threads` says whether a decoder may use
    several. Raises InputError when the path is missing, empty, no video, cut off before its first frame, or a folder without images.
    """
    path = Path(path)
    if is_animation(path):
        return AnimationReader(path)
    return FolderReader(path, Fraction(rate)) if path.is_dir() or is_photo(path) else FileReader(path, threads)


# FFmpeg's name for the cameras of a platform, and how it names the camera of a number there; on Windows cameras have names alone.
_DEVICES = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}:none"), "win32": ("dshow", None)}


def camera_pictures(camera: str, width: int = 640, height: int = 480) -> Generator[np.ndarray]:
    """Opens a camera and yields its pictures, H x W x 3 uint8, as they come, until it ends.

    `camera` is a number, counted from 0, a device's name, or a video file. `width` and `height` are asked of a camera, which may choose
    others. Raises InputError, before the first picture is asked for, when there is no such camera or file, or when it cannot be opened.
    """
    path = Path(camera)
    return _paced(open_video(path)) if path.exists() and not path.is_char_device() else _decoded(_open(camera, width, height))


def _paced(reader: VideoReader) -> Generator[np.ndarray]:
    began = time.monotonic()
    with reader:
        for frame in reader:
            time.sleep(max(0.0, float(frame.time) - (time.monotonic() - began)))
            yield frame.image


def _open(camera: str, width: int, height: int) -> InputContainer:
    import av

    if sys.platform not in _DEVICES:
        raise InputError(f"cameras are not read on {sys.platform}: give a video file with --camera")
    kind, numbered = _DEVICES[sys.platform]
    name = camera
    if re.fullmatch(r"\d+", camera):
        if numbered is None:
            raise InputError(f"camera {camera}: on Windows give the camera's own name, such as --camera 'Integrated Camera'")
        name = numbered.format(camera)
    elif kind == "dshow":
        name = f"video={camera}"
    problem: Exception | None = None
    # Some cameras have no pictures of that size, or of that rate.
    for options in ({"framerate": "30", "video_size": f"{width}x{height}"}, {"framerate": "30"}, {}):
        try:
            return av.open(name, format=kind, options=options)
        except (av.FFmpegError, ValueError, OSError) as error:
            problem = error
    reason = getattr(problem, "strerror", None) or type(problem).__name__
    raise InputError(f"camera {camera} cannot be opened ({reason}): give another with --camera, or a video file")


def _decoded(container: InputContainer) -> Generator[np.ndarray]:
    import av

    with closing(container), suppress(av.EOFError):
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")
