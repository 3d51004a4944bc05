"""Finds out how a video's sound can go into an output: its packets as they are, encoded again, or not at all.

Nothing is taken on trust. The whole sound is decoded once, some hundred times as fast as it plays. Whether the output's format takes it
is tried by writing a little of it into memory and reading that back.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dagan.media.clock import Clock
from dagan.media.container import has_pictures, open_container, sound_stream, video_stream

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet

# Players can be expected to play these codecs in each format (None means any). Sound in other codecs is encoded again.
_PLAYED: dict[str, set[str] | None] = {
    ".mp4": {"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"},
    ".m4v": {"aac", "mp3", "ac3", "eac3", "alac"},
    ".mov": {"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be"},
    ".mkv": None,
    ".webm": {"opus", "vorbis"},
}
SOUND_SUFFIXES = tuple(_PLAYED)
# These encoders are tried in turn, because not every build of FFmpeg has the first.
_ENCODERS = ("aac", "libfdk_aac", "aac_at", "libmp3lame", "ac3")
_WEBM_ENCODERS = ("libopus", "libvorbis")
_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
JITTER = 0.02  # Times may be off by so many seconds, because some formats round them to 1/1000 s.
# PyAV looks for a missing ninth plane where none is stored, so the memory of frames with this many planes must not be read through it.
_MANY_CHANNELS = 8
_TRIAL_PACKETS = 50  # So many packets are written for a trial.
_LOWEST_RATE = 44_100  # Hz. Sound that is encoded again has at least this sampling rate.


@dataclass(frozen=True)
class Encoding:
    """How sound is encoded."""

    codec: str
    """The encoder's name."""
    rate: int
    """The sampling rate in Hz."""
    layout: str
    """The layout of channels."""
    bit_rate: int
    """Bits a second."""


@dataclass(frozen=True)
class SoundCheck:
    """What was found. Nothing is set where there is no sound."""

    copied: bool = False
    """Whether packets can go over as they are."""
    encoding: Encoding | None = None
    """How the sound is encoded otherwise."""
    problem: str | None = None
    """Why neither works."""


def open_sound(path: Path) -> tuple[InputContainer, Clock, AudioStream | None]:
    """Opens a file. Returns it, the clock that reads its packets, and its sound, which is None where there is none to decode."""
    container = open_container(path)
    sound = sound_stream(container)
    return container, Clock(container, video_stream(container, path) if has_pictures(container) else None, sound), sound


def check_sound(path: Path, suffix: str) -> SoundCheck:
    """Looks through the sound of `path` for an output whose name ends in `suffix`, which is one of `SOUND_SUFFIXES`."""
    import av

    container, clock, stream = open_sound(path)
    with container:
        if stream is None:
            return SoundCheck(problem="its kind of compression is not known here" if container.streams.audio else None)
        survey = _Survey(stream)
        try:
            for packet in clock.packets():
                if packet.stream is stream:
                    survey.add(packet)
        except av.FFmpegError:  # The file is cut off, and what came before is all there is.
            pass
        if not survey.kinds:
            return SoundCheck(problem="none of it can be decoded")
        played = _PLAYED[suffix]
        known = played is None or stream.codec_context.codec.canonical_name in played
        if known and survey.steady and not clock.joints and _comes_back(survey, suffix):
            return SoundCheck(copied=True)
    channels = max(channels for _, channels, _ in survey.kinds)
    encoding = find_encoding(suffix, max(rate for rate, _, _ in survey.kinds), channels)
    if encoding is None:
        return SoundCheck(problem=f"this build of FFmpeg has no encoder of sound for {suffix} files")
    return SoundCheck(encoding=encoding)


def find_encoding(suffix: str, rate: int, channels: int) -> Encoding | None:
    """Returns the first encoder that is here and whose sound the format takes. Returns None where no encoder works.

    Its sampling rate is the next one that it has from `rate` Hz up. Rates below 44 100 Hz are raised: at 8000 Hz a packet of AAC lasts
    128 ms, and the sound would end that much after the pictures. More than two channels become stereo.
    """
    layout, bit_rate = ("mono", 96_000) if channels == 1 else ("stereo", 192_000)
    for codec in _WEBM_ENCODERS if suffix == ".webm" else _ENCODERS:
        encoding = Encoding(codec, _nearest_rate(codec, max(rate, _LOWEST_RATE)), layout, bit_rate)
        if _is_taken(encoding, suffix):
            return encoding
    return None


def add_encoder(output: OutputContainer, encoding: Encoding) -> AudioStream:
    """Adds a stream to `output` that encodes as `encoding` says. Raises ValueError or FFmpeg's error where that is impossible."""
    import av

    stream = output.add_stream(encoding.codec, rate=encoding.rate)
    assert isinstance(stream, av.AudioStream)
    stream.codec_context.layout = encoding.layout
    stream.codec_context.bit_rate = encoding.bit_rate
    return stream


class _Survey:
    """Goes through the packets of a stream.

    `kinds` are the (Hz, channels, sample format) of all that was decoded. `steady` says that there is one kind, that nothing is damaged,
    and that every packet has a time and follows the one before. `beginning` and `samples` are the first packets and what they decode to.
    """

    def __init__(self, stream: AudioStream) -> None:
        self.stream = stream
        self.kinds: set[tuple[int, int, str]] = set()
        self.steady = True
        self.beginning: list[Packet] = []
        self.samples: list[np.ndarray] = []
        self._layouts: set[str] = set()
        self._end: float | None = None

    def add(self, packet: Packet) -> None:
        import av

        if packet.size:
            self._follow(packet)
        try:
            frames = self.stream.decode(packet)
        except av.EOFError:
            return
        except (av.FFmpegError, ValueError):
            self.steady = False
            return
        for frame in frames:
            self.kinds.add((frame.sample_rate, frame.layout.nb_channels, frame.format.name))
            self._layouts.add(frame.layout.name)
            if len(self.beginning) < _TRIAL_PACKETS:
                try:
                    self.samples.append(_plain(frame))
                except (av.FFmpegError, ValueError):
                    self.steady = False
        self.steady = self.steady and len(self.kinds) <= 1 and len(self._layouts) <= 1

    def _follow(self, packet: Packet) -> None:
        if packet.pts is None or packet.is_corrupt:
            self.steady = False
            return
        time = packet.pts * float(packet.time_base)
        if self._end is not None and abs(time - self._end) > JITTER:
            self.steady = False
        self._end = time + (packet.duration or 0) * float(packet.time_base)
        if len(self.beginning) < _TRIAL_PACKETS:
            self.beginning.append(packet)


def _comes_back(survey: _Survey, suffix: str) -> bool:
    """Says whether the first packets decode to the same sound after they were written into memory in the output's format."""
    import av

    buffer = io.BytesIO()
    first = survey.beginning[0].pts or 0
    try:
        with av.open(buffer, "w", format=_FORMATS[suffix]) as output:
            stream = output.add_stream_from_template(survey.stream)
            for packet in survey.beginning:
                packet.pts = (packet.pts or 0) - first
                packet.dts = packet.pts if packet.dts is None else packet.dts - first
                packet.stream = stream
                output.mux_one(packet)
        buffer.seek(0)
        with av.open(buffer, "r") as back:
            found = [_plain(frame) for frame in back.decode(audio=0)]
            rate = back.streams.audio[0].codec_context.sample_rate
    except (av.FFmpegError, ValueError):
        return False
    if not found or not survey.samples or found[0].shape[0] != survey.samples[0].shape[0]:
        return False
    before, after = np.concatenate(survey.samples, 1), np.concatenate(found, 1)
    # The first and the last packets may decode to fewer samples in one format than in the other.
    room = 4 * max(samples.shape[1] for samples in survey.samples)
    as_long = abs(before.shape[1] - after.shape[1]) <= room
    loud = [float(np.sqrt((samples**2).mean())) for samples in (before, after)]
    return rate in {kind[0] for kind in survey.kinds} and as_long and abs(loud[0] - loud[1]) <= 0.1 * max(loud) + 1e-4


def _is_taken(encoding: Encoding, suffix: str) -> bool:
    """Says whether the encoder opens and the output's format takes what it makes. A moment of silence is written into memory."""
    import av

    try:
        with av.open(io.BytesIO(), "w", format=_FORMATS[suffix]) as output:
            stream = add_encoder(output, encoding)
            channels = stream.codec_context.layout.nb_channels
            frame = av.AudioFrame.from_ndarray(np.zeros((channels, 4096), np.float32), format="fltp", layout=encoding.layout)
            frame.sample_rate, frame.time_base, frame.pts = encoding.rate, Fraction(1, encoding.rate), 0
            for packet in (*stream.encode(frame), *stream.encode(None)):
                output.mux_one(packet)
    except (av.FFmpegError, ValueError):
        return False
    return True


def _nearest_rate(codec: str, rate: int) -> int:
    import av

    try:
        rates = av.Codec(codec, "w").audio_rates
    except (av.FFmpegError, ValueError):
        return rate
    if not rates:
        return rate
    return min((known for known in rates if known >= rate), default=max(rates))


def channels_of(frame: AudioFrame) -> np.ndarray:
    """Returns the samples of a frame as C x N, in the type of its format. Raises av.FFmpegError for channels that cannot be told apart."""
    import av

    count = frame.layout.nb_channels
    if frame.format.is_planar and count >= _MANY_CHANNELS:
        packed = frame.format.packed.name
        (frame,) = av.AudioResampler(packed, frame.layout, frame.sample_rate).resample(frame)
    samples = frame.to_ndarray()
    return samples if frame.format.is_planar else samples.reshape(-1, count).T


def _plain(frame: AudioFrame) -> np.ndarray:
    """Returns the samples of a frame as C x N floats, where 1 is the largest value that the format can hold."""
    samples = channels_of(frame)
    if samples.dtype.kind == "f":
        return samples.astype(np.float64)
    full = 2.0 ** (8 * samples.dtype.itemsize - 1)
    return samples / full - (1.0 if samples.dtype.kind == "u" else 0.0)
