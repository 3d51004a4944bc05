"""One continuous clock for the packets of a file whose own clock jumps.

Recordings that were joined start their clock again, forwards or backwards, at every joint; transport streams count in 33 bits and
start again at 0 after 26.5 hours. Here each part follows the part before it, so that the whole lasts as long as its parts together.
The pictures decide by how much a part is moved, and the sound of the part is moved by the same amount: the two stay together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream

# A longer pause, in seconds, is a jump of the clock. Formats made for broadcasting start their clock again at any moment, and FFmpeg's
# own limit for them is 10 s; in other formats a picture may honestly stand for minutes.
_LONGEST_PAUSE_BROADCAST = 10
LONGEST_PAUSE = 3600
_CLOCK_MAY_JUMP = 0x200  # FFmpeg's AVFMT_TS_DISCONT among the flags of a format
# Sound and pictures of the same moment lie at most about this far apart in a file, in seconds.
_INTERLEAVING = 2.0
_LONGEST_FRAME = 1.0  # seconds; MP4 gives the frame before a jump of the clock all of the jump as its duration
_MOST_REORDERED = 32  # packets of pictures that may wait; codecs show a frame at most 16 later than they decode it
_MOST_HELD = 4096  # packets of sound that wait for the pictures of their part; they are small
_PATIENCE = 0.3  # seconds of sound after which a small jump of the pictures is taken to be one of the sound too


class Clock:
    """The packets of a file's pictures and sound, their times moved onto one continuous clock.

    video, sound: the streams of `container` to read; either may be None. The first part keeps its times.
    shift: seconds that are being added to the times of the pictures (of the sound, where there are no pictures). joints: how many
    jumps of the clock were found so far.
    """

    def __init__(self, container: InputContainer, video: VideoStream | None, sound: AudioStream | None) -> None:
        self._container = container
        self._video, self._sound = video, sound
        self._longest_pause = _LONGEST_PAUSE_BROADCAST if clock_may_jump(container) else LONGEST_PAUSE
        self._pictures, self._sounds = _Track(0.04), _Track(0.02)
        self._leaping: list[Packet] = []  # pictures that wait
        self._held: deque[Packet] = deque()  # sound that waits
        self._sound_run = (0.0, 0.0)  # the stretch of the file's own clock that sound covers without a pause
        self._joint_seen: float | None = None  # where the sound was when only the pictures had jumped

    @property
    def shift(self) -> float:
        return self._sounds.shift if self._video is None else self._pictures.shift

    @property
    def joints(self) -> int:
        return len((self._sounds if self._video is None else self._pictures).shifts) - 1

    def packets(self) -> Iterator[Packet]:
        """All packets, moved; the last ones of each stream are empty, for flushing decoders. Lets FFmpeg's errors through."""
        streams: list[Stream] = [stream for stream in (self._video, self._sound) if stream is not None]
        for packet in demux(self._container, streams):
            if not packet.size:
                yield from self._release() if packet.stream is self._sound else self._settle()
                yield packet
            elif packet.stream is self._sound:
                if packet.dts is None:
                    packet.dts = packet.pts
                self._note_sound(packet)
                self._held.append(packet)
            else:
                yield from self._place_picture(packet)
            yield from self._place_held()
        yield from self._settle()
        yield from self._release()

    def _place_picture(self, packet: Packet) -> Iterator[Packet]:
        """Moves a packet of the pictures; one whose time lies far ahead waits until it is known where the old clock ends."""
        track = self._pictures
        time = _seconds(packet.dts, packet)
        if self._leaping or self._is_ahead(packet):
            self._leaping.append(packet)
            leapt = time is None or track.latest is None or abs(time - track.latest) > self._longest_pause
            runs_on = not leapt and time is not None and time + track.shift > track.end + 2 * track.step
            if runs_on:  # the old clock passes the place where it would have ended: a single time was wrong
                for waiting in self._leaping:
                    if self._is_ahead(waiting):
                        waiting.pts = None
            if leapt or runs_on or len(self._leaping) >= _MOST_REORDERED:
                yield from self._settle()
            return
        if time is not None and track.latest is not None:
            frame = track.length_of(packet)
            if time < track.latest - frame / 2:
                self._move(track, packet, frame)
            elif track.shift and time > track.latest + 2 * frame:  # a single wrong time may lie behind: the old clock is back
                self._move(track, packet, frame, only_known=True)
        track.put(packet)
        yield packet

    def _is_ahead(self, packet: Packet) -> bool:
        """Whether the packet's picture is to be shown so long after those before it that the clock may have jumped."""
        time = _seconds(packet.dts if packet.pts is None else packet.pts, packet)
        track = self._pictures
        return time is not None and track.latest is not None and time + track.shift - track.end > self._longest_pause

    def _settle(self) -> Iterator[Packet]:
        """Moves the pictures that waited. Around a leap they come in decoding order: some of the old clock follow some of the new."""
        if not self._leaping:
            return
        track, waiting = self._pictures, self._leaping
        self._leaping = []
        ahead = [self._is_ahead(packet) for packet in waiting]
        before, after = track.shift, track.shift
        for packet, new in zip(waiting, ahead, strict=True):
            if not new:
                track.put(packet)
        first = min((packet for packet, new in zip(waiting, ahead, strict=True) if new), key=_shown, default=None)
        if first is not None and self._is_jump(_shown(first)):
            self._move(track, first, track.step)
            after = track.shift
        for packet, new in zip(waiting, ahead, strict=True):
            if new:
                decoded = _seconds(packet.dts, packet)
                track.shift = before if decoded is not None and decoded + before <= track.end + self._longest_pause else after
                track.put(packet, after)
        yield from waiting

    def _is_jump(self, time: float) -> bool:
        """Whether the long pause of the pictures up to `time` is a jump of the clock: no sound runs through it."""
        before = self._pictures.end - self._pictures.shift
        start, end = self._sound_run
        return not (start <= before + _INTERLEAVING and end >= (before + time) / 2)

    def _move(self, track: _Track, packet: Packet, tolerance: float, only_known: bool = False) -> None:
        """Finds the shift that lets the packet follow what came before: one used earlier where it fits to the frame."""
        wanted = track.end - _shown(packet)
        known = min(track.shifts, key=lambda shift: abs(shift - wanted))
        if abs(known - wanted) <= tolerance * 3 / 2:
            track.change(known)
        elif not only_known:
            track.change(wanted)

    def _note_sound(self, packet: Packet) -> None:
        time = _seconds(packet.pts, packet)
        if time is not None:
            start, end = self._sound_run
            length = _length(packet)
            follows = end - 1 <= time <= end + 1
            self._sound_run = (start, max(end, time + length)) if follows else (time, time + length)

    def _place_held(self) -> Iterator[Packet]:
        """Hands on the sound that waits, as far as it is known to which part it belongs."""
        while self._held:
            if not self._place_sound(self._held[0], final=len(self._held) > _MOST_HELD):
                return
            yield self._held.popleft()

    def _release(self) -> Iterator[Packet]:
        for packet in self._held:
            self._place_sound(packet, final=True)
            yield packet
        self._held.clear()

    def _place_sound(self, packet: Packet, final: bool) -> bool:
        """Moves a packet of sound; False where the pictures that follow must be seen first."""
        track, pictures = self._sounds, self._pictures
        time = _seconds(packet.dts, packet)
        if time is None or track.latest is None:
            if time is not None:
                track.change(pictures.shift)
            track.put(packet)
            return True
        jumped = time < track.latest or time - track.latest > self._longest_pause
        if self._video is None:
            if jumped:
                self._move(track, packet, track.length_of(packet))
        elif pictures.shift != track.shift:
            if jumped or self._belongs_to_new_part(time):
                track.change(pictures.shift)
        elif jumped and not final and self._pictures_may_still_jump():
            return False
        elif time < track.latest - _INTERLEAVING:  # only the sound's clock started again
            self._move(track, packet, track.length_of(packet))
        track.put(packet)
        if pictures.shift == track.shift:
            self._joint_seen = None
        return True

    def _belongs_to_new_part(self, time: float) -> bool:
        """Whether sound whose times run on belongs to the part that the pictures have reached."""
        pictures, track = self._pictures, self._sounds
        as_before, moved = abs(time + track.shift - pictures.end), abs(time + pictures.shift - pictures.end)
        if abs(as_before - moved) > 1:
            return moved < as_before
        if self._joint_seen is None:
            self._joint_seen = time
        return time - self._joint_seen > _PATIENCE

    def _pictures_may_still_jump(self) -> bool:
        """Whether the pictures read so far lie near the place where the sound jumped: theirs may come next."""
        assert self._sounds.latest is not None
        return self._pictures.end - (self._sounds.latest + self._sounds.shift) < _INTERLEAVING


def demux(container: InputContainer, streams: Sequence[Stream]) -> Iterator[Packet]:
    """The packets of `streams`, also behind the place where another stream begins that the file's start did not tell of.

    PyAV ends there with IndexError, because it has no name for the packet; the next call goes on with the one after. Lets FFmpeg's
    errors through.
    """
    while True:
        try:
            yield from container.demux(streams)
        except IndexError:
            continue
        return


def clock_may_jump(container: InputContainer) -> bool:
    """Whether the format lets its clock start again in the middle, as transport streams do: its length must then be counted."""
    return bool(container.format.flags & _CLOCK_MAY_JUMP)


class _Track:
    """Where one stream has got to. latest: its last decoding time, in the file's clock. end: of what was placed, in the new clock.

    step: seconds that the latest packet lasts. shifts: all that were added to times so far.
    """

    def __init__(self, step: float) -> None:
        self.step = step  # until a packet says it
        self.latest: float | None = None
        self.end = float("-inf")
        self.shift = 0.0
        self.shifts = [0.0]

    def change(self, shift: float) -> None:
        self.shift = shift
        if shift not in self.shifts:
            self.shifts.append(shift)

    def put(self, packet: Packet, shown_shift: float | None = None) -> None:
        """Moves the packet's times, to a whole number of its ticks; `shown_shift` moves the time of display instead of `shift`."""
        decoded = _seconds(packet.dts, packet)
        self.latest = self.latest if decoded is None else decoded
        if packet.dts is not None and self.shift:
            packet.dts += round(self.shift / packet.time_base)
        if packet.pts is not None and (shift := self.shift if shown_shift is None else shown_shift):
            packet.pts += round(shift / packet.time_base)
        if packet.pts is not None or packet.dts is not None:
            self.step = self.length_of(packet)
            self.end = max(self.end, _shown(packet) + self.step)

    def length_of(self, packet: Packet) -> float:
        """Seconds that the packet lasts; where it does not say, or says nonsense, as long as the one before."""
        length = _length(packet)
        return length if 0 < length <= _LONGEST_FRAME else self.step


def _seconds(ticks: int | None, packet: Packet) -> float | None:
    return None if ticks is None else ticks * float(packet.time_base)


def _shown(packet: Packet) -> float:
    """When what the packet holds is shown, in seconds; when it is decoded, where that is all it says."""
    time = _seconds(packet.dts if packet.pts is None else packet.pts, packet)
    assert time is not None
    return time


def _length(packet: Packet) -> float:
    return (packet.duration or 0) * float(packet.time_base)
