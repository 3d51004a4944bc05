"""Animated pictures as outputs: delays that browsers keep, the right length in total, frames left out where there are too many."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dagan.media.animations import Pace
from dagan.media.video import VideoWriter, open_video

CASES = Path(__file__).parents[1] / "cases"
SUFFIXES = ["gif", "webp", "png", "apng"]
SHORTEST = {"gif": 20, "webp": 11, "png": 11, "apng": 11}  # milliseconds


def write(path, times, last=None, rate=25, time_base=None):
    with VideoWriter(path, 64, 48, rate=rate, time_base=time_base) as writer:
        for i, time in enumerate(times):
            writer.write(np.full((48, 64, 3), 40 + 3 * (i % 60), np.uint8), time, last)
    return shown(path)


def shown(path):
    """(milliseconds, number of the frame as `write` coded it) of each picture, by Pillow; the format; how often it repeats."""
    with Image.open(path) as image:
        pictures = []
        for i in range(getattr(image, "n_frames", 1)):
            image.seek(i)
            image.load()
            pictures.append((image.info.get("duration") or 0, round((float(np.asarray(image.convert("RGB")).mean()) - 40) / 3)))
        return pictures, image.format, image.info.get("loop")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("rate", "kept"), [(60, {"gif": 40}), (120, {"gif": 50}), (240, {"gif": 50}), (50, {}), (Fraction(30000, 1001), {})]
)
def test_delays_are_long_enough_and_the_total_is_right(tmp_path, suffix, rate, kept):
    count = round(rate)
    pictures, kind, loop = write(tmp_path / f"a.{suffix}", [i / Fraction(rate) for i in range(count)], rate=rate)
    delays = [delay for delay, _ in pictures]
    assert min(delays) >= SHORTEST[suffix]
    assert abs(sum(delays) - 1000 * count / rate) <= {"gif": 5, "webp": 0.5}.get(suffix, 0.01)
    assert len(pictures) == kept.get(suffix, len(pictures))
    if rate <= 60 and suffix != "gif":
        assert len(pictures) == count
    begins = np.cumsum([0, *delays[:-1]])
    for begin, (_, number) in zip(begins, pictures, strict=True):  # every frame that is left is shown when it was to be shown
        numbers = [i for i in range(count) if abs(1000 * i / rate - begin) <= {"gif": 5.01, "webp": 0.51}.get(suffix, 0.1)]
        assert number in [i % 60 for i in numbers]
    assert (kind, loop) == ({"gif": "GIF", "webp": "WEBP"}.get(suffix, "PNG"), 0)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_uneven_times_and_a_long_last_frame(tmp_path, suffix):
    times = [Fraction(t, 100) for t in (0, 4, 10, 30, 33, 133)]
    pictures, _, _ = write(tmp_path / f"a.{suffix}", times, last=Fraction(5, 2))
    assert [round(delay) for delay, _ in pictures] == [40, 60, 200, 30, 1000, 2500]
    assert [number for _, number in pictures] == list(range(6))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_frame_that_stands_for_half_an_hour(tmp_path, suffix):
    """A GIF counts a delay in 16 bits, 655 s: the frame is there more than once."""
    pictures, _, _ = write(tmp_path / f"a.{suffix}", [Fraction(0), Fraction(1, 25), Fraction(1800)])
    assert abs(sum(delay for delay, _ in pictures) - 1_800_040) <= 1
    assert [number for _, number in pictures] == ([0, 1, 1, 1, 2] if suffix == "gif" else [0, 1, 2])


def test_a_single_frame_is_a_picture(tmp_path):
    for suffix in SUFFIXES:
        pictures, _, _ = write(tmp_path / f"a.{suffix}", [Fraction(0)], last=Fraction(1, 1000))
        assert len(pictures) == 1
    assert shown(tmp_path / "a.gif")[0][0][0] == 20


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_recorded_case_of_60_frames_a_second(tmp_path, suffix):
    with open_video(CASES / "d60.mp4") as reader:
        options = {"rate": reader.rate, "time_base": reader.time_base}
        with VideoWriter(tmp_path / f"a.{suffix}", 64, 64, **options) as writer:
            for frame in reader.frames(max_side=64):
                writer.write(frame.image, frame.time, frame.duration)
    pictures, _, _ = shown(tmp_path / f"a.{suffix}")
    assert writer.frames_written == 60
    assert min(delay for delay, _ in pictures) >= SHORTEST[suffix]
    assert abs(sum(delay for delay, _ in pictures) - 1000) < 0.6


@pytest.mark.parametrize("suffix", ["webp", "png"])
def test_colours_are_kept(tmp_path, suffix):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 150, 120), (128, 128, 128), (255, 255, 255)]
    with VideoWriter(tmp_path / f"a.{suffix}", 65, 47) as writer:
        for i, colour in enumerate(colours):
            writer.write(np.broadcast_to(np.array(colour, np.uint8), (47, 65, 3)), Fraction(i, 25))
    with Image.open(tmp_path / f"a.{suffix}") as image:
        assert image.size == (65, 47)
        for i, colour in enumerate(colours):
            image.seek(i)
            assert np.abs(np.asarray(image.convert("RGB")).astype(int) - colour).max() <= (0 if suffix == "png" else 4)


def test_the_pictures_may_be_drawn_into_one_array(tmp_path):
    canvas = np.zeros((48, 64, 3), np.uint8)
    with VideoWriter(tmp_path / "a.png", 64, 48) as writer:
        for i in range(5):
            canvas[:] = 40 + 3 * i
            writer.write(canvas, Fraction(i, 25))
    assert [number for _, number in shown(tmp_path / "a.png")[0]] == list(range(5))


def test_the_pace_leaves_out_a_last_frame_that_is_too_short():
    pace = Pace(2, 100)
    image = np.zeros((1, 1, 3), np.uint8)
    times = [time for given in (0, 1, 2, 5, 6) for _, time in pace.add(image, given)]
    times += [time for _, time in pace.finish(6)]
    assert times == [0, 2]
