"""`dagan depth` from end to end, with a tiny random model."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from PIL import Image

from dagan.depth import point_cloud
from dagan.engine.torch import TorchEngine
from dagan.media.colour import colour_table, colourise, robust_range
from dagan.media.video import open_video
from dagan.weights import read_model
from running_samples import TINY, assert_refused, decoded, frame_times, moving_pictures, save_tiny_model, sound_packets, write_clip

FRAMES = 7


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a model, a photo, a clip with sound and a folder of images; tests only read from it."""
    folder = tmp_path_factory.mktemp("files")
    save_tiny_model(folder / "model.safetensors")
    Image.fromarray(moving_pictures(1, 64, 64, seed=5)[0]).save(folder / "photo.png")
    uneven = [Fraction(t, 100) for t in (0, 4, 8, 20, 21, 30, 40)]
    write_clip(folder / "clip.mp4", moving_pictures(FRAMES, 96, 64), sound=True, times=uneven)
    (folder / "images").mkdir()
    for i, picture in enumerate(moving_pictures(3)):
        Image.fromarray(picture).save(folder / "images" / f"{i}.png")
    return folder


@pytest.fixture
def run(files, tmp_path, monkeypatch, command):
    """run(input, output, *arguments) -> (status, what was printed, what was complained of)."""
    monkeypatch.chdir(tmp_path)

    def call(source, output, *arguments, model=files / "model.safetensors", crop=False):
        line = ["depth", source, "-o", output, "--model", model, "--device", "cpu", "--precision", "float32", *arguments]
        return command(*line, *([] if crop else ["--no-crop"]))

    return call


@pytest.fixture(scope="module")
def engine(files):
    return TorchEngine(read_model(files / "model.safetensors"))


def photo(files):
    return np.asarray(Image.open(files / "photo.png"))


def test_a_photo_as_colours(files, run, engine, tmp_path):
    status, printed, complaints = run(files / "photo.png", "depth.png", "--colours", "turbo")
    assert (status, printed, complaints) == (0, "depth.png: depth of 1 frame\n", "")
    disparity = engine.disparity([photo(files)])[0]
    wanted = colourise(disparity, *robust_range(disparity), colour_table("turbo"))
    got = np.asarray(Image.open(tmp_path / "depth.png"))
    assert (got == wanted).all()
    assert len(np.unique(got.reshape(-1, 3), axis=0)) > 50


def test_a_photo_as_numbers(files, run, engine, tmp_path):
    assert run(files / "photo.png", "depth.npz")[0] == 0
    with np.load(tmp_path / "depth.npz", allow_pickle=False) as loaded:
        assert loaded["disparity"].dtype == np.float32
        assert loaded["disparity"] == pytest.approx(engine.disparity([photo(files)])[0], abs=1e-6)
        assert loaded["framing"].tolist() == [0, 0, 64, 64]
        assert loaded["picture_size"].tolist() == [64, 64]
        assert loaded["depth_range"].tolist() == [0.1, 100]


@pytest.mark.parametrize("focal", [None, 3.0])
def test_a_photo_as_points(files, run, engine, tmp_path, focal):
    assert run(files / "photo.png", "depth.ply", *([] if focal is None else ["--focal", focal]))[0] == 0
    content = (tmp_path / "depth.ply").read_bytes()
    head, _, body = content.partition(b"end_header\n")
    assert b"element vertex 4096" in head
    vertices = np.frombuffer(body, [("place", "<f4", 3), ("colour", "u1", 3)])
    disparity = engine.disparity([photo(files)])[0]
    assert vertices["place"] == pytest.approx(point_cloud(disparity, (0.1, 100.0), focal or 1.5), rel=1e-4)
    assert (vertices["colour"] == photo(files).reshape(-1, 3)).all()


def test_a_video_as_colours_keeps_times_and_sound(files, run, tmp_path):
    status, printed, complaints = run(files / "clip.mp4", "depth.mp4")
    assert (status, printed, complaints) == (0, f"depth.mp4: depth of {FRAMES} frames\n", "")
    assert frame_times(tmp_path / "depth.mp4") == frame_times(files / "clip.mp4")
    assert sound_packets(tmp_path / "depth.mp4") == sound_packets(files / "clip.mp4") != []
    assert decoded(tmp_path / "depth.mp4").shape == (FRAMES, 64, 64, 3)


def test_one_range_of_colours_serves_the_whole_video(files, run, engine, tmp_path, monkeypatch):
    from dagan.media.video import VideoWriter

    written = []
    write = VideoWriter.write
    monkeypatch.setattr(VideoWriter, "write", lambda self, image, *when: (written.append(image.copy()), write(self, image, *when)))
    assert run(files / "clip.mp4", "depth.mp4", "--colours", "gray")[0] == 0
    assert run(files / "clip.mp4", "depth.npz")[0] == 0
    with np.load(tmp_path / "depth.npz") as loaded:
        disparity = loaded["disparity"]
    low, high = robust_range(disparity[:, ::4, ::4])
    wanted = colourise(disparity, low, high, colour_table("gray"))
    assert np.abs(np.stack(written).astype(int) - wanted).max() <= 1


def test_a_video_as_numbers(files, run, engine, tmp_path):
    assert run(files / "clip.mp4", "depth.npz", "--batch-size", "3")[0] == 0
    with np.load(tmp_path / "depth.npz", allow_pickle=False) as loaded:
        assert loaded["disparity"].shape == (FRAMES, 64, 64)
        assert loaded["times"].tolist() == [0, 0.04, 0.08, 0.2, 0.21, 0.3, 0.4]
        assert loaded["framing"].tolist() == [[16, 0, 80, 64]] * FRAMES
        assert loaded["picture_size"].tolist() == [96, 64]
        with open_video(files / "clip.mp4") as reader:
            pictures = [frame.image[:, 16:80] for frame in reader]
        assert loaded["disparity"] == pytest.approx(engine.disparity(pictures), abs=1e-5)


@pytest.mark.parametrize("output", ["depth.mp4", "depth.npz"])
def test_a_folder_of_images(files, run, tmp_path, output):
    assert run(files / "images", output, "--frame-rate", "10")[0] == 0
    if output == "depth.mp4":
        assert frame_times(tmp_path / output) == [Fraction(0), Fraction(1, 10), Fraction(1, 5)]
    else:
        with np.load(tmp_path / output) as loaded:
            assert loaded["times"].tolist() == [0, 0.1, 0.2]


def test_the_face_is_cropped_by_default(run, tmp_path):
    from skimage.data import astronaut

    Image.fromarray(astronaut()).save(tmp_path / "photo.png")
    write_clip(tmp_path / "clip.mp4", [astronaut()] * 4)
    assert run(tmp_path / "photo.png", "a.npz", crop=True)[0] == 0
    assert run(tmp_path / "clip.mp4", "b.npz", crop=True)[0] == 0
    with np.load(tmp_path / "a.npz") as still, np.load(tmp_path / "b.npz") as moving:
        left, top, right, bottom = still["framing"]
        assert left < 180
        assert right > 270
        assert top < 70
        assert bottom > 180
        assert right - left == pytest.approx(bottom - top)
        assert 150 < right - left < 300
        assert moving["framing"][0] == pytest.approx(still["framing"], abs=15)
        assert moving["disparity"][2] == pytest.approx(still["disparity"], abs=0.2)


def test_a_picture_without_a_face_is_refused(files, run, tmp_path):
    for source, output in ((files / "photo.png", "a.png"), (files / "clip.mp4", "a.mp4")):
        status, _, complaints = run(source, output, crop=True)
        assert status == 2
        assert "no face found" in complaints
        assert not (tmp_path / output).exists()


def bad_inputs(files, folder):
    """(input, output, arguments, words of the complaint)"""
    (folder / "fake.mp4").write_bytes(b"not a video" * 100)
    (folder / "fake.png").write_bytes(b"not an image" * 100)
    (folder / "none").mkdir()
    image, clip = files / "photo.png", files / "clip.mp4"
    return [
        ("missing.png", "a.png", [], "missing.png does not exist"),
        (folder / "fake.png", "a.png", [], "fake.png is not an image"),
        (folder / "fake.mp4", "a.mp4", [], "fake.mp4 cannot be read as a video"),
        (folder / "none", "a.mp4", [], "holds no images"),
        (image, "a.mp4", [], "is one picture: its depth is written to .png"),
        (clip, "a.jpg", [], "holds many pictures: their depth is written to .mp4"),
        (clip, "a.ply", [], "holds many pictures"),
        (files / "images", "a.jpg", [], "holds many pictures"),
        (image, "a.txt", [], "ends in '.txt': depth is written to .png"),
        (image, image, [], "is an input too"),
        (image, image, ["--overwrite"], "is an input too"),
        (image, "a.png", ["--colours", "infern"], "no colour map 'infern'"),
        (image, "a.ply", ["--focal", "0"], "focal length is 0"),
        (clip, "a.mp4", ["--frame-rate", "10"], "--frame-rate is for a folder"),
        (image, "a.png", ["--batch-size", "0"], "batch size is 0"),
        (image, "a.png", ["--device", "tpu"], "device 'tpu' is unknown"),
    ]


def test_bad_input_ends_with_one_line_and_leaves_nothing(files, run, tmp_path):
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for source, output, arguments, words in bad_inputs(files, inputs):
        assert_refused(partial(run, source, output, *arguments), words, (tmp_path, files), (source, output, arguments))


def test_a_model_without_depth_is_refused(files, run, tmp_path):
    model = save_tiny_model(tmp_path / "rgb.safetensors", config=replace(TINY, name="tiny-rgb", use_depth=False))
    status, _, complaints = run(files / "photo.png", "a.png", model=model)
    assert status == 2
    assert "has no depth network" in complaints


@pytest.mark.parametrize("output", ["a.png", "a.npz", "a.ply"])
def test_existing_outputs_are_kept_without_overwrite(files, run, tmp_path, output):
    (tmp_path / output).write_text("mine")
    status, _, complaints = run(files / "photo.png", output)
    assert (status, "exists already" in complaints) == (2, True)
    assert (tmp_path / output).read_text() == "mine"
    assert run(files / "photo.png", output, "--overwrite")[0] == 0
    assert (tmp_path / output).stat().st_size > 100


def test_a_cut_off_video_is_said_so(files, run, tmp_path):
    content = write_clip(tmp_path / "whole.mkv", moving_pictures(60)).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) * 2 // 3])
    for output in ("a.mp4", "a.npz"):
        status, _, complaints = run(tmp_path / "cut.mkv", output)
        assert status == 0
        assert complaints.count("cut off") == 1


PEAK = """
import sys
from pathlib import Path
from dagan.depth import DepthOptions, measure_depth
from dagan.processes import peak_memory_mb
from dagan.engine.open import open_engine
engine = open_engine(sys.argv[1], device="cpu", precision="float32")
measure_depth(engine, Path(sys.argv[2]), Path(sys.argv[3]), DepthOptions(crop=False))
print(peak_memory_mb())
"""


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mp4", ".npz"])
def test_memory_does_not_grow_with_length(files, tmp_path, suffix):
    peaks = {}
    for count in (20, 170):
        clip = write_clip(tmp_path / f"{count}.mp4", moving_pictures(10, 512, 512) * (count // 10))
        command = [sys.executable, "-c", PEAK, files / "model.safetensors", clip, tmp_path / f"out{count}{suffix}"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        peaks[count] = float(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)
    # 150 more frames would be 118 MB as decoded.
    assert peaks[170] - peaks[20] < 40
