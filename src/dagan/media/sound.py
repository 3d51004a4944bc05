"""Carries the sound of a driving video into the output. Its packets are copied as they are where that is safe, else encoded again.

Times here are the output's: 0 is its first frame. Sound is fed along with the pictures, so that little of it is in memory.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dagan.media.output import DISK_FULL
from dagan.media.sound_check import JITTER, Encoding, SoundCheck, add_encoder, channels_of, open_sound
from dagan.progress import Warn

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.resampler import AudioResampler
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.packet import Packet

# The edit lists of these formats hide what comes before time 0. Other formats would have to shift the pictures to make room for it.
_HIDING = {".mp4", ".m4v", ".mov"}
_AVERAGED_FRAMES = 16  # Lateness is averaged over about so many frames.
_LASTING_JITTER = 0.004  # Sound may lastingly be off by so many seconds. From 0.02 s on one sees that lips and sound differ.


class SoundTrack:
    """One sound stream on its way from `source` into `output`. `origin` seconds of the source's clock become time 0.

    It must be made before the output's header is written, with a `check` that found a way. `warn` is told of sound that ends early
    because it cannot be carried on; the pictures go on without it. `written` is the number of packets handed over so far.
    """

    def __init__(self, source: Path, output: OutputContainer, suffix: str, origin: Fraction, check: SoundCheck, warn: Warn) -> None:
        self._path, self._warn = source, warn
        self._input, self._clock, stream = open_sound(source)
        assert stream is not None
        self._source = stream
        self._output = output
        self._origin = origin
        self._hides_run_in = suffix in _HIDING
        self.written = 0
        if check.copied:
            self._target: AudioStream = output.add_stream_from_template(stream)
            self._packets = self._copy()
        else:
            assert check.encoding is not None
            self._target = add_encoder(output, check.encoding)
            self._packets = self._encode(check.encoding)
        self._waiting: tuple[Fraction, Packet] | None = None

    def feed(self, until: Fraction) -> None:
        """Hands on all sound that starts before `until` seconds."""
        import av

        try:
            while True:
                if self._waiting is None:
                    self._waiting = next(self._packets, None)
                if self._waiting is None or self._waiting[0] >= until:
                    return
                packet, self._waiting = self._waiting[1], None
                self._output.mux_one(packet)
                self.written += 1
        except (av.FFmpegError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                raise
            self._packets.close()
            self._warn(f"the sound of {self._path} is left out from {float(until):.1f} s on: it cannot be written ({error})")

    def close(self) -> None:
        """Closes the source file."""
        self._packets.close()
        self._input.close()

    def _copy(self) -> Generator[tuple[Fraction, Packet]]:
        """Yields the source's packets with moved times, from time 0 on.

        Decoders need the packet before time 0 to start with, so it goes along where the format can hide it.
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

    def _encode(self, encoding: Encoding) -> Generator[tuple[Fraction, Packet]]:
        """Decodes the source's sound, joins it without gaps from time 0 on, and encodes it for the target."""
        import av

        line = _Line(encoding)
        for packet in self._demux():
            try:
                frames = self._source.decode(packet)
            except (av.FFmpegError, ValueError):  # Silence takes the place of a damaged piece of sound.
                continue
            for frame in frames:
                time = None if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base - self._origin)
                for ready in line.add(frame, time):
                    yield from _timed(self._target.encode(ready))
        for ready in line.flush():
            yield from _timed(self._target.encode(ready))
        yield from _timed(self._target.encode(None))

    def _demux(self) -> Iterator[Packet]:
        import av

        try:
            for packet in self._clock.packets():
                if packet.stream is self._source:
                    yield packet
        except av.FFmpegError:  # The file is cut off, and what came before is all there is.
            return


class _Line:
    """Takes decoded frames of any rate, layout and sample format and gives frames of one kind that follow each other from time 0 on.

    Pauses become silence. Where sound overlaps what is there already, the overlapping part is left out.
    """

    def __init__(self, encoding: Encoding) -> None:
        self._rate, self._layout = encoding.rate, encoding.layout
        self._resampler: AudioResampler | None = None
        self._kind: tuple[int, str, str] | None = None
        self._expected = 0.0  # The next frame starts at this second if it follows the one before.
        self._late = 0.0  # Frames came later than expected by so many seconds, averaged over the last ones.
        self._place = 0  # The resampler's next sample belongs at this sample of the line.
        self._length = 0  # The line has so many samples so far.

    def add(self, frame: AudioFrame, time: float | None) -> Iterator[AudioFrame]:
        """Yields what is ready after a frame that starts at `time` seconds. With None the frame follows the one before."""
        import av

        frame = _with_layout(frame)
        kind = (frame.sample_rate, frame.layout.name, frame.format.name)
        follows = time is None or (self._kind is not None and self._is_on_time(time))
        if not follows or kind != self._kind:
            yield from self.flush()
            self._kind, self._late = kind, 0.0
            self._resampler = av.AudioResampler("fltp", self._layout, self._rate)
            self._expected = self._expected if time is None else time
            self._place = round(self._expected * self._rate)
        assert self._resampler is not None
        self._expected += frame.samples / frame.sample_rate
        frame.pts = None  # Where times are rounded, the resampler would see gaps.
        yield from self._lay(self._resampler.resample(frame))

    def _is_on_time(self, time: float) -> bool:
        """Says whether a frame that starts at `time` follows the one before.

        It does so if its time is off by little, and frames are not off to the same side all the time.
        """
        late = time - self._expected
        self._late += (late - self._late) / _AVERAGED_FRAMES
        return abs(late) < JITTER and abs(self._late) < _LASTING_JITTER

    def flush(self) -> Iterator[AudioFrame]:
        """Yields what the resampler still holds."""
        if self._resampler is not None:
            yield from self._lay(self._resampler.resample(None))
            self._resampler = None

    def _lay(self, frames: Iterable[AudioFrame | None]) -> Iterator[AudioFrame]:
        for frame in frames:
            if frame is None:  # A resampler that has nothing to do passes on the end too.
                continue
            samples = frame.to_ndarray()[:, max(0, self._length - self._place) :]
            self._place += frame.samples
            if samples.shape[1]:
                while (missing := self._place - samples.shape[1] - self._length) > 0:
                    yield self._frame(np.zeros((samples.shape[0], min(missing, self._rate)), np.float32))
                yield self._frame(samples)

    def _frame(self, samples: np.ndarray) -> AudioFrame:
        import av

        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=self._layout)
        frame.sample_rate, frame.time_base, frame.pts = self._rate, Fraction(1, self._rate), self._length
        self._length += samples.shape[1]
        return frame


def _with_layout(frame: AudioFrame) -> AudioFrame:
    """Averages the frame's channels into one where it does not say where they belong, because they cannot be mixed otherwise."""
    import av

    if frame.layout.nb_channels <= 2 or not frame.layout.name.endswith("channels"):
        return frame
    samples = channels_of(frame)
    mixed = samples.mean(0, keepdims=True).astype(samples.dtype)
    single = av.AudioFrame.from_ndarray(mixed, format=frame.format.name, layout="mono")
    single.sample_rate = frame.sample_rate
    return single


def _timed(packets: list[Packet]) -> Iterator[tuple[Fraction, Packet]]:
    for packet in packets:
        yield (packet.pts or 0) * Fraction(packet.time_base), packet
