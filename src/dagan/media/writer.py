"""Writes a video file frame by frame, with exact times, the driving video's sound and unchanged colours. It is written whole or not.

Encoders in graphics cards and processors are used where they are asked for and where one really opens, because only opening shows that a
driver or a card is missing. They leave the processor free, and take more bytes for the same quality than libx264 does.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from dagan.errors import InputError
from dagan.media.animations import ANIMATIONS, FINEST_CLOCK, GifPalette, Pace, set_last_delay
from dagan.media.colour import from_rgb, tag_stream
from dagan.media.container import open_container, start_time
from dagan.media.output import atomic_output
from dagan.media.provenance import Provenance, container_tags, stamp
from dagan.media.sound import SoundTrack
from dagan.media.sound_check import SOUND_SUFFIXES, check_sound
from dagan.progress import Warn, to_stderr

HARDWARE = "hardware"  # This is given in place of an encoder's name.
SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")


@dataclass(frozen=True)
class HardwareEncoder:
    """An encoder in a graphics card or a processor."""

    name: str
    """FFmpeg's name of it."""
    pixel_format: str = "yuv420p"
    """The pixel format that it takes."""
    options: dict[str, str] = field(default_factory=dict)
    """Its options for a constant quality, about that of libx264 at crf 18."""


ENCODERS = (
    HardwareEncoder("h264_nvenc", options={"preset": "p5", "rc": "vbr", "cq": "19", "b": "0"}),
    # FFmpeg's unit of quality is 118 times as fine as the encoder's, in which 65 of 100 is asked for.
    HardwareEncoder("h264_videotoolbox", options={"flags": "+qscale", "global_quality": str(65 * 118)}),
    HardwareEncoder("h264_qsv", "nv12", {"global_quality": "18"}),
    HardwareEncoder("h264_amf", "nv12", {"rc": "cqp", "qp_i": "18", "qp_p": "20"}),
)


def find_hardware_encoder(width: int, height: int) -> HardwareEncoder | None:
    """Returns the first of `ENCODERS` that opens on this machine for pictures of that size; None where none does."""
    return next((encoder for encoder in ENCODERS if _opens(encoder, width, height)), None)


def _opens(encoder: HardwareEncoder, width: int, height: int) -> bool:
    import av

    try:
        context = av.CodecContext.create(encoder.name, "w")
        assert isinstance(context, av.VideoCodecContext)
        context.width, context.height, context.pix_fmt = width, height, encoder.pixel_format
        context.time_base = Fraction(1, 25)
        context.options = encoder.options
        context.open()
    except (av.FFmpegError, ValueError):
        return False
    return True


if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame

_CODECS = {
    ".mp4": ("libx264", "h264_videotoolbox", "mpeg4"),
    ".m4v": ("libx264", "h264_videotoolbox", "mpeg4"),
    ".mov": ("libx264", "h264_videotoolbox", "mpeg4"),
    ".mkv": ("libx264", "h264_videotoolbox", "mpeg4"),
    ".webm": ("libvpx-vp9", "libvpx"),
    ".gif": ("gif",),
    ".webp": ("libwebp",),
    ".png": ("apng",),
    ".apng": ("apng",),
}
VIDEO_SUFFIXES = tuple(_CODECS)
# Encoders and pixel formats of videos that are transparent in places. Animated pictures have the same encoders as else.
_ALPHA = {".webm": ("libvpx-vp9", "yuva420p"), ".mov": ("prores_ks", "yuva444p10le")}
ALPHA_SUFFIXES = (*_ALPHA, *ANIMATIONS)
_CRF = {"libx264": 18, "libx265": 20, "libvpx-vp9": 24, "libvpx": 10, "libsvtav1": 24}
_OPTIONS = {
    "libx264": {"preset": "medium"},
    "libvpx-vp9": {"deadline": "good", "cpu-used": "4", "row-mt": "1"},
    "libvpx": {"deadline": "good", "cpu-used": "4"},
    "mpeg4": {"qscale": "3"},
    "libwebp": {"quality": "90"},
    # Each frame has a palette of its own, so the same numbers are other colours in the frame before and must not be reused.
    "gif": {"gifflags": "-offsetting-transdiff"},
}
_COARSEST_CLOCK = 10_000  # Ticks a second. A clock made from a frame rate is made at least as fine, so that uneven times fit too.
_FINEST_CLOCK = 1_000_000  # MP4 counts in 32 bits how long a frame is shown: with finer ticks, minutes would not fit.
_MPEG4_TICKS = 65_535  # The codec mpeg4 cannot count finer.


class VideoWriter:
    """Writes H x W x 3 uint8 RGB frames, or x 4 RGBA ones, to `path`, whose suffix gives the format.

    It is a context manager. Leaving it with an exception (Ctrl-C too) leaves no file behind.

    Args:
        width, height: These are the frames' sides. An odd last row or column is doubled, because the pixel format pairs them.
        rate: This is the average number of frames a second.
        time_base: This is the clock tick for times of frames; the driving video's keeps them exact. WebM, MKV and WebP round times to
            1/1000 s and GIF to 1/100 s. An animated picture (GIF, WebP, PNG) lacks the frames that would be shown too briefly for its
            format (see `dagan.media.animations`).
        audio_from: The sound of this file, if it has any, goes along, from `audio_start` seconds after its first frame on, until the
            last frame's end.
        codec, crf: These are encoder and quality (lower is better) instead of the format's. The codec "hardware" is one of the machine's
            where it has one.
        threads: The encoder has so many; None leaves it to the encoder. With one, the same frames give the same bytes on every machine.
        alpha: Frames have a fourth channel, which says how opaque they are. `ALPHA_SUFFIXES` can hold that.
        provenance: The file says so by what it was made, in every way that its format has.
        warn: It is told where there is no hardware encoder, and of sound that a format cannot hold.

    Raises InputError for a suffix or a codec that cannot be written, for a file that exists (unless `overwrite` is set), for a full disk,
    and when no frame was written.
    """

    def __init__(
        self,
        path: Path | str,
        width: int,
        height: int,
        *,
        rate: Fraction | int = 25,
        time_base: Fraction | None = None,
        audio_from: Path | str | None = None,
        audio_start: Fraction | int = 0,
        overwrite: bool = False,
        codec: str | None = None,
        crf: int | None = None,
        pix_fmt: str = "yuv420p",
        threads: int | None = None,
        alpha: bool = False,
        provenance: Provenance | None = None,
        warn: Warn = to_stderr,
    ) -> None:
        self.path = Path(path)
        self._suffix = self.path.suffix.lower()
        if self._suffix not in _CODECS:
            raise InputError(f"{path}: the suffix {self.path.suffix!r} is none of the video formats {', '.join(VIDEO_SUFFIXES)}")
        self.width, self.height = width, height
        self._rate = Fraction(rate).limit_denominator(100_000)
        self._warn = warn
        self._channels = 4 if alpha else 3
        if alpha:
            if self._suffix not in ALPHA_SUFFIXES or codec is not None:
                kept = "" if codec is None else ", and leave the choice of an encoder out"
                raise InputError(f"{path}: a transparent video is written to {' or '.join(ALPHA_SUFFIXES)}{kept}")
            codec, pix_fmt = _ALPHA.get(self._suffix, (None, pix_fmt))
        self._hardware: HardwareEncoder | None = None
        if codec == HARDWARE and self._suffix in SUFFIXES:
            self._hardware = find_hardware_encoder(width + width % 2, height + height % 2)
        if self._hardware is not None:
            self._codec, pix_fmt = self._hardware.name, self._hardware.pixel_format
        else:
            self._codec = self._pick_codec(None if codec == HARDWARE else codec)
            if codec == HARDWARE:
                warn(f"no hardware encoder for {self._suffix} files opens here: {self._codec} is used")
        self._crf = _CRF.get(self._codec) if crf is None else crf
        self._animation = ANIMATIONS.get(self._suffix)
        self._time_base = self._clock(time_base)
        self._audio_from = Path(audio_from) if audio_from is not None else None
        self._audio_start = Fraction(audio_start)
        self._threads = threads
        self._overwrite = overwrite
        self._provenance = provenance
        self._palette = GifPalette() if self._suffix == ".gif" else None
        self._pace: Pace | None = None
        if self._animation is not None:
            self._pace = Pace(ceil(self._animation.shortest / self._time_base), self._animation.longest)
            pix_fmt = "rgba" if alpha and self._animation.pixel_format == "rgb24" else self._animation.pixel_format
        self._frame_format = pix_fmt
        self._pix_fmt = "pal8" if self._palette else pix_fmt
        self._padding = _padding(width, height, self._pix_fmt)
        self._sound: SoundTrack | None = None
        self._held: Packet | None = None
        self._first_dts = 0
        self._first_pts = 0
        self._last_pts = -1  # This is the time of the last frame that was given.
        self._last_shown = -1  # This is the time of the last frame that was not left out.
        self._end = Fraction(0)
        self.frames_written = 0

    def __enter__(self) -> Self:
        import av

        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_output(self.path, self._overwrite))
            options = {"movflags": "+faststart"} if self._suffix in (".mp4", ".m4v", ".mov") else {}
            name = None
            if self._animation is not None:
                name, options = self._animation.name, self._animation.options
            self._temporary = temporary
            self._output = av.open(f"file:{temporary}", "w", format=name, options=options)
            stack.callback(self._close_quietly)
            if self._provenance is not None and self._animation is None:
                self._output.metadata.update(container_tags(self._provenance))
            self._open_video()
            self._open_sound(stack)
            self._stack = stack.pop_all()
        return self

    def write(self, image: np.ndarray, time: Fraction, duration: Fraction | None = None) -> None:
        """Adds a frame that is shown from `time` seconds on. `duration` (1 / rate where it is None) counts for the last frame only.

        Times must increase. Two that fall on one tick of a video's clock are put one tick apart.
        """
        if image.shape != (self.height, self.width, self._channels) or image.dtype != np.uint8:
            raise ValueError(f"a frame of this video is uint8 {(self.height, self.width, self._channels)}, got {image.dtype} {image.shape}")
        pts = round(time / self._time_base)
        if self._pace is None:
            pts = max(pts, self._last_pts + 1)
        self._last_pts = pts
        self._end = pts * self._time_base + (duration or 1 / self._rate)
        self.frames_written += 1
        for shown in self._pace.add(image, pts) if self._pace else ((image, pts),):
            self._show(*shown)
        if self._sound is not None:
            self._sound.feed(time)

    def _show(self, image: np.ndarray, pts: int) -> None:
        frame = from_rgb(np.pad(image, self._padding, mode="edge") if np.any(self._padding) else image, self._frame_format)
        frame.pts, frame.time_base = pts, self._time_base
        self._first_pts = pts if self._last_shown < 0 else self._first_pts
        self._last_shown = pts
        for ready in self._palette.reduce(frame) if self._palette else (frame,):
            self._encode(ready)

    @property
    def has_sound(self) -> bool:
        """Whether sound was written so far. It is certain only after the end."""
        return self._sound is not None and self._sound.written > 0

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            self._finish()

    def _finish(self) -> None:
        if self.frames_written == 0:
            raise InputError(f"{self.path} is not written: there was no frame to write")
        for shown in self._pace.finish(round(self._end / self._time_base)) if self._pace else ():
            self._show(*shown)
        for ready in self._palette.reduce(None) if self._palette else ():
            self._encode(ready)
        self._encode(None)
        if self._held is not None:
            self._mux(self._with_end(self._held, stored_last=True))
        if self._sound is not None:
            self._sound.feed(self._end)
        self._output.close()
        if self._animation is not None and self._animation.name == "apng":
            set_last_delay(self._temporary, max(self._end - self._last_shown * self._time_base, self._animation.shortest))
        if self._provenance is not None:
            stamp(self._temporary, self._provenance)

    def _encode(self, frame: VideoFrame | None) -> None:
        """Encodes a frame, or what is left for None, and writes what comes out. The latest packet is held back."""
        import av

        try:
            packets = self._stream.encode(frame)
        except av.FFmpegError as error:
            if isinstance(error, OSError) and self.frames_written > 1:  # The first frame opens the encoder, which may lack its device.
                raise
            size = f"{self.width} x {self.height}"
            raise InputError(f"{self.path}: the encoder {self._codec} refuses {size} frames ({error.strerror})") from error
        for packet in packets:
            if self._held is None:
                self._first_dts = packet.dts or 0
            else:
                self._mux(self._with_end(self._held))
            self._held = packet

    def _mux(self, packet: Packet) -> None:
        """Writes a packet. Raises InputError for times that this kind of file cannot hold."""
        import av

        try:
            self._output.mux_one(packet)
        except av.FFmpegError as error:
            if isinstance(error, OSError):  # The disk is full, for example.
                raise
            raise InputError(
                f"{self.path} is not written, because {self._suffix} files cannot hold a frame at its time: the clock of the driving "
                "video may be damaged, so give another"
            ) from error

    def _with_end(self, packet: Packet, stored_last: bool = False) -> Packet:
        """Returns the packet. If the video's end depends on it, its duration is set such that the video ends in time.

        Formats take the end from two packets, the picture shown last and the one stored last, which may differ.
        """
        end = round(self._end / self._time_base)
        if packet.pts == self._last_shown:
            packet.duration = max(1 if self._pace is None else self._pace.shortest, end - self._last_shown)
        elif stored_last and packet.pts is not None and packet.dts is not None:
            stored = packet.dts - self._first_dts
            packet.duration = max(1, min(end - self._first_pts - stored, end - packet.pts))
        return packet

    def _open_video(self) -> None:
        import av

        options = dict(_OPTIONS.get(self._codec, {}) if self._hardware is None else self._hardware.options)
        if self._crf is not None:
            options["crf"] = str(self._crf)
        if self._threads == 1 and self._codec == "libx264":
            options["mbtree"] = "0"  # Where a processor has AVX-512, this part of x264 gives other bytes now and then.
        try:
            stream = self._output.add_stream(self._codec, rate=self._rate, options=options)
        except ValueError as error:
            raise InputError(f"{self.path}: {self._suffix} files cannot hold {self._codec} ({error})") from error
        assert isinstance(stream, av.VideoStream)
        columns, rows = (self._padding[1][1], self._padding[0][1])
        stream.width, stream.height = self.width + columns, self.height + rows
        stream.pix_fmt = self._pix_fmt
        stream.codec_context.time_base = stream.time_base = self._time_base
        if self._animation is None:
            tag_stream(stream.codec_context)
        if self._threads is not None:
            stream.codec_context.thread_count = self._threads
        if self._codec.startswith("libvpx"):
            stream.codec_context.bit_rate = 0  # With this, quality alone decides.
        self._stream = stream

    def _open_sound(self, stack: ExitStack) -> None:
        if self._audio_from is None or self._audio_from.is_dir():
            return
        if self._suffix not in SOUND_SUFFIXES:
            with open_container(self._audio_from) as source:
                if source.streams.audio:
                    self._warn(f"the sound of {self._audio_from} is left out: {self._suffix} files hold none")
            return
        check = check_sound(self._audio_from, self._suffix)
        if check.problem is not None:
            self._warn(f"the sound of {self._audio_from} is left out: {check.problem}")
        elif check.copied or check.encoding is not None:
            origin = start_time(self._audio_from) + self._audio_start
            self._sound = SoundTrack(self._audio_from, self._output, self._suffix, origin, check, self._warn)
            stack.callback(self._sound.close)

    def _close_quietly(self) -> None:
        """Closes the file after a failure. What it holds is thrown away."""
        with suppress(Exception):
            self._output.close()

    def _pick_codec(self, asked: str | None) -> str:
        import av

        for name in (asked,) if asked else _CODECS[self._suffix]:
            with suppress(ValueError, av.FFmpegError):
                codec = av.Codec(name, "w")
                if codec.type == "video":
                    return codec.name
        if asked:
            raise InputError(f"there is no video encoder called {asked!r} here: {', '.join(_CODECS['.mp4'] + _CODECS['.webm'])} are usual")
        raise InputError(f"{self.path}: there is no encoder for {self._suffix} files here: choose another of {', '.join(VIDEO_SUFFIXES)}")

    def _clock(self, time_base: Fraction | None) -> Fraction:
        if self._animation is not None and self._animation.tick is not None:
            return self._animation.tick
        ticks = Fraction(time_base or 1 / self._rate).denominator
        ticks *= -(-_COARSEST_CLOCK // ticks)
        if self._animation is not None:
            return Fraction(1, min(ticks, FINEST_CLOCK))
        return Fraction(1, 60_000 if self._codec == "mpeg4" and ticks > _MPEG4_TICKS else min(ticks, _FINEST_CLOCK))


def _padding(width: int, height: int, pixel_format: str) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Returns the rows and columns to add (for np.pad) such that the pixel format can pair its colours."""
    from av import VideoFormat

    layout = VideoFormat(pixel_format)
    rows = height % 2 if layout.chroma_height(2) == 1 else 0
    columns = width % 2 if layout.chroma_width(2) == 1 else 0
    return (0, rows), (0, columns), (0, 0)
