"""`dagan animate` and `dagan depth` take files as what they hold, and shrink huge photos only where these are the output."""

import shutil
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from dagan.animate.driving import is_motion_file
from dagan.media.images import is_animation, is_photo, is_video
from dagan.media.video import open_video
from running_samples import decoded, frame_times, moving_pictures, write_clip

DELAYS = [70, 30, 200, 100, 150]  # milliseconds


def save_animation(path, pictures, delays, **options):
    first, *others = [Image.fromarray(picture) for picture in pictures]
    first.save(path, save_all=True, append_images=others, duration=delays, **options)
    return path


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [("a.webp", "WEBP", {"lossless": True}), ("a.png", "PNG", {}), ("a.gif", "GIF", {}), ("a.mp4", "WEBP", {}), ("a.jpg", "PNG", {})],
)
def test_an_animated_picture_drives_with_its_own_times(files, run, tmp_path, name, kind, options):
    path = save_animation(tmp_path / name, moving_pictures(5), DELAYS, format=kind, **options)
    assert (is_photo(path), is_animation(path), is_video(path)) == (False, True, False)
    with open_video(path) as reader:
        frames = list(reader)
        assert (reader.frame_count, reader.duration, reader.has_audio) == (5, Fraction(55, 100), False)
    assert [frame.time for frame in frames] == [Fraction(t, 1000) for t in (0, 70, 100, 300, 400)]
    assert [frame.duration for frame in frames] == [Fraction(delay, 1000) for delay in DELAYS]
    if kind != "GIF":
        assert np.abs(frames[3].image.astype(int) - moving_pictures(5)[3]).mean() < 8
    status, printed, complaints = run(driving=path)
    assert (status, complaints) == (0, "")
    assert "5 frames" in printed
    assert frame_times(tmp_path / "out.mp4") == [frame.time for frame in frames]


def test_delays_that_were_never_meant_play_as_in_browsers(tmp_path):
    path = save_animation(tmp_path / "a.png", moving_pictures(3), [0, 10, 20])
    assert [frame.duration for frame in open_video(path)] == [Fraction(1, 10), Fraction(1, 10), Fraction(1, 50)]


def test_the_picture_for_other_programs_is_not_animated(tmp_path):
    pictures = [Image.fromarray(picture) for picture in moving_pictures(4)]
    pictures[0].save(tmp_path / "a.png", save_all=True, append_images=pictures[1:], default_image=True, duration=40)
    frames = list(open_video(tmp_path / "a.png"))
    assert [frame.time for frame in frames] == [Fraction(i, 25) for i in range(3)]
    assert np.array_equal(frames[0].image, np.asarray(pictures[1]))


def test_a_cut_off_animation_gives_what_it_holds(files, run, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (6, 64, 64, 3), dtype=np.uint8)
    path = save_animation(tmp_path / "a.png", list(noise), 40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    status, printed, complaints = run(driving=path)
    assert status == 0
    assert "3 frames" in printed
    assert "cut off: 3 of about 6 frames" in complaints


def test_an_animated_source_is_its_first_frame(files, run, written, tmp_path):
    portrait = np.asarray(Image.open(files / "portrait.png").convert("RGB"))
    path = save_animation(tmp_path / "portrait.webp", [portrait, 255 - portrait], 40, lossless=True)
    assert run("--reference", "first", source=path, output="a.mp4")[0] == 0
    assert run("--reference", "first", output="b.mp4")[0] == 0
    half = len(written) // 2
    assert np.array_equal(np.stack(written[:half]), np.stack(written[half:]))


def test_names_do_not_matter(files, run, tmp_path):
    video, photo, motion = tmp_path / "video.jpg", tmp_path / "photo.mp4", tmp_path / "motion.mp4"
    shutil.copy(files / "clip.mp4", video)
    shutil.copy(files / "portrait.png", photo)
    assert (is_photo(video), is_video(video), is_photo(photo), is_video(photo)) == (False, True, True, False)
    assert run("--save-motion", "a.motion", driving=video, source=photo)[0] == 0
    shutil.move(tmp_path / "a.motion", motion)
    assert (is_motion_file(motion), is_video(motion), is_motion_file(video)) == (True, False, False)
    assert run("--overwrite", driving=motion, source=photo)[0] == 0
    shutil.copy(files / "clip.mp4", tmp_path / "clip.motion")
    assert run("--overwrite", driving=tmp_path / "clip.motion")[0] == 0


@pytest.mark.parametrize(
    ("source", "driving", "words"),
    [
        ("portrait.png", "photo.mp4", "photo.mp4 is a photo, and nothing moves in it"),
        ("portrait.png", "portrait.png", "portrait.png is a photo, and nothing moves in it"),
    ],
)
def test_what_cannot_work_is_said_of_the_contents(files, run, tmp_path, source, driving, words):
    shutil.copy(files / "clip.mp4", tmp_path / "video.jpg")
    shutil.copy(files / "portrait.png", tmp_path / "photo.mp4")
    places = {name: next(p for p in (tmp_path / name, files / name) if p.exists()) for name in (source, driving)}
    status, _, complaints = run(source=places[source], driving=places[driving])
    assert (status, complaints.count("\n"), words in complaints) == (2, 1, True), complaints


@pytest.mark.parametrize(
    ("arguments", "size", "width", "height"),
    [([], (2100, 1400), 1920, 1280), (["--max-side", "256"], (512, 384), 256, 192), ([], (640, 480), 640, 480)],
)
def test_huge_photos_are_pasted_back_smaller(files, run, tmp_path, arguments, size, width, height):
    Image.fromarray(moving_pictures(1, *size)[0]).save(tmp_path / "photo.png")
    clip = write_clip(tmp_path / "short.mp4", moving_pictures(3))
    status, _, complaints = run("--paste-back", *arguments, source=tmp_path / "photo.png", driving=clip)
    assert status == 0
    assert decoded(tmp_path / "out.mp4").shape == (3, height, width, 3)
    said = f"photo.png is {size[0]} x {size[1]} pixels: the video is made at {width} x {height} (--max-side"
    assert (said in complaints) == (size != (width, height))
    assert complaints.count("\n") == (size != (width, height))
    status, _, complaints = run("--overwrite", source=tmp_path / "photo.png", driving=clip)
    assert (status, complaints) == (0, "")


def test_a_side_that_is_no_size_is_refused(run):
    status, _, complaints = run("--paste-back", "--max-side", "3")
    assert status == 2
    assert "--max-side is 3 pixels: must be at least 16" in complaints
