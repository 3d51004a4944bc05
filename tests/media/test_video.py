"""Reading: exact times, rotation, and a clear answer for every broken file."""

import tracemalloc
import wave
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from PIL import Image

from dagan.errors import InputError
from dagan.media.images import write_image
from dagan.media.video import open_video


def even(count, rate=25):
    return [Fraction(i, rate) for i in range(count)]


def grey(frame):
    """The index that `picture` in conftest.py wrote into a frame as its middle's grey."""
    h, w = frame.image.shape[:2]
    return round((float(frame.image[h // 2 - 2 : h // 2 + 2, w // 2 - 2 : w // 2 + 2].mean()) - 40) / 3)


def test_facts_and_frames(video):
    with open_video(video("a.mp4", even(50))) as reader:
        assert (reader.width, reader.height, reader.rate, reader.frame_count) == (64, 48, 25, 50)
        assert (reader.duration, reader.rotation, reader.has_audio) == (2, 0, False)
        frames = list(reader)
    assert [f.time for f in frames] == even(50)
    assert [f.index for f in frames] == list(range(50))
    assert {f.duration for f in frames} == {Fraction(1, 25)}
    assert [grey(f) for f in frames] == [i % 60 for i in range(50)]
    assert frames[0].image.shape == (48, 64, 3)
    assert frames[0].image.dtype == np.uint8
    assert (reader.frames_read, reader.truncated, reader.damaged, reader.problem()) == (50, False, 0, None)


def test_iterating_again_starts_again_and_interleaves(video):
    reader = open_video(video("a.mp4", even(10)))
    assert [f.index for f in reader] == [f.index for f in reader]
    first, second = iter(reader), iter(reader)
    next(first)
    assert next(second).index == 0
    assert next(first).index == 1
    reader.close()
    assert list(first) == []


def as_usual(suffix):
    """Options of make_video: AVI holds no display times, hence no codec that reorders frames."""
    return {"avi": {"video_codec": "mpeg4", "ticks": 25}, "mp4": {"options": {"movflags": "faststart"}}}.get(suffix, {})


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "avi"])
def test_containers(video, suffix):
    reader = open_video(video(f"a.{suffix}", even(30), **as_usual(suffix)))
    assert [f.time for f in reader] == even(30)
    assert reader.problem() is None
    assert abs(reader.duration - Fraction(30, 25)) <= Fraction(1, 25)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_rate_keeps_every_time(video, suffix):
    steps = np.random.default_rng(0).integers(5, 120, 60)  # milliseconds: what both containers can hold
    times = [Fraction(int(t), 1000) for t in np.cumsum(steps)]
    reader = open_video(video(f"a.{suffix}", times))
    frames = list(reader)
    assert [f.time for f in frames] == [t - times[0] for t in times]
    assert [f.duration for f in frames[:-1]] == [b - a for a, b in pairwise(times)]
    assert reader.start == times[0]
    assert [grey(f) for f in frames] == list(range(60))


@pytest.mark.parametrize(("rotation", "hflip"), [(90, False), (-90, False), (180, False), (0, True), (90, True), (180, True)])
def test_display_matrix_is_applied(video, rotation, hflip):
    plain = next(iter(open_video(video("plain.mp4", even(3))))).image
    reader = open_video(video("turned.mp4", even(3), rotation=rotation, hflip=hflip))
    image = next(iter(reader)).image
    # FFmpeg's own reading of the matrix: rotation first, the mirror after it.
    expected = np.rot90(plain, rotation // 90)
    expected = expected[:, ::-1] if hflip else expected
    assert image.shape == expected.shape == (reader.height, reader.width, 3)
    assert np.abs(image.astype(int) - expected).mean() < 1
    if not hflip:
        assert reader.rotation == rotation % 360


def test_step_and_small_pictures(video):
    reader = open_video(video("a.mp4", even(20), rotation=90))
    frames = list(reader.frames(step=6, max_side=32))
    assert [f.index for f in frames] == [0, 6, 12, 18]
    assert [f.time for f in frames] == [Fraction(i, 25) for i in (0, 6, 12, 18)]
    assert {f.duration for f in frames} == {Fraction(1, 25)}
    assert {f.image.shape for f in frames} == {(32, 24, 3)}
    assert np.abs(np.subtract([grey(f) for f in frames], [0, 6, 12, 18])).max() <= 1


def test_pixels_that_are_not_square(tmp_path):
    path = tmp_path / "a.mkv"
    container = av.open(str(path), "w")
    stream = container.add_stream("libx264", rate=25)
    stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
    stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
    container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 96, 3), np.uint8))))
    container.mux(stream.encode(None))
    container.close()
    reader = open_video(path)
    assert (reader.width, reader.height) == (128, 64)
    assert next(iter(reader)).image.shape == (64, 128, 3)


def test_animated_gif(tmp_path):
    images = [Image.new("RGB", (32, 32), (i * 50, 0, 0)) for i in range(5)]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=[70, 30, 200, 100, 150])
    frames = list(open_video(tmp_path / "a.gif"))
    assert [f.time for f in frames] == [Fraction(t, 100) for t in (0, 7, 10, 30, 40)]
    assert frames[-1].duration == Fraction(15, 100)
    assert [int(f.image[0, 0, 0]) for f in frames] == [0, 50, 100, 150, 200]


def test_recording_without_a_length_in_its_header(video, tmp_path):
    """As browsers write them: the header was never finished."""
    path = tmp_path / "live.mkv"
    video("live.mkv", even(40), options={"live": "1"})
    reader = open_video(path)
    assert abs(reader.frame_count - 40) <= 1
    assert abs(reader.duration - Fraction(40, 25)) < Fraction(1, 10)
    assert len(list(reader)) == 40
    assert not reader.truncated


def test_sound_is_noticed(video):
    assert open_video(video("a.mp4", even(10), sound="aac")).has_audio


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_cut_off_in_the_middle(video, tmp_path, suffix):
    """What can be decoded comes out, then the reader says how much that was."""
    path = video(f"whole.{suffix}", even(200), width=256, height=192, **as_usual(suffix))
    data = path.read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(data[: len(data) * 6 // 10])
    reader = open_video(cut)
    frames = list(reader)
    assert 10 < len(frames) < 200
    assert [f.time for f in frames[:-8]] == even(len(frames) - 8)  # the last ones may lack what they build on
    assert all(a.time < b.time for a, b in pairwise(frames))
    assert reader.truncated
    assert reader.frames_read == len(frames)
    assert f"{len(frames)} of about" in (reader.problem() or "")
    assert "cut off" in (reader.problem() or "")


def test_damage_in_the_middle_is_survived(video):
    path = video("a.mp4", even(100), width=256, height=192)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    path.write_bytes(data)
    reader = open_video(path)
    assert 50 <= len(list(reader)) <= 100
    assert reader.frames_read > 50


def test_bad_files_each_get_a_sentence(tmp_path, video):
    with pytest.raises(InputError, match="does not exist"):
        open_video(tmp_path / "none.mp4")
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(InputError, match="0 bytes"):
        open_video(tmp_path / "empty.mp4")
    for name in ("text.mp4", "text.txt"):
        (tmp_path / name).write_text("this is no video\n" * 40)
        with pytest.raises(InputError, match=f"{name} .*(no video|not a video)"):
            open_video(tmp_path / name)
    whole = video("whole.mp4", even(30)).read_bytes()
    (tmp_path / "headless.mp4").write_bytes(whole[: len(whole) // 2])  # its index lies at the end
    with pytest.raises(InputError, match="header is missing or cut off"):
        open_video(tmp_path / "headless.mp4")


def test_network_play_lists_are_not_followed(tmp_path):
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(InputError, match=r"list\.m3u8"):
        open_video(tmp_path / "list.m3u8")


def test_sound_only(tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))
    with pytest.raises(InputError, match=r"no video stream.*audio"):
        open_video(tmp_path / "a.wav")


def test_header_without_frames(tmp_path, video):
    path = video("a.mp4", even(30), options={"movflags": "faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + 4])
    with pytest.raises(InputError, match="no frame"):
        open_video(path)


def test_folder_of_images(tmp_path):
    for i in range(12):
        write_image(tmp_path / "frames" / f"frame{i}.png", np.full((20, 30, 3), i * 10, np.uint8))
    reader = open_video(tmp_path / "frames", rate=Fraction(30000, 1001))
    frames = list(reader)
    assert [int(f.image[0, 0, 0]) for f in frames] == [i * 10 for i in range(12)]
    assert [f.time for f in frames] == [i * Fraction(1001, 30000) for i in range(12)]
    assert (reader.width, reader.height, reader.frame_count, reader.has_audio) == (30, 20, 12, False)
    assert open_video(tmp_path / "frames").rate == 25
    small = list(reader.frames(step=5, max_side=15))
    assert [f.image.shape for f in small] == [(10, 15, 3)] * 3


def test_folders_that_are_no_video(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="holds no images"):
        open_video(tmp_path)
    write_image(tmp_path / "a.png", np.zeros((20, 30, 3), np.uint8))
    write_image(tmp_path / "b.png", np.zeros((20, 31, 3), np.uint8))
    with pytest.raises(InputError, match=r"b\.png is 31 x 20.*same size"):
        list(open_video(tmp_path))
    with pytest.raises(InputError, match="above 0"):
        open_video(tmp_path, rate=-1)


def test_memory_does_not_grow_with_length(video):
    """Peak of Python-side memory over a pass of 400 frames: a few frames, where all of them would be 46 MB."""
    reader = open_video(video("a.mp4", even(400), width=256, height=150))
    tracemalloc.start()
    try:
        for _ in reader:
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * 256 * 150 * 3
