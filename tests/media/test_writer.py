"""Writing: times and colours as given, the sound where it was, all or nothing."""

from fractions import Fraction

import av
import numpy as np
import pytest

from dagan.errors import InputError
from dagan.media.video import VideoWriter, open_video
from sound_samples import RATE, heard, shift


def even(count, rate=25):
    return [Fraction(i, rate) for i in range(count)]


def flat(value, width=64, height=48):
    return np.full((height, width, 3), value, np.uint8)


def write(path, times, last=None, **options):
    with VideoWriter(path, 64, 48, **options) as writer:
        for i, time in enumerate(times):
            writer.write(flat(40 + 3 * (i % 60)), time, last)
    return open_video(path)


@pytest.mark.parametrize(("suffix", "tick"), [("mp4", 0), ("mov", 0), ("m4v", 0), ("mkv", 0.0005), ("webm", 0.0005), ("gif", 0.005)])
def test_times_length_and_pictures_in_every_format(tmp_path, suffix, tick):
    times = [i * Fraction(1001, 30000) for i in range(40)]
    reader = write(tmp_path / f"a.{suffix}", times, rate=Fraction(30000, 1001))
    frames = list(reader)
    assert len(frames) == 40
    assert max(abs(f.time - t) for f, t in zip(frames, times, strict=True)) <= tick
    assert abs(reader.duration - 40 * Fraction(1001, 30000)) <= 2 * tick
    assert [round((float(f.image.mean()) - 40) / 3) for f in frames] == list(range(40))
    assert (reader.width, reader.height) == (64, 48)
    if suffix != "gif":
        assert reader.rate == Fraction(30000, 1001)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm"])
def test_variable_rate_and_a_long_last_frame(tmp_path, suffix):
    steps = np.random.default_rng(1).integers(900, 9000, 50)
    times = [Fraction(int(t), 90_000) for t in np.cumsum(steps) - steps[0]]
    reader = write(tmp_path / f"a.{suffix}", times, last=Fraction(2), rate=20, time_base=Fraction(1, 90_000))
    frames = list(reader)
    tick = 0 if suffix == "mp4" else Fraction(1, 2000)
    assert max(abs(f.time - t) for f, t in zip(frames, times, strict=True)) <= tick
    assert abs(reader.duration - times[-1] - 2) <= 2 * tick
    assert abs(frames[-1].duration - 2) <= 2 * tick


def test_round_trip_of_a_driving_video(video, tmp_path):
    """The exact times of a video written by somebody else survive reading and writing."""
    steps = np.random.default_rng(2).integers(3, 1700, 40)
    times = [Fraction(int(t), 10_000) for t in np.cumsum(steps)]
    source = open_video(video("in.mp4", times))
    with VideoWriter(tmp_path / "out.mp4", 64, 48, rate=source.rate, time_base=source.time_base) as writer:
        for frame in source:
            writer.write(frame.image, frame.time, frame.duration)
    out = open_video(tmp_path / "out.mp4")
    assert [f.time for f in out] == [f.time for f in source]
    *_, last = source
    assert abs(out.duration - last.time - last.duration) < Fraction(1, 50)  # MP4 counts in storage order


def test_flat_colours_do_not_shift(tmp_path):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 150, 120), (30, 60, 200), (128, 128, 128), (255, 255, 255), (0, 0, 0)]
    for name, size in (("sd.mp4", 64), ("hd.mp4", 1280), ("vp9.webm", 64), ("mkv.mkv", 64)):  # untagged, SD and HD would differ
        with VideoWriter(tmp_path / name, size, 48) as writer:
            for i, colour in enumerate(colours):
                writer.write(np.broadcast_to(np.array(colour, np.uint8), (48, size, 3)), Fraction(i, 25))
        again = tmp_path / f"again_{name}"
        with VideoWriter(again, size, 48) as writer:
            for frame in open_video(tmp_path / name):
                writer.write(frame.image, frame.time)
        for frame, colour in zip(open_video(again), colours, strict=True):
            assert np.abs(frame.image.astype(int) - colour).mean() < 1.5, (name, colour, frame.image[20, 20])
    with av.open(str(tmp_path / "sd.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        assert context.pix_fmt == "yuv420p"


def test_tags_of_the_source_decide_its_colours(tmp_path):
    """The same colour stored by the BT.601 and the BT.709 matrix, full and limited range, reads back as itself."""
    colour = np.broadcast_to(np.array((200, 60, 30), np.uint8), (48, 64, 3))
    for matrix, tag in ((5, 6), (1, 1)):
        for scale in (1, 2):
            path = tmp_path / f"{tag}{scale}.mp4"
            container = av.open(str(path), "w")
            stream = container.add_stream("libx264", rate=25, options={"crf": "5"})
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.codec_context.colorspace, stream.codec_context.color_range = tag, scale
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(colour))
            container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace=matrix, dst_color_range=scale)))
            container.mux(stream.encode(None))
            container.close()
            image = next(iter(open_video(path))).image
            assert np.abs(image.astype(int) - colour).mean() < 2.5, (tag, scale, image[20, 20])


@pytest.mark.parametrize("size", [(63, 47), (64, 47), (63, 48), (1, 1)])
def test_odd_sizes_are_completed(tmp_path, size):
    width, height = size
    with VideoWriter(tmp_path / "a.mp4", width, height) as writer:
        writer.write(np.full((height, width, 3), 90, np.uint8), Fraction(0))
    image = next(iter(open_video(tmp_path / "a.mp4"))).image
    assert image.shape == (height + height % 2, width + width % 2, 3)
    assert np.abs(image.astype(int) - 90).max() <= 2


@pytest.mark.parametrize(
    ("source", "options", "target", "copied"),
    [
        ("in.mp4", {"sound": "aac"}, "out.mp4", True),
        ("in.mp4", {"sound": "aac"}, "out.mkv", True),
        ("in.mp4", {"sound": "aac"}, "out.webm", False),
        ("in.mp4", {"sound": "libmp3lame"}, "out.mov", True),
        ("in.mp4", {"sound": "aac", "sound_start": 0.7}, "out.mp4", True),
        ("in.mkv", {"sound": "aac"}, "out.mp4", True),
        ("in.mkv", {"sound": "libopus", "sound_rate": 48_000}, "out.webm", True),
        ("in.mkv", {"sound": "libopus", "sound_rate": 48_000}, "out.mov", False),
        ("in.mkv", {"sound": "pcm_s16le"}, "out.mp4", False),
        ("in.mov", {"sound": "pcm_s16le"}, "out.mov", True),
        ("in.ts", {"sound": "aac"}, "out.mp4", True),
    ],
    ids=lambda value: str(value).replace("sound", "") if not isinstance(value, bool) else "copied" if value else "encoded",
)
@pytest.mark.parametrize("start", [0, 28])
def test_sound_stays_where_it_was(video, tmp_path, source, options, target, copied, start):
    """From the first or a later frame on: the same sound at the same time, to 1.5 ms (half a tick of MKV twice)."""
    path = video(source, even(75), **options)
    reader = open_video(path)
    begin = Fraction(start, 25)
    with VideoWriter(tmp_path / target, 64, 48, rate=25, time_base=reader.time_base, audio_from=path, audio_start=begin) as writer:
        for frame in reader:
            if frame.time >= begin:
                writer.write(frame.image, frame.time - begin, frame.duration)
    before, _ = heard(path)
    after, end = heard(tmp_path / target)
    length = round((3 - begin) * RATE)
    late, alike = shift(before[round(begin * RATE) :][:length], after[:length])
    assert abs(late) < 0.0015
    assert alike > 0.97
    assert abs(end - float(3 - begin)) < 0.06
    with av.open(str(path)) as a, av.open(str(tmp_path / target)) as b:
        names = [c.streams.audio[0].codec_context.codec.canonical_name for c in (a, b)]
    assert (names[0] == names[1]) == copied
    result = open_video(tmp_path / target)
    assert len(list(result)) == 75 - start
    assert not result.truncated


def test_sound_starts_with_the_first_picture_even_when_the_file_starts_earlier(video, tmp_path):
    path = video("in.mp4", [Fraction(1, 2) + t for t in even(50)], sound="aac")
    reader = open_video(path)
    assert reader.start == Fraction(1, 2)
    with VideoWriter(tmp_path / "out.mp4", 64, 48, audio_from=path, time_base=reader.time_base) as writer:
        for frame in reader:
            writer.write(frame.image, frame.time)
    late, alike = shift(heard(path)[0], heard(tmp_path / "out.mp4")[0])
    assert (abs(late) < 0.001, alike > 0.99) == (True, True)


def test_sound_ends_with_the_pictures(video, tmp_path):
    path = video("in.mp4", even(50), sound="aac", sound_seconds=6.0)
    write(tmp_path / "out.mp4", even(50), audio_from=path)
    assert 1.98 < heard(tmp_path / "out.mp4")[1] < 2.05


def test_sound_lasts_as_long_as_the_last_picture(video, tmp_path):
    path = video("in.mp4", even(50), sound="aac", sound_seconds=6.0)
    write(tmp_path / "out.mp4", even(25), last=Fraction(2), audio_from=path)
    assert 2.93 < heard(tmp_path / "out.mp4")[1] < 3.0


def test_no_sound_is_fine(video, tmp_path):
    assert not write(tmp_path / "out.mp4", even(10), audio_from=video("in.mp4", even(10))).has_audio
    assert not write(tmp_path / "two.mp4", even(10), audio_from=tmp_path).has_audio  # a folder of images


def test_gif_says_that_the_sound_is_left_out(video, tmp_path):
    said = []
    write(tmp_path / "out.gif", even(10), audio_from=video("in.mp4", even(10), sound="aac"), warn=said.append)
    assert len(said) == 1
    assert "sound" in said[0]
    write(tmp_path / "two.gif", even(10), audio_from=video("mute.mp4", even(10)), warn=said.append)
    assert len(said) == 1


def test_gif_keeps_colours(tmp_path):
    rows, columns = np.mgrid[0:48, 0:64]
    image = np.stack([rows * 5, columns * 4, 255 - rows * 5], axis=-1).astype(np.uint8)
    with VideoWriter(tmp_path / "a.gif", 64, 48) as writer:
        writer.write(image, Fraction(0))
        writer.write(image[::-1].copy(), Fraction(1, 10))
    for frame, expected in zip(open_video(tmp_path / "a.gif"), (image, image[::-1]), strict=True):
        assert np.abs(frame.image.astype(int) - expected).mean() < 6


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_interruption_leaves_nothing(tmp_path, error):
    def stop_halfway():
        with VideoWriter(tmp_path / "new" / "a.mp4", 64, 48) as writer:
            for time in even(60):
                writer.write(flat(90), time)
            raise error

    with pytest.raises(error):
        stop_halfway()
    assert list(tmp_path.iterdir()) == []


def test_refusals(tmp_path):
    with pytest.raises(InputError, match=r"'\.xyz' is none of the video formats.*\.mp4"):
        VideoWriter(tmp_path / "a.xyz", 64, 48)
    with pytest.raises(InputError, match="no video encoder called 'h999'"):
        VideoWriter(tmp_path / "a.mp4", 64, 48, codec="h999")
    with pytest.raises(InputError, match="cannot hold libx264"), VideoWriter(tmp_path / "a.webm", 64, 48, codec="libx264"):
        pytest.fail("the block must not run")
    with pytest.raises(InputError, match="no video encoder"), VideoWriter(tmp_path / "a.mp4", 64, 48, codec="aac"):
        pytest.fail("the block must not run")
    with pytest.raises(InputError, match="no frame"), VideoWriter(tmp_path / "a.mp4", 64, 48):
        pass
    with pytest.raises(ValueError, match="a frame of this video"), VideoWriter(tmp_path / "a.mp4", 64, 48) as writer:
        writer.write(flat(1, 32, 32), Fraction(0))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "old.mp4").write_text("old")
    with pytest.raises(InputError, match="--overwrite"), VideoWriter(tmp_path / "old.mp4", 64, 48):
        pytest.fail("the block must not run")
    assert (tmp_path / "old.mp4").read_text() == "old"


def test_a_video_may_replace_its_own_source(video, tmp_path):
    path = video("a.mp4", even(20), sound="aac")
    reader = open_video(path)
    with VideoWriter(path, 64, 48, audio_from=path, overwrite=True) as writer:
        for frame in reader:
            writer.write(255 - frame.image, frame.time)
    result = open_video(path)
    assert result.has_audio
    assert abs(float(next(iter(result)).image[20:28, 28:36].mean()) - 215) < 3


def test_codec_and_quality_can_be_chosen(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    sizes = []
    for crf in (10, 40):
        with VideoWriter(tmp_path / f"{crf}.mp4", 64, 48, crf=crf) as writer:
            writer.write(noise, Fraction(0))
        sizes.append((tmp_path / f"{crf}.mp4").stat().st_size)
    assert sizes[0] > 2 * sizes[1]
    write(tmp_path / "a.mkv", even(5), codec="mpeg4", rate=Fraction(30000, 1001))
    with av.open(str(tmp_path / "a.mkv")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"


def test_times_on_one_tick_are_set_apart(tmp_path):
    reader = write(tmp_path / "a.mp4", [Fraction(i, 1_000_000) for i in range(5)])
    assert [f.time for f in reader] == [Fraction(i, 10_000) for i in range(5)]


def test_times_do_not_drift_where_the_format_rounds_them(tmp_path):
    """An hour at 29.97 frames a second, of which a few are there, in formats that count milliseconds."""
    times = [i * Fraction(1001, 30000) for i in (*range(40), 54_000, *range(107_800, 107_840))]
    for suffix in ("mkv", "webm"):
        frames = list(write(tmp_path / f"a.{suffix}", times, rate=Fraction(30000, 1001)))
        assert max(abs(f.time - t) for f, t in zip(frames, times, strict=True)) <= Fraction(1, 2000)


@pytest.mark.parametrize("size", [64, 96])
def test_one_thread_writes_the_same_bytes_every_time(tmp_path, size):
    rng = np.random.default_rng(0)
    waves = rng.uniform(2, 9, (40, 3))
    ramp = np.linspace(0, 6, size)
    frames = [(127 + 100 * np.sin(ramp[:, None, None] * w + ramp[None, :, None] * w[::-1] + 0.3 * i)) for i, w in enumerate(waves)]

    others = []

    def written(i):
        others[:] = (rng.bytes(int(rng.integers(1000, 200_000))) for _ in range(20))  # What memory holds differs each time.
        path = tmp_path / f"{i}.mp4"
        with VideoWriter(path, size, size, threads=1) as writer:
            for time, frame in zip(even(40), frames, strict=True):
                writer.write(frame.astype(np.uint8), time)
        return path.read_bytes()

    first = written(0)
    assert all(written(i) == first for i in range(1, 20))


def test_a_frame_that_lasts_longer_than_files_can_say_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"a\.mp4 is not written, because \.mp4 files cannot hold a frame at its time"):
        write(tmp_path / "a.mp4", [Fraction(0), Fraction(1, 25), Fraction(10**6)], time_base=Fraction(1, 90_000))
    assert list(tmp_path.iterdir()) == []
