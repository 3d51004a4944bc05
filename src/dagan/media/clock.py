"""Puts the packets of a file whose own clock jumps onto one continuous clock.

Recordings that were joined start their clock again at every joint, forwards or backwards. Transport streams count in 33 bits and start
again at 0 after 26.5 hours. Here each part follows the part before it, so that the whole lasts as long as its parts together. The
pictures decide by how much a part is moved. The sound of the part is moved by the same amount, so that the two stay together.
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

# A pause that is longer, in seconds, is a jump of the clock. Formats made for broadcasting start their clock again at any moment, and
# FFmpeg's own limit for them is 10 s. In other formats a picture may honestly stand for minutes.
_LONGEST_PAUSE_BROADCAST = 10
LONGEST_PAUSE = 3600
_CLOCK_MAY_JUMP = 0x200  # FFmpeg sets this flag (AVFMT_TS_DISCONT) for formats whose clock may jump.
# Sound and pictures of the same moment lie at most about so many seconds apart in a file.
_INTERLEAVING = 2.0
_LONGEST_FRAME = 1.0  # Seconds. Longer durations are not believed: MP4 gives the frame before a jump the whole jump as its duration.
_MOST_REORDERED = 32  # Packets of pictures that may wait. Codecs show a frame at most 16 frames later than they decode it.
_MOST_HELD = 4096  # Packets of sound that may wait for the pictures of their part. They are small.
_PATIENCE = 0.3  # After so many seconds of sound, a small jump of the pictures is taken to be a jump of the sound too.


class Clock:
    """Reads the packets of a file's pictures and sound and moves their times onto one continuous clock.

    `video` and `sound` are the streams of `container` to read; either may be None. The first part keeps its times.
    """

    def __init__(self, container: InputContainer, video: VideoStream | None, sound: AudioStream | None) -> None:
        self._container = container
        self._video, self._sound = video, sound
        self._longest_pause = _LONGEST_PAUSE_BROADCAST if clock_may_jump(container) else LONGEST_PAUSE
        self._pictures, self._sounds = _Track(0.04), _Track(0.02)
        self._leaping: list[Packet] = []  # These are pictures that wait.
        self._held: deque[Packet] = deque()  # This is sound that waits.
        self._sound_run = (0.0, 0.0)  # Sound covers this stretch of the file's own clock without a pause.
        self._joint_seen: float | None = None  # The sound was here when only the pictures had jumped.

    @property
    def shift(self) -> float:
        """The seconds that are being added to the times of the pictures, or of the sound where there are no pictures."""
        return self._sounds.shift if self._video is None else self._pictures.shift

    @property
    def joints(self) -> int:
        """The number of jumps of the clock that were found so far."""
        return len((self._sounds if self._video is None else self._pictures).shifts) - 1

    def packets(self) -> Iterator[Packet]:
        """Yields all packets, moved. The last ones of each stream are empty, to flush decoders. Errors of FFmpeg are passed on."""
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
        """Moves a packet of the pictures. One whose time lies far ahead waits until it is known where the old clock ends."""
        track = self._pictures
        time = _seconds(packet.dts, packet)
        if self._leaping or self._is_ahead(packet):
            self._leaping.append(packet)
            leapt = time is None or track.latest is None or abs(time - track.latest) > self._longest_pause
            runs_on = not leapt and time is not None and time + track.shift > track.end + 2 * track.step
            if runs_on:  # The old clock goes on past the place where it would have ended, so a single time was wrong.
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
            # Behind a single wrong time the old clock comes back.
            elif track.shift and time > track.latest + 2 * frame:
                self._move(track, packet, frame, only_known=True)
        track.put(packet)
        yield packet

    def _is_ahead(self, packet: Packet) -> bool:
        """Says whether the packet's picture is to be shown so long after those before it that the clock may have jumped."""
        time = _seconds(packet.dts if packet.pts is None else packet.pts, packet)
        track = self._pictures
        return time is not None and track.latest is not None and time + track.shift - track.end > self._longest_pause

    def _settle(self) -> Iterator[Packet]:
        """Moves the pictures that waited. At a jump they come in decoding order: some of the old clock follow some of the new one."""
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
        """Says whether the long pause of the pictures up to `time` is a jump of the clock. It is none where sound runs through it."""
        before = self._pictures.end - self._pictures.shift
        start, end = self._sound_run
        return not (start <= before + _INTERLEAVING and end >= (before + time) / 2)

    def _move(self, track: _Track, packet: Packet, tolerance: float, only_known: bool = False) -> None:
        """Finds the shift that lets the packet follow what came before. An earlier shift is used where it fits to within a frame."""
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
        """Yields the waiting sound, as far as it is known to which part it belongs."""
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
        """Moves a packet of sound. Returns False where the pictures that follow must be seen first."""
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
        elif time < track.latest - _INTERLEAVING:  # Only the clock of the sound has started again.
            self._move(track, packet, track.length_of(packet))
        track.put(packet)
        if pictures.shift == track.shift:
            self._joint_seen = None
        return True

    def _belongs_to_new_part(self, time: float) -> bool:
        """Says whether sound whose times run on belongs to the part that the pictures have reached."""
        pictures, track = self._pictures, self._sounds
        as_before, moved = abs(time + track.shift - pictures.end), abs(time + pictures.shift - pictures.end)
        if abs(as_before - moved) > 1:
            return moved < as_before
        if self._joint_seen is None:
            self._joint_seen = time
        return time - self._joint_seen > _PATIENCE

    def _pictures_may_still_jump(self) -> bool:
        """Says whether the pictures read so far are near the place where the sound jumped, so that their jump may come next."""
        assert self._sounds.latest is not None
        return self._pictures.end - (self._sounds.latest + self._sounds.shift) < _INTERLEAVING


def demux(container: InputContainer, streams: Sequence[Stream]) -> Iterator[Packet]:
    """Yields the packets of `streams`, and goes on where a stream begins that the file's start did not announce.

    PyAV raises IndexError there, because it has no name for the packet; the next call goes on with the packet after it. Errors of FFmpeg
    are passed on.
    """
    while True:
        try:
            yield from container.demux(streams)
        except IndexError:
            continue
        return


def clock_may_jump(container: InputContainer) -> bool:
    """Says whether the format lets its clock start again in the middle, as transport streams do. Their length must be counted."""
    return bool(container.format.flags & _CLOCK_MAY_JUMP)


class _Track:
    """How far one stream has got."""

    def __init__(self, step: float) -> None:
        self.step = step  # Seconds that the latest packet lasts; until a packet says so, an assumption.
        self.latest: float | None = None  # The last decoding time, in the file's clock.
        self.end = float("-inf")  # The end of what was placed, in the new clock.
        self.shift = 0.0  # The seconds that are being added to times.
        self.shifts = [0.0]  # All shifts that were used so far.

    def change(self, shift: float) -> None:
        self.shift = shift
        if shift not in self.shifts:
            self.shifts.append(shift)

    def put(self, packet: Packet, shown_shift: float | None = None) -> None:
        """Moves the packet's times by a whole number of its ticks. The time of display is moved by `shown_shift`, where it is given."""
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
        """Returns for how many seconds the packet lasts. Where it does not say, or says nonsense, it lasts as long as the one before."""
        length = _length(packet)
        return length if 0 < length <= _LONGEST_FRAME else self.step


def _seconds(ticks: int | None, packet: Packet) -> float | None:
    return None if ticks is None else ticks * float(packet.time_base)


def _shown(packet: Packet) -> float:
    """Returns the second at which the packet's content is shown, or at which it is decoded, where it says only that."""
    time = _seconds(packet.dts if packet.pts is None else packet.pts, packet)
    assert time is not None
    return time


def _length(packet: Packet) -> float:
    return (packet.duration or 0) * float(packet.time_base)
