"""Recordings whose clock jumps: they last as long as their parts, picture and sound alike; honest pauses stay as they are."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from dagan.media.video import VideoWriter, open_video
from sound_samples import RATE, chirp, heard, join, record, shift

CASES = Path(__file__).parents[1] / "cases"
TWO_SECONDS = [Fraction(i, 25) for i in range(50)]
WRAP = 2**33 / 90_000  # seconds after which the clock of a transport stream starts again at 0
MUX_DELAY = 1.4  # seconds that FFmpeg adds to the times of a transport stream


def carried(source, target):
    """Copies pictures and sound into a new video, as the jobs do; the reader, its frames, and what was warned of."""
    said = []
    with open_video(source) as reader:
        options = {"rate": reader.rate, "time_base": reader.time_base, "audio_from": source if reader.has_audio else None}
        with VideoWriter(target, reader.width, reader.height, warn=said.append, **options) as writer:
            frames = []
            for frame in reader:
                writer.write(frame.image, frame.time, frame.duration)
                frames.append((frame.time, frame.duration))
    assert reader.problem() is None
    return reader, frames, said


def pauses(frames):
    return {b[0] - a[0] for a, b in pairwise(frames)}


def check_two_parts(source, target):
    """Both parts in full, one after the other, each with its own sound at its own pictures."""
    reader, frames, said = carried(source, target)
    assert (len(frames), reader.frame_count, reader.duration, said) == (100, 100, 4, [])
    assert pauses(frames) == {Fraction(1, 25)}
    after, end = heard(target)
    assert abs(end - 4) < 0.06
    for begin in (0, 2):
        late, alike = shift(chirp(2.0)[: round(1.9 * RATE)], after[begin * RATE :][: round(1.9 * RATE)])
        assert abs(late) < 0.005, begin
        assert alike > 0.97, begin
    with open_video(target) as result:
        assert [frame.time for frame in result] == [Fraction(i, 25) for i in range(100)]
        assert result.problem() is None


@pytest.mark.parametrize(
    "clock",
    [100, 50, 3, 101, 101.92, 102, 117, 3800, 26 * 3600],
    ids=["same", "earlier", "much earlier", "inside the first", "two frames early", "no jump", "15 s on", "an hour on", "a day on"],
)
def test_joined_recordings_last_as_long_as_their_parts(tmp_path, clock):
    first = record(tmp_path / "a.ts", TWO_SECONDS, clock=100)
    second = record(tmp_path / "b.ts", TWO_SECONDS, clock=clock)
    check_two_parts(join(tmp_path / "both.ts", first, second), tmp_path / "out.mp4")


def test_program_streams_and_streams_with_reordered_frames_join_too(tmp_path):
    part = record(tmp_path / "a.mpg", TWO_SECONDS, clock=10)
    check_two_parts(join(tmp_path / "both.mpg", part, part), tmp_path / "out.mp4")
    part = record(tmp_path / "a.ts", TWO_SECONDS, clock=10, video_codec="libx264")
    check_two_parts(join(tmp_path / "both.ts", part, part), tmp_path / "two.mp4")


def test_sound_that_is_missing_at_the_end_of_a_part_does_not_pull_the_next_part_forward(tmp_path):
    first = record(tmp_path / "a.ts", TWO_SECONDS, clock=100, seconds=1.2)
    second = record(tmp_path / "b.ts", TWO_SECONDS, clock=40)
    _, frames, _ = carried(join(tmp_path / "both.ts", first, second), tmp_path / "out.mp4")
    assert pauses(frames) == {Fraction(1, 25)}
    after, _ = heard(tmp_path / "out.mp4")
    assert np.abs(after[round(1.3 * RATE) : round(1.95 * RATE)]).max() < 0.01
    late, alike = shift(chirp(2.0)[: round(1.9 * RATE)], after[2 * RATE :][: round(1.9 * RATE)])
    assert (abs(late) < 0.005, alike > 0.97) == (True, True)


def test_a_clock_of_33_bits_that_starts_again_in_the_middle(tmp_path):
    source = record(tmp_path / "a.ts", TWO_SECONDS, clock=WRAP - 1 - MUX_DELAY)
    reader, frames, said = carried(source, tmp_path / "out.mp4")
    assert (len(frames), reader.duration, pauses(frames), said) == (50, 2, {Fraction(1, 25)}, [])
    late, alike = shift(chirp(1.9), heard(tmp_path / "out.mp4")[0][: round(1.9 * RATE)])
    assert (abs(late) < 0.005, alike > 0.97) == (True, True)


@pytest.mark.parametrize(("name", "codec"), [("a.ts", "mpeg2video"), ("a.ts", "libx264"), ("a.mp4", "libx264"), ("a.mkv", "libx264")])
@pytest.mark.parametrize("sound", [None, "aac"])
def test_a_jump_of_hours_within_one_stream(tmp_path, name, codec, sound):
    times = [Fraction(i, 25) + (7200 if i >= 25 else 0) for i in range(50)]
    source = record(tmp_path / name, times, codec=sound, video_codec=codec, seconds=1.0)
    reader, frames, _ = carried(source, tmp_path / "out.mp4")
    assert (len(frames), reader.duration, pauses(frames)) == (50, 2, {Fraction(1, 25)})
    assert abs(reader.rate - 25) < 1


@pytest.mark.parametrize("name", ["a.ts", "a.mp4", "a.mkv", "a.mov"])
@pytest.mark.parametrize("pause", [2, 12])
def test_honest_pauses_stay(tmp_path, name, pause):
    """A frame that is shown for long, with the sound running on."""
    times = [Fraction(i, 25) + (pause if i >= 20 else 0) for i in range(40)]
    source = record(tmp_path / name, times, codec="aac", video_codec="mpeg2video" if name == "a.ts" else "libx264")
    _, frames, _ = carried(source, tmp_path / "out.mp4")
    assert pauses(frames) == {Fraction(1, 25), pause + Fraction(1, 25)}
    after, _ = heard(tmp_path / "out.mp4")
    length = min(len(after), round((pause + 1.5) * RATE))
    late, alike = shift(chirp(pause + 1.5)[:length], after[:length])
    assert (abs(late) < 0.005, alike > 0.9) == (True, True)


def test_a_pause_without_sound_stays(tmp_path):
    times = [Fraction(i, 25) + (2 if i >= 20 else 0) for i in range(40)]
    _, frames, _ = carried(record(tmp_path / "a.ts", times, codec=None), tmp_path / "out.mp4")
    assert pauses(frames) == {Fraction(1, 25), Fraction(51, 25)}


def test_one_wrong_time_does_not_move_what_follows(tmp_path):
    """A frame whose time is hours off: the clock comes back to where it was."""
    parts = [
        record(tmp_path / "a.ts", TWO_SECONDS[:25], clock=100, codec=None),
        record(tmp_path / "b.ts", TWO_SECONDS[:1], clock=9000, codec=None),
        record(tmp_path / "c.ts", TWO_SECONDS[:25], clock=101, codec=None),
    ]
    _, frames, _ = carried(join(tmp_path / "all.ts", *parts), tmp_path / "out.mp4")
    assert len(frames) == 51
    assert frames[-1][0] == Fraction(49, 25)


@pytest.mark.parametrize("name", ["joined_overlap.ts", "joined_reset.ts"])
def test_the_recorded_cases(tmp_path, name):
    reader, frames, said = carried(CASES / name, tmp_path / "out.mp4")
    assert (len(frames), reader.duration, pauses(frames), said) == (30, Fraction(6, 5), {Fraction(1, 25)}, [])
    sound, end = heard(tmp_path / "out.mp4")
    assert abs(end - 1.2) < 0.05
    loud = np.sqrt((sound[: round(1.2 * RATE)].reshape(24, -1) ** 2).mean(1))
    assert loud.min() > 0.04  # a steady tone: no hole at the joint


def test_a_clock_that_is_damaged_beyond_use_leaves_the_rate_that_the_file_names(tmp_path, monkeypatch):
    """Ten frames in eleven days would round to no frames a second."""
    source = record(tmp_path / "a.ts", TWO_SECONDS[:10], codec=None)
    monkeypatch.setattr("dagan.media.video.clock_may_jump", lambda container: True)
    monkeypatch.setattr("dagan.media.container.packet_span", lambda path: (10, Fraction(10**6), 1))
    with open_video(source) as reader:
        assert reader.rate == 25
        assert len(list(reader)) == 10
