"""Opens video files safely and finds what is in them, and says what every source of moving pictures offers.

PyAV, which is FFmpeg for Python, decodes. Only local files are ever opened; a play list that points to the network is refused. In a file
are found the stream of moving pictures, its first frame, and how it is turned.

A `VideoReader` offers facts about its source, and the frames one by one, each with its exact time. Readers stream: however long a video
is, only a few frames are in memory. Iterating again starts again at the first frame.
"""

from __future__ import annotations

import abc
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from dagan.checks import require_file
from dagan.errors import InputError
from dagan.media.clock import LONGEST_PAUSE, Clock, demux

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


_DISPLAY_MATRIX = "DISPLAYMATRIX"
_TEXT_FORMATS = {"tty", "bin", "xbin", "adf", "idf"}  # FFmpeg reads text files as pictures of a terminal, under these names.
_FASTEST_RATE = 240  # A higher frame rate in a header is a placeholder; recordings of browsers say 1000.


@dataclass(frozen=True)
class QuarterTurn:
    """How stored pixels are turned for display. They are first transposed, then mirrored left-right, then turned upside down."""

    transpose: bool = False
    mirror: bool = False
    flip: bool = False

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Turns an H x W x 3 image to how it is to be seen. The result is contiguous."""
        if self.transpose:
            image = image.swapaxes(0, 1)
        if self.mirror:
            image = image[:, ::-1]
        if self.flip:
            image = image[::-1]
        return np.ascontiguousarray(image)

    @property
    def degrees(self) -> int:
        """The rotation counter-clockwise: 0, 90, 180 or 270. A mirrored picture is first mirrored left-right and then rotated."""
        if self.transpose:
            return 270 if self.mirror else 90
        return 180 if self.flip else 0


def open_container(path: Path) -> InputContainer:
    """Opens a video or sound file for reading. Raises InputError when it is missing, empty, or nothing that FFmpeg reads."""
    import av

    require_file(path, "video")
    try:
        container = av.open(f"file:{path}", metadata_errors="ignore", options={"protocol_whitelist": "file,crypto,data"})
    except (av.FFmpegError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as a video ({_reason(error)}): the file is no video, or its header is missing or cut off"
        ) from error
    if _TEXT_FORMATS & set(container.format.name.split(",")):
        container.close()
        raise InputError(f"{path} is a text file, not a video")
    return container


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """Returns the best stream of moving pictures. Cover pictures of sound files do not count. Raises InputError when there is none."""
    usable = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not usable:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise InputError(f"{path} has no video stream (it holds {kinds}): give a file with moving pictures")
    best = container.streams.best("video")
    stream = next((s for s in usable if best is not None and s.index == best.index), usable[0])
    if stream.codec_context is None:
        raise InputError(f"{path} is compressed in a way that cannot be decoded here: convert it to H.264")
    stream.thread_type = "AUTO"
    return stream


def has_pictures(container: InputContainer) -> bool:
    """Says whether there is a stream of moving pictures. Cover pictures of sound files do not count."""
    return any(not _is_cover(stream) for stream in container.streams.video)


def first_frame(container: InputContainer, stream: VideoStream, path: Path) -> VideoFrame:
    """Decodes up to the first frame and returns it. Raises InputError when none comes."""
    import av

    failure: Exception | None = None
    packets = demux(container, [stream])
    while True:
        try:
            packet = next(packets)
            frames = stream.decode(packet)
        except StopIteration:
            break
        except (av.FFmpegError, ValueError) as error:
            failure = error
            if not isinstance(error, av.InvalidDataError):
                break
            continue
        if frames:
            return frames[0]
    reason = f" ({_reason(failure)})" if failure else ""
    raise InputError(f"{path}: no frame of its video stream can be decoded{reason}: the file is damaged, cut off or holds no pictures")


def start_time(path: Path) -> Fraction:
    """Returns the time of the first video frame in the file's own clock, in seconds. For a file with only sound it is the sound's."""
    with open_container(path) as container:
        if has_pictures(container):
            stream = video_stream(container, path)
            return frame_time(first_frame(container, stream, path), stream) or Fraction(0)
        return Fraction(container.start_time or 0, 1_000_000)


def frame_time(frame: VideoFrame, stream: VideoStream) -> Fraction | None:
    """Returns the time of a decoded frame in seconds, exactly, on the clock of its file, or None where the frame has no time."""
    if frame.pts is None:
        return None
    return frame.pts * Fraction(frame.time_base or stream.time_base or Fraction(1, 25))


def frame_turn(frame: VideoFrame) -> QuarterTurn:
    """Returns the turn that the display matrix of a frame asks for. Angles between quarter turns are rounded to the nearest."""
    side_data: Any = frame.side_data.get(_DISPLAY_MATRIX)
    if side_data is None:
        return QuarterTurn()
    a, b, _, c, d = (int(v) for v in np.frombuffer(bytes(side_data), dtype=np.int32)[:5])
    # The matrix shows a pixel (x, y) at (a x + c y, b x + d y).
    if abs(b) + abs(c) > abs(a) + abs(d):
        return QuarterTurn(transpose=True, mirror=c < 0, flip=b < 0)
    return QuarterTurn(mirror=a < 0, flip=d < 0)


def frame_rate(stream: VideoStream, path: Path) -> Fraction:
    """Returns the average frames a second that the header says. Without them, or with a placeholder, the first packets are measured."""
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate and 0 < rate <= _FASTEST_RATE:
            return Fraction(rate)
    with open_container(path) as container:
        times: list[Fraction] = []
        for packet in demux(container, [video_stream(container, path)]):
            if packet.pts is not None:
                times.append(packet.pts * packet.time_base)
            if len(times) == 100:
                break
    times.sort()
    if len(times) < 2 or times[-1] == times[0]:
        return Fraction(25)
    return ((len(times) - 1) / (times[-1] - times[0])).limit_denominator(1001)


def packet_span(path: Path) -> tuple[int, Fraction, int]:
    """Returns the number of video packets, the end in seconds of the frame that is shown last, and how often the file's clock jumps.

    All packets of the file are read, and none is decoded. The end is counted on a clock without jumps (`Clock`), on which the parts of a
    joined recording follow each other.
    """
    import av

    count, end = 0, Fraction(0)
    with open_container(path) as container:
        stream = video_stream(container, path)
        clock = Clock(container, stream, sound_stream(container))
        try:
            for packet in clock.packets():
                if packet.stream is stream and packet.pts is not None:
                    count += 1
                    length = (packet.duration or 0) * packet.time_base
                    if length > LONGEST_PAUSE:  # This length reaches up to where the clock jumps to.
                        length = Fraction(0)
                    end = max(end, packet.pts * packet.time_base + length)
        except av.FFmpegError:  # The file is cut off.
            pass
    return count, end, clock.joints


def sound_stream(container: InputContainer) -> AudioStream | None:
    """Returns the stream of sound that goes with the pictures and can be decoded here, or None where there is none."""
    import av

    best = container.streams.best("audio")
    if isinstance(best, av.AudioStream) and best.codec_context is not None:
        return best
    return next((stream for stream in container.streams.audio if stream.codec_context is not None), None)


def _is_cover(stream: VideoStream) -> bool:
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.attached_pic)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a video, and when it is shown."""

    image: np.ndarray
    """H x W x 3 uint8 RGB."""
    time: Fraction
    """Seconds after the first frame, exactly."""
    index: int
    """The number of the frame, from 0."""
    duration: Fraction
    """Seconds until the next frame or the end."""
    place: tuple[int, int, int, int] | None = None
    """Left, top, width and height of the part of the picture that the frame fills; the rest is black. None where it fills all of it.

    A frame whose proportions differ from the first frame's fills a part.
    """

    @property
    def filled(self) -> np.ndarray:
        """The picture without the black beside it."""
        if self.place is None:
            return self.image
        left, top, width, height = self.place
        return self.image[top : top + height, left : left + width]


class VideoReader(abc.ABC):
    """Says what a video is and, by iteration, yields its frames. It is a context manager."""

    path: Path
    """The file or folder that is read."""
    width: int
    """The width of the pictures as seen, after rotation."""
    height: int
    """The height of the pictures as seen, after rotation."""
    rate: Fraction
    """The average number of frames a second."""
    duration: Fraction
    """The length in seconds."""
    frame_count: int
    """The number of frames that the header says; else an estimate from rate and duration."""
    time_base: Fraction
    """The tick of the clock. Times of frames are multiples of it."""
    start: Fraction = Fraction(0)
    """The time of the first frame in the file's own clock."""
    rotation: int = 0
    """Degrees counter-clockwise by which pictures were rotated."""
    has_audio: bool = False
    """Whether the file has sound."""
    frames_read: int = 0
    """The number of frames that the latest pass decoded."""
    truncated: bool = False
    """Whether the latest pass found that the end of the file is missing."""
    damaged: int = 0
    """The number of pieces that the latest pass could not decode."""

    def __init__(self) -> None:
        self._passes: list[Generator[Frame]] = []

    def frames(self, step: int = 1, max_side: int | None = None) -> Iterator[Frame]:
        """Yields every `step`-th frame from the first, with its own time, index and duration.

        `max_side` shrinks pictures to this longer side at little cost, with colours that are good enough for finding faces.
        """
        frames = self._read(step, max_side)
        self._passes.append(frames)
        return frames

    def __iter__(self) -> Iterator[Frame]:
        return self.frames()

    @abc.abstractmethod
    def _read(self, step: int, max_side: int | None) -> Generator[Frame]:
        """Makes one pass over the frames, as `frames` says."""

    def problem(self) -> str | None:
        """Says, as a sentence for the user, what was wrong with the file in the latest complete pass; None when nothing was."""
        if self.truncated:
            return f"{self.path} is cut off: {self.frames_read} of about {self.frame_count} frames could be read"
        if self.damaged:
            return f"{self.path} is damaged: {self.frames_read} frames could be read, {self.damaged} pieces could not"
        return None

    def close(self) -> None:
        """Ends the passes that are still open and closes the file."""
        for frames in self._passes:
            frames.close()
        self._passes.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
