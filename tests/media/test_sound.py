"""The sound of a driving video: copied where that is safe, else encoded anew; whatever it is, the pictures are written."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from dagan.media import sound_check
from dagan.media.container import start_time
from dagan.media.video import VideoWriter, open_video
from sound_samples import RATE, chirp, heard, join, record, shift

CASES = Path(__file__).parents[1] / "cases"
TIMES = [Fraction(i, 25) for i in range(25)]
SUFFIXES = ["mp4", "mov", "mkv", "webm"]


def carry(source, target, **options):
    """Writes one grey frame for each of the source's, with its sound; what was warned of."""
    said = []
    with open_video(source) as reader, VideoWriter(target, 64, 48, audio_from=source, warn=said.append, **options) as writer:
        for frame in reader.frames(max_side=64):
            writer.write(np.full((48, 64, 3), 90, np.uint8), frame.time, frame.duration)
    return said


def packets(path):
    """(time in seconds, content) of each packet of sound."""
    with av.open(str(path)) as container:
        return [(p.pts * p.time_base, bytes(p)) for p in container.demux(audio=0) if p.size]


def stream_facts(path):
    with av.open(str(path)) as container:
        context = container.streams.audio[0].codec_context
        return context.codec.canonical_name, context.sample_rate, context.layout.nb_channels


def check_heard(source, target, seconds=1.0, alike=0.97):
    """The source's sound at the source's times."""
    before, _ = heard(source)
    after, end = heard(target)
    samples = round((seconds - 0.1) * RATE)
    late, same = shift(before[:samples], after[:samples])
    assert abs(late) < 0.011  # the times in VOB files are that far from the count of samples
    assert same > alike
    assert abs(end - seconds) < 0.06


def test_plain_sound_is_copied_byte_by_byte(tmp_path):
    for suffix in ("mp4", "mov", "mkv"):
        assert carry(CASES / "d04.mp4", tmp_path / f"a.{suffix}") == []
        before, after = ([content for _, content in packets(path)] for path in (CASES / "d04.mp4", tmp_path / f"a.{suffix}"))
        assert after == before[-len(after) :]
        assert len(before) - len(after) <= 1  # Matroska cannot hide the packet that decoders need to run in
    assert packets(tmp_path / "a.mp4") == packets(CASES / "d04.mp4") != []


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"layout": "stereo"}, {"layout": "mono"}),
        ({"layout": "mono"}, {"layout": "stereo"}),
        ({"rate": 48_000}, {"rate": 32_000}),
        ({"codec": "aac", "rate": 44_100}, {"codec": "aac", "rate": 48_000, "layout": "stereo"}),
        ({"codec": "ac3", "layout": "5.1"}, {"codec": "ac3", "layout": "stereo"}),
    ],
    ids=["two to one", "one to two", "rate", "rate and channels", "5.1 to two"],
)
def test_sound_that_changes_is_heard_throughout(tmp_path, suffix, first, second):
    parts = [record(tmp_path / "a.ts", TIMES, clock=10, **first), record(tmp_path / "b.ts", TIMES, clock=11, **second)]
    target = tmp_path / f"out.{suffix}"
    assert carry(join(tmp_path / "in.ts", *parts), target) == []
    after, end = heard(target)
    assert abs(end - 2) < 0.06
    for begin in (0, 1):
        late, alike = shift(chirp(0.9), after[begin * RATE :][: round(0.9 * RATE)])
        assert abs(late) < 0.005, begin
        assert alike > 0.95, begin
    assert start_time(target) == 0


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("in.mov", {"codec": "pcm_mulaw", "rate": 8000}),
        ("in.mov", {"codec": "pcm_alaw", "rate": 11_025}),
        ("in.mov", {"codec": "adpcm_ima_qt"}),
        ("in.mov", {"codec": "pcm_s24be", "rate": 96_000, "layout": "stereo"}),
        ("in.mkv", {"codec": "pcm_f32le", "rate": 192_000}),
        ("in.mkv", {"codec": "flac", "layout": "7.1"}),
        ("in.mkv", {"codec": "ac3", "layout": "5.1"}),
        ("in.m2ts", {"codec": "pcm_bluray", "layout": "stereo"}),
        ("in.vob", {"codec": "pcm_dvd", "layout": "stereo"}),
        ("in.avi", {"codec": "adpcm_ms", "rate": 22_050, "video_codec": "mpeg4"}),
        ("in.avi", {"codec": "libmp3lame", "video_codec": "mpeg4"}),
        ("in.flv", {"codec": "adpcm_swf", "rate": 44_100, "video_codec": "flv1"}),
        ("in.mxf", {"codec": "pcm_s16le"}),
    ],
    ids=lambda value: value["codec"] if isinstance(value, dict) else value[3:],
)
def test_every_format_holds_the_sound_one_way_or_the_other(tmp_path, suffix, name, options):
    source = record(tmp_path / name, TIMES, container={"in.vob": "vob", "in.m2ts": "mpegts"}.get(name), **options)
    target = tmp_path / f"out.{suffix}"
    assert carry(source, target) == []
    check_heard(source, target, alike=0.9)
    codec, _, channels = stream_facts(target)
    assert channels <= max(2, stream_facts(source)[2])
    if suffix == "webm":
        assert codec in ("opus", "vorbis")
    with open_video(target) as result:
        assert [frame.time for frame in result] == [frame.time for frame in open_video(source)]
        assert (result.problem(), result.start) == (None, 0)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_sound_of_an_old_camera(tmp_path, suffix):
    assert carry(CASES / "mulaw04.mov", tmp_path / f"a.{suffix}") == []
    assert abs(heard(tmp_path / f"a.{suffix}")[1] - 0.4) < 0.06


def test_channels_without_places_are_mixed(tmp_path):
    """Three microphones in one file: nothing says which is left and which is right."""
    source = tmp_path / "in.mkv"
    record(tmp_path / "plain.mkv", TIMES, codec="pcm_s16le")
    with av.open(str(tmp_path / "plain.mkv")) as container, av.open(str(source), "w") as output:
        video = output.add_stream_from_template(container.streams.video[0])
        sound = output.add_stream("pcm_s16le", rate=RATE, layout="3 channels")
        for packet in container.demux(video=0):
            if packet.size:
                packet.stream = video
                output.mux(packet)
        samples = np.repeat((chirp(1.0) * 32767).astype(np.int16), 3)[None]
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="s16", layout="3 channels")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        output.mux(sound.encode(frame))
        output.mux(sound.encode(None))
    assert carry(source, tmp_path / "out.mp4") == []
    late, alike = shift(chirp(0.9), heard(tmp_path / "out.mp4")[0][: round(0.9 * RATE)])
    assert (abs(late) < 0.005, alike > 0.97) == (True, True)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("layout", "channels"), [("7.1", 8), ("hexadecagonal", 16)])
def test_sound_of_many_channels(tmp_path, layout, channels, suffix):
    """PyAV reads memory that is not there in frames of eight planes or more, which ended the process."""
    source = tmp_path / "in.mkv"
    record(tmp_path / "plain.mkv", TIMES, codec="pcm_s16le")
    with av.open(str(tmp_path / "plain.mkv")) as container, av.open(str(source), "w") as output:
        video = output.add_stream_from_template(container.streams.video[0])
        sound = output.add_stream("aac", rate=RATE, layout=layout)
        for packet in container.demux(video=0):
            if packet.size:
                packet.stream = video
                output.mux(packet)
        samples = np.repeat(chirp(1.0), channels)[None]
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="flt", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        for part in av.AudioResampler("fltp", layout, RATE, frame_size=1024).resample(frame):
            output.mux(sound.encode(part))
        output.mux(sound.encode(None))
    assert carry(source, tmp_path / f"out.{suffix}") == []
    late, alike = shift(chirp(0.9), heard(tmp_path / f"out.{suffix}")[0][: round(0.9 * RATE)])
    assert (abs(late) < 0.05, alike > 0.9) == (True, True)


@pytest.mark.parametrize("seed", range(5))
def test_sound_that_cannot_be_decoded_is_left_out_and_said_so(tmp_path, seed):
    rng = np.random.default_rng(seed)
    source = record(tmp_path / "in.mov", TIMES, codec="aac", video_codec="libx264")
    noise = source.read_bytes()
    for _, content in packets(source):
        noise = noise.replace(content, rng.bytes(len(content)) if len(content) > 16 else content)
    (tmp_path / "noise.mov").write_bytes(noise)
    said = carry(tmp_path / "noise.mov", tmp_path / "out.mp4")
    with open_video(tmp_path / "out.mp4") as result:
        assert len(list(result)) == 25
        assert result.has_audio or (len(said) == 1 and "is left out" in said[0])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_sound_does_not_end_the_job(tmp_path, suffix):
    whole = record(tmp_path / "in.ts", TIMES, codec="aac").read_bytes()
    rng = np.random.default_rng(0)
    for attempt in range(3):
        damaged = bytearray(whole)
        for place in rng.integers(len(whole) // 3, len(whole), 60):
            damaged[place] ^= 0x55
        (tmp_path / "damaged.ts").write_bytes(damaged)
        said = carry(tmp_path / "damaged.ts", tmp_path / f"{attempt}.{suffix}")
        assert len(said) <= 1
        with open_video(tmp_path / f"{attempt}.{suffix}") as result:
            assert len(list(result)) > 5
            assert result.problem() is None


def test_without_an_encoder_the_next_is_taken_and_without_any_the_sound_is_left_out(tmp_path, monkeypatch):
    source = CASES / "mulaw04.mov"
    monkeypatch.setattr(sound_check, "_ENCODERS", ("no_such_encoder", "libopus", "ac3"))
    assert carry(source, tmp_path / "a.mp4") == []
    assert stream_facts(tmp_path / "a.mp4")[0] in ("opus", "ac3")
    monkeypatch.setattr(sound_check, "_ENCODERS", ("no_such_encoder",))
    said = carry(source, tmp_path / "b.mp4")
    assert said == [f"the sound of {source} is left out: this build of FFmpeg has no encoder of sound for .mp4 files"]
    with open_video(tmp_path / "b.mp4") as result:
        assert (result.has_audio, len(list(result))) == (False, 10)


def test_sound_that_fails_on_the_way_ends_and_the_pictures_go_on(tmp_path, monkeypatch):
    from dagan.media.sound import SoundTrack

    def fail(self, encoding):
        yield from []
        raise av.FFmpegError(22, "Invalid argument")

    monkeypatch.setattr(SoundTrack, "_encode", fail)
    said = carry(CASES / "mulaw04.mov", tmp_path / "a.mp4")
    assert len(said) == 1
    assert "mulaw04.mov is left out from 0.0 s on" in said[0]
    with open_video(tmp_path / "a.mp4") as result:
        assert len(list(result)) == 10


def test_packets_without_times_follow_each_other(tmp_path):
    """Raw sound in AVI, and a file whose packets lost their times."""
    line = sound_samples_line()
    frames = []
    for start in range(0, RATE, 1024):
        frame = av.AudioFrame.from_ndarray(chirp(1.0)[None, start : start + 1024].copy(), format="fltp", layout="mono")
        frame.sample_rate = RATE
        frames += line.add(frame, None)
    frames += line.flush()
    assert [frame.pts for frame in frames] == np.cumsum([0, *(frame.samples for frame in frames[:-1])]).tolist()
    assert np.abs(np.concatenate([frame.to_ndarray()[0] for frame in frames])[:RATE] - chirp(1.0)).max() < 1e-6


def test_pauses_become_silence_and_overlaps_are_left_out():
    line = sound_samples_line()
    out = []
    for time, value in ((-0.1, 0.1), (0.4, 0.2), (2.0, 0.3), (1.9, 0.4), (2.2, 0.5)):
        frame = av.AudioFrame.from_ndarray(np.full((1, RATE // 5), value, np.float32), format="fltp", layout="mono")
        frame.sample_rate = RATE
        out += [part.to_ndarray()[0] for part in line.add(frame, time)]
    heard_values = np.concatenate(out)[RATE // 20 :: RATE // 10]
    assert len(heard_values) == 24
    expected = [0.1, 0, 0, 0, 0.2, 0.2, *[0] * 14, 0.3, 0.3, 0.5, 0.5]
    assert np.abs(heard_values - np.array(expected, np.float32)).max() < 1e-6


def sound_samples_line():
    from dagan.media.sound import _Line

    return _Line(sound_check.Encoding("aac", RATE, "mono", 96_000))
