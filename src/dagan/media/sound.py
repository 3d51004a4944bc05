"""The sound of a driving video, carried into the output: packets as they are where the format allows it, else re-encoded.

Times here are the output's: 0 is its first frame. Sound is fed along with the pictures, so that memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from dagan.media.container import open_container

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.packet import Packet

# What players can be expected to play in each format (None: anything). Other codecs are re-encoded.
_COPIED: dict[str, set[str] | None] = {
    ".mp4": {"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"},
    ".m4v": {"aac", "mp3", "ac3", "eac3", "alac"},
    ".mov": {"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be"},
    ".mkv": None,
    ".webm": {"opus", "vorbis"},
}
# Formats whose edit list hides what comes before time 0. The others would have to shift the pictures to make room for it.
_HIDING = {".mp4", ".m4v", ".mov"}
SOUND_SUFFIXES = tuple(_COPIED)
_JITTER = Fraction(1, 50)
_AAC_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000)


class SoundTrack:
    """One sound stream on its way from `source` into `output`; `origin` seconds of the source's clock become time 0.

    To be made before the output's header is written. copied: whether packets go over as they are.
    """

    def __init__(self, source: Path, output: OutputContainer, suffix: str, origin: Fraction) -> None:
        import av

        self._input = open_container(source)
        best = self._input.streams.best("audio")
        self._source = best if isinstance(best, av.AudioStream) else self._input.streams.audio[0]
        self._output = output
        self._origin = origin
        allowed = _COPIED[suffix]
        self.copied = allowed is None or self._source.codec_context.codec.canonical_name in allowed
        self._hides_run_in = suffix in _HIDING
        self._target: AudioStream = output.add_stream_from_template(self._source) if self.copied else self._add_encoder(suffix)
        self._packets = self._copy() if self.copied else self._encode()
        self._waiting: tuple[Fraction, Packet] | None = None

    def feed(self, until: Fraction) -> None:
        """Hands on all sound that starts before `until` seconds."""
        while True:
            if self._waiting is None:
                self._waiting = next(self._packets, None)
            if self._waiting is None or self._waiting[0] >= until:
                return
            packet, self._waiting = self._waiting[1], None
            self._output.mux_one(packet)

    def close(self) -> None:
        """Lets go of the source file."""
        self._packets.close()
        self._input.close()

    def _copy(self) -> Generator[tuple[Fraction, Packet]]:
        """The source's packets with moved time stamps, from time 0 on.

        Where the format can hide it, the packet before goes along: decoders need it to run in.
        """
        shift: int | None = None
        for packet in self._demux():
            if packet.pts is None:
                continue
            if shift is None:
                shift = round(self._origin / packet.time_base)
            packet.pts -= shift
            packet.dts = packet.pts if packet.dts is None else packet.dts - shift
            length = (packet.duration or 0) * packet.time_base
            time = packet.pts * packet.time_base
            if time + (2 * length if self._hides_run_in else length) <= 0:
                continue
            packet.stream = self._target
            yield time, packet

    def _encode(self) -> Generator[tuple[Fraction, Packet]]:
        """The source's sound decoded, cut at time 0 to the sample, and encoded for the target."""
        import av

        expected = Fraction(-1)
        for packet in self._demux():
            try:
                frames = self._source.decode(packet)
            except (av.FFmpegError, ValueError):  # a damaged piece of sound: the picture matters more
                continue
            for frame in frames:
                if frame.pts is None or frame.time_base is None:
                    continue
                time = frame.pts * Fraction(frame.time_base) - self._origin
                if abs(time - expected) < _JITTER:  # time stamps rounded to 1/1000 s must not tear the samples apart
                    time = expected
                expected = time + Fraction(frame.samples, frame.sample_rate)
                kept = _from_zero(frame, time)
                if kept is not None:
                    yield from _timed(self._target.encode(kept))
        yield from _timed(self._target.encode(None))

    def _demux(self) -> Iterator[Packet]:
        import av

        try:
            yield from self._input.demux(self._source)
        except av.FFmpegError:  # cut off: what came before is all there is
            return

    def _add_encoder(self, suffix: str) -> AudioStream:
        """AAC, or Opus in WebM, at the source's sampling rate where the codec has it; more than two channels become stereo."""
        import av

        source = self._source.codec_context
        mono = source.layout.nb_channels == 1
        if suffix == ".webm":
            rate, codec = 48_000, "libopus"
        else:
            rate, codec = min(_AAC_RATES, key=lambda known: abs(known - source.sample_rate)), "aac"
        stream = self._output.add_stream(codec, rate=rate)
        assert isinstance(stream, av.AudioStream)
        stream.codec_context.layout = "mono" if mono else "stereo"
        stream.codec_context.bit_rate = 96_000 if mono else 192_000
        return stream


def _timed(packets: list[Packet]) -> Iterator[tuple[Fraction, Packet]]:
    for packet in packets:
        yield (packet.pts or 0) * Fraction(packet.time_base), packet


def _from_zero(frame: AudioFrame, time: Fraction) -> AudioFrame | None:
    """The part of a frame starting at `time` that lies after 0, stamped in samples; None when nothing does."""
    import av

    rate = frame.sample_rate
    cut = max(0, round(-time * rate))
    if cut >= frame.samples:
        return None
    if cut:
        samples = frame.to_ndarray()
        whole, channels = frame, frame.layout.nb_channels
        frame = av.AudioFrame.from_ndarray(
            samples[:, cut:].copy() if frame.format.is_planar else samples[:, cut * channels :].copy(),
            format=whole.format.name,
            layout=whole.layout.name,
        )
        frame.sample_rate = rate
    frame.time_base = Fraction(1, rate)
    frame.pts = round((time + Fraction(cut, rate)) * rate)
    return frame
