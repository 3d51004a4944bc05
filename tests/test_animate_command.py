"""`dagan animate` from end to end, with a tiny random model: times, sound, rotation, every option, everything that can be wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dagan.animate.animator import Animator
from dagan.animate.motion import read_motion, save_motion
from dagan.animate.pipeline import AnimateOptions, animate
from dagan.errors import InputError
from dagan.media.video import VideoWriter, open_video
from dagan.weights import read_model
from running_samples import TINY, decoded, frame_times, moving_pictures, save_tiny_model, sound_packets, write_clip

FRAMES = 11  # not a multiple of the batch sizes used


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a model, a portrait and a driving clip with sound; tests only read from it."""
    folder = tmp_path_factory.mktemp("files")
    save_tiny_model(folder / "model.safetensors")
    Image.fromarray(moving_pictures(1, 80, 70, seed=5)[0]).save(folder / "portrait.png")
    write_clip(folder / "clip.mp4", moving_pictures(FRAMES, 96, 64), sound=True)
    return folder


@pytest.fixture
def run(files, tmp_path, monkeypatch, command):
    """run(*arguments, source=, driving=, output=) -> (status, what was printed, what was complained of)."""
    monkeypatch.chdir(tmp_path)

    clip, weights = files / "clip.mp4", files / "model.safetensors"

    def call(*arguments, source=files / "portrait.png", driving=clip, output="out.mp4", model=weights, crop=False):
        line = ["animate", source, driving, "-o", output, "--model", model, "--device", "cpu", "--precision", "float32"]
        line += arguments if crop else (*arguments, "--no-crop")
        return command(*line)

    return call


def results(files, driving, *, size=64, batch=4, source="portrait.png", reference=None, **options):
    """What the Python interface gives for the same input, written by the same writer."""
    animator = Animator(read_model(files / "model.safetensors"), batch_size=batch, **options)
    animator.set_source(np.asarray(Image.open(files / source)))
    if reference is not None:
        with open_video(driving) as reader:
            animator.set_reference(next(frame.image for frame in reader if frame.index == reference))
    return np.stack(list(animator.video(driving)))


@pytest.fixture
def written(monkeypatch):
    """The pictures that were handed to the encoder, which is lossy, so far."""
    pictures = []
    write = VideoWriter.write
    monkeypatch.setattr(VideoWriter, "write", lambda self, image, *when: (pictures.append(image.copy()), write(self, image, *when)))
    return pictures


def test_the_output_has_every_frame_and_the_sound(files, run, tmp_path):
    status, printed, complaints = run("--batch-size", "4", "--json", "report.json")
    assert (status, complaints) == (0, "")
    assert f"out.mp4: {FRAMES} frames, 0.44 s at 25 a second, with sound" in printed
    assert frame_times(tmp_path / "out.mp4") == frame_times(files / "clip.mp4") == [Fraction(i, 25) for i in range(FRAMES)]
    assert decoded(tmp_path / "out.mp4").shape == (FRAMES, 64, 64, 3)
    assert sound_packets(tmp_path / "out.mp4") == sound_packets(files / "clip.mp4") != []
    report = json.loads((tmp_path / "report.json").read_text())
    expected = {
        "frames": FRAMES, "frame_rate": "25", "seconds": 0.44, "model": "tiny-64", "device": "cpu", "precision": "float32", "sound": True,
        "truncated": False, "damaged_parts": 0, "pictures_searched": 0, "without_face": 0, "several_faces": False, "warnings": [],
        "device_memory_mb": None, "output": "out.mp4",
    }  # fmt: skip
    assert {key: report[key] for key in expected} == expected
    assert 0 <= report["reference_frame"] < FRAMES
    assert report["frames_per_second"] == pytest.approx(FRAMES / report["wall_seconds"], rel=0.01)
    assert 50 < report["peak_memory_mb"] < 5000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.mp4", "report.json"]


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--reference", "first"], {}),
        (["--reference", "first", "--no-adapt-scale"], {"adapt_scale": False}),
        (["--reference", "7"], {"reference": 7}),
        (["--absolute"], {"relative": False}),
    ],
)
def test_it_equals_the_python_interface(files, run, written, arguments, options):
    status, _, complaints = run(*arguments, "--batch-size", "4")
    assert (status, complaints) == (0, "")
    wanted = results(files, files / "clip.mp4", **options)
    # A reference frame in the middle is found in a batch there and alone here: the last bits differ.
    assert np.abs(np.stack(written).astype(int) - wanted).max() <= (1 if "reference" in options else 0)


def test_the_options_make_a_difference(files):
    clip = files / "clip.mp4"
    kinds = [{}, {"adapt_scale": False}, {"reference": 7}, {"relative": False}]
    frames = [results(files, clip, **options).astype(int) for options in kinds]
    for i, a in enumerate(frames):
        for b in frames[:i]:
            assert np.abs(a - b).max() > 3


def test_uneven_times_are_kept(files, run, tmp_path):
    times = [Fraction(t, 1000) for t in (0, 40, 80, 200, 210, 600, 1000)]
    clip = write_clip(tmp_path / "uneven.mp4", moving_pictures(7), times=times, sound=True)
    assert run(driving=clip)[0] == 0
    assert frame_times(tmp_path / "out.mp4") == frame_times(clip)
    assert sound_packets(tmp_path / "out.mp4") == sound_packets(clip) != []


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(30), Fraction(15)])
def test_frame_rates_are_exact(files, run, tmp_path, rate):
    with VideoWriter(tmp_path / "clip.mp4", 64, 64, rate=rate) as writer:
        for i, picture in enumerate(moving_pictures(6)):
            writer.write(picture, i / rate)
    assert run("--json", "r.json", driving=tmp_path / "clip.mp4")[0] == 0
    assert frame_times(tmp_path / "out.mp4") == frame_times(tmp_path / "clip.mp4")
    assert json.loads((tmp_path / "r.json").read_text())["frame_rate"] == str(rate)


def test_a_turned_video_is_read_upright(run, written, tmp_path):
    """A phone's portrait video is stored lying down: it must drive as the same pictures stored upright do."""
    pictures = moving_pictures(6)
    stored = [np.rot90(picture, -1).copy() for picture in pictures]
    lying = write_clip(tmp_path / "lying.mp4", stored, rotation=90)
    (tmp_path / "upright").mkdir()
    with open_video(write_clip(tmp_path / "without.mp4", stored)) as reader:
        for frame in reader:
            upright = np.rot90(frame.image, 1)
            assert np.abs(upright.astype(int) - pictures[frame.index]).mean() < 12
            Image.fromarray(upright).save(tmp_path / "upright" / f"{frame.index}.png")
    for driving, output in ((lying, "a.mp4"), (tmp_path / "upright", "b.mp4")):
        assert run("--reference", "first", driving=driving, output=output)[0] == 0
    assert (np.stack(written[:6]) == np.stack(written[6:])).all()


def test_a_folder_of_images_drives_at_its_own_rate(files, run, written, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    pictures = moving_pictures(5)
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{i + 8}.png")  # 8, 9, 10, ...: numbers, not text
    assert run("--frame-rate", "12.5", "--reference", "first", driving=folder)[0] == 0
    assert frame_times(tmp_path / "out.mp4") == [i * Fraction(2, 25) for i in range(5)]
    animator = Animator(read_model(files / "model.safetensors"))
    animator.set_source(np.asarray(Image.open(files / "portrait.png")))
    wanted = np.concatenate([animator.animate_batch(pictures[:4]), animator.animate_batch(pictures[4:])])
    # Rounding depends on how many threads share a layer: all of them here, one in the job.
    assert np.abs(np.stack(written).astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("suffix", [".mov", ".mkv", ".webm", ".gif"])
def test_other_formats(files, run, tmp_path, suffix):
    status, printed, complaints = run(output=f"out{suffix}")
    assert status == 0
    assert len(decoded(tmp_path / f"out{suffix}")) == FRAMES
    if suffix == ".gif":
        assert "sound" in complaints
        assert "with sound" not in printed
    else:
        assert complaints == ""
        assert sound_packets(tmp_path / f"out{suffix}")


def test_side_by_side(files, run, tmp_path):
    assert run("--side-by-side", "--reference", "first", "--batch-size", "4")[0] == 0
    got = decoded(tmp_path / "out.mp4").astype(int)
    assert got.shape == (FRAMES, 64, 4 * 64, 3)
    source = np.asarray(Image.open(files / "portrait.png"))[:, 5:75]
    shrunk = np.asarray(Image.fromarray(source).resize((64, 64), Image.Resampling.LANCZOS))
    assert np.abs(got[:, :, :64] - shrunk).mean() < 6
    driving = decoded(files / "clip.mp4")[:, :, 16:80]
    assert np.abs(got[:, :, 64:128] - driving).mean() < 6
    wanted = results(files, files / "clip.mp4")
    assert np.abs(got[:, :, 192:] - wanted).mean() < 6
    depth = got[:, :, 128:192]
    assert min(np.abs(depth - other).mean() for other in (shrunk, driving, wanted)) > 20


def test_side_by_side_without_depth_has_three_pictures(files, run, tmp_path):
    model = save_tiny_model(tmp_path / "rgb.safetensors", config=replace(TINY, name="tiny-rgb", use_depth=False))
    assert run("--side-by-side", model=model)[0] == 0
    assert decoded(tmp_path / "out.mp4").shape == (FRAMES, 64, 3 * 64, 3)


def test_paste_back_keeps_the_rest_of_the_photo(files, run, tmp_path):
    photo = np.full((100, 200, 3), (30, 90, 160), np.uint8)
    photo[:, 50:150] = np.asarray(Image.fromarray(moving_pictures(1, seed=5)[0]).resize((100, 100)))
    Image.fromarray(photo).save(tmp_path / "photo.png")
    assert run("--paste-back", source=tmp_path / "photo.png")[0] == 0
    got = decoded(tmp_path / "out.mp4").astype(int)
    assert got.shape == (FRAMES, 100, 200, 3)
    assert np.abs(got[:, :, :44] - photo[:, :44]).max() < 8
    assert np.abs(got[:, :, 156:] - photo[:, 156:]).max() < 8
    assert np.abs(got[:, 10:90, 60:140] - photo[10:90, 60:140]).mean() > 5  # the middle is the model's


def test_a_motion_file_gives_the_frames_of_its_video(files, run, written, tmp_path):
    assert run("--save-motion", "a.motion", "--batch-size", "4", "--json", "a.json")[0] == 0
    assert run("--batch-size", "4", "--json", "b.json", driving="a.motion", output="again.mp4")[0] == 0
    assert len(written) == 2 * FRAMES
    assert (np.stack(written[:FRAMES]) == np.stack(written[FRAMES:])).all()
    assert frame_times(tmp_path / "again.mp4") == frame_times(tmp_path / "out.mp4")
    assert sound_packets(tmp_path / "again.mp4") == []
    a, b = (json.loads((tmp_path / f"{name}.json").read_text()) for name in "ab")
    assert a["reference_frame"] == b["reference_frame"]
    assert b["sound"] is False
    motion = read_motion(tmp_path / "a.motion")
    assert (len(motion), motion.model, motion.image_size, motion.rate) == (FRAMES, "tiny-64", 64, 25)
    assert motion.times == tuple(Fraction(i, 25) for i in range(FRAMES + 1))


def test_a_motion_file_may_get_another_reference(files, run, written, tmp_path):
    assert run("--save-motion", "a.motion", "--reference", "3")[0] == 0
    assert read_motion(tmp_path / "a.motion").reference == 3
    assert run("--reference", "5", driving="a.motion", output="five.mp4")[0] == 0
    assert run("--reference", "5", output="wanted.mp4")[0] == 0
    three, five, wanted = (np.stack(written[i * FRAMES : (i + 1) * FRAMES]).astype(int) for i in range(3))
    assert (five == wanted).all()
    assert np.abs(three - wanted).max() > 3


def test_the_reference_most_like_the_source_is_found(files, run, tmp_path):
    """The source is one of the driving frames: auto must find it."""
    for index in (2, 8):
        Image.fromarray(decoded(files / "clip.mp4")[index]).save(tmp_path / "frame.png")
        assert run("--json", f"{index}.json", "--overwrite", source=tmp_path / "frame.png")[0] == 0
        assert json.loads((tmp_path / f"{index}.json").read_text())["reference_frame"] == index


def test_a_motion_of_another_model_is_refused_and_of_another_training_warned_of(files, run, tmp_path):
    assert run("--save-motion", "a.motion")[0] == 0
    other = save_tiny_model(tmp_path / "other.safetensors", seed=1)
    status, _, complaints = run(driving="a.motion", output="b.mp4", model=other)
    assert status == 0
    assert "another training of 'tiny-64'" in complaints
    renamed = save_tiny_model(tmp_path / "renamed.safetensors", seed=1, config=replace(TINY, name="renamed"))
    status, _, complaints = run(driving="a.motion", output="c.mp4", model=renamed)
    assert (status, "made with model 'tiny-64'" in complaints) == (2, True)
    fewer = save_tiny_model(tmp_path / "fewer.safetensors", config=replace(TINY, keypoints=replace(TINY.keypoints, count=5)))
    status, _, complaints = run(driving="a.motion", output="c.mp4", model=fewer)
    assert (status, "6 keypoints a frame" in complaints) == (2, True)
    assert not (tmp_path / "c.mp4").exists()


def test_a_cut_off_video_is_animated_as_far_as_it_goes_and_said_so(files, run, tmp_path):
    clip = write_clip(tmp_path / "whole.mkv", moving_pictures(60))
    content = clip.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) * 2 // 3])
    status, _, complaints = run("--json", "r.json", driving=tmp_path / "cut.mkv")
    report = json.loads((tmp_path / "r.json").read_text())
    assert status == 0
    assert "cut off" in complaints
    assert report["truncated"] is True
    assert [warning for warning in report["warnings"] if "cut off" in warning]
    assert 10 < report["frames"] < 60
    assert len(decoded(tmp_path / "out.mp4")) == report["frames"]


def bad_inputs(files, folder):
    """(name, arguments for `run`, words of the complaint)"""
    (folder / "text.txt").write_text("not a video")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "fake.mp4").write_bytes(b"not a video" * 100)
    (folder / "fake.png").write_bytes(b"not an image" * 100)
    (folder / "no_frames").mkdir()
    Image.fromarray(moving_pictures(1)[0]).save(folder / "photo.data", format="png")
    pickled = folder / "pickled.safetensors"
    pickled.write_bytes(b"\x80\x04}q\x00.")
    clip = files / "clip.mp4"
    return [
        ([], {"source": "missing.png"}, "missing.png does not exist"),
        ([], {"source": folder / "fake.png"}, "fake.png is not an image"),
        ([], {"source": clip}, "SOURCE is the photo"),
        ([], {"source": folder / "no_frames"}, "is a folder"),
        ([], {"driving": "missing.mp4"}, "missing.mp4 does not exist"),
        ([], {"driving": folder / "empty.mp4"}, "empty.mp4 is empty"),
        ([], {"driving": folder / "fake.mp4"}, "fake.mp4 cannot be read as a video"),
        ([], {"driving": folder / "text.txt"}, "text.txt"),
        ([], {"driving": folder / "no_frames"}, "holds no images"),
        ([], {"driving": files / "portrait.png"}, "is a photo, and nothing moves in it: give as DRIVING a video"),
        ([], {"driving": folder / "photo.data"}, "is a photo"),
        ([], {"driving": "missing.motion"}, "missing.motion does not exist"),
        ([], {"driving": files / "model.safetensors"}, "is a model file, not a motion file"),
        ([], {"driving": pickled}, "not a readable motion file"),
        ([], {"output": "out.txt"}, "ends in '.txt': a video is written to .mp4"),
        ([], {"output": "out"}, "has no suffix"),
        ([], {"output": folder}, "is a folder"),
        ([], {"output": folder / "text.txt" / "out.mp4"}, "text.txt"),
        ([], {"output": clip, "driving": clip}, "is an input too"),
        (["--overwrite"], {"output": clip, "driving": clip}, "is an input too"),
        (["--save-motion", "out.mp4"], {}, "named for two outputs"),
        (["--save-motion", "a.npz"], {}, "a motion is written to .motion"),
        (["--json", "a.txt"], {}, "a report is written to .json"),
        ([], {"model": "nowhere.safetensors"}, "nowhere.safetensors does not exist"),
        ([], {"model": pickled}, "not a readable safetensors file"),
        ([], {"model": "lite-257"}, "no model is called 'lite-257'"),
        (["--device", "tpu"], {}, "device 'tpu' is unknown"),
        (["--precision", "int4"], {}, "precision 'int4' is unknown"),
        (["--batch-size", "0"], {}, "batch size is 0"),
        (["--reference", "last"], {}, "auto, first or a frame number"),
        (["--reference", "11"], {}, "reference frame 11 does not exist: the driving video has 11 frames, numbered 0 to 10"),
        (["--side-by-side", "--paste-back"], {}, "choose one"),
        (["--frame-rate", "25"], {}, "--frame-rate is for a folder"),
        (["--frame-rate", "fast"], {}, "frame rate is 'fast'"),
        (["--frame-rate", "0"], {}, "frame rate is 0"),
        (["--landmarker", "nowhere.task"], {"crop": True}, "nowhere.task does not exist"),
    ]


def test_bad_input_ends_with_one_line_and_leaves_nothing(files, run, tmp_path):
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for arguments, options, words in bad_inputs(files, inputs):
        kept = {path: path.read_bytes() for folder in (tmp_path, files) for path in folder.rglob("*") if path.is_file()}
        status, printed, complaints = run(*arguments, **options)
        told = (arguments, options, complaints)
        assert status == 2, told
        assert printed == "", told
        assert complaints.count("\n") == 1, told
        assert complaints.startswith("dagan: "), told
        assert words in complaints, told
        after = {path: path.read_bytes() for folder in (tmp_path, files) for path in folder.rglob("*") if path.is_file()}
        assert after == kept, told


def test_motion_files_refuse_what_needs_the_video(files, run, tmp_path):
    assert run("--save-motion", "a.motion")[0] == 0
    cases = {
        ("--side-by-side",): "holds none: give the video",
        ("--save-motion", "b.motion"): "is a motion file already",
        ("--reference", "11"): "reference frame 11 does not exist",
        ("--frame-rate", "30"): "has times of its own",
    }
    for arguments, words in cases.items():
        status, _, complaints = run(*arguments, driving="a.motion", output="b.mp4")
        assert (status, complaints.count("\n")) == (2, 1)
        assert words in complaints
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.motion", "out.mp4"]


def test_existing_outputs_are_kept_without_overwrite(files, run, tmp_path):
    for name, arguments in {"out.mp4": [], "a.motion": ["--save-motion", "a.motion"], "r.json": ["--json", "r.json"]}.items():
        (tmp_path / name).write_text("mine")
        status, _, complaints = run(*arguments)
        assert (status, "exists already" in complaints) == (2, True)
        assert [p.read_text() for p in tmp_path.iterdir()] == ["mine"]
        assert run(*arguments, "--overwrite")[0] == 0
        assert all(p.stat().st_size > 100 for p in tmp_path.iterdir())
        for path in tmp_path.iterdir():
            path.unlink()


def test_outputs_are_checked_before_the_model_is_opened(files, tmp_path):
    (tmp_path / "out.mp4").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        animate(files / "portrait.png", files / "clip.mp4", tmp_path / "out.mp4", AnimateOptions(model="not looked at", crop=False))


def test_a_damaged_motion_leaves_nothing(files, run, tmp_path):
    assert run("--save-motion", "a.motion")[0] == 0
    content = (tmp_path / "a.motion").read_bytes()
    (tmp_path / "b.motion").write_bytes(content[: len(content) // 2])
    status, _, complaints = run(driving="b.motion", output="b.mp4")
    assert (status, complaints.count("\n")) == (2, 1)
    assert not (tmp_path / "b.mp4").exists()


def test_progress_names_its_stages_in_order(files, tmp_path):
    told = []
    options = AnimateOptions(model=str(files / "model.safetensors"), device="cpu", crop=False)
    animate(files / "portrait.png", files / "clip.mp4", tmp_path / "out.mp4", options, lambda *step: told.append(step))
    assert list(dict.fromkeys(stage for stage, _, _ in told)) == ["reading the motion", "drawing"]
    assert told[-1] == ("drawing", FRAMES, FRAMES)
    assert [done for stage, done, _ in told if stage == "drawing"] == list(range(FRAMES + 1))


PEAK = """
import sys
from pathlib import Path
from dagan.animate.pipeline import AnimateOptions, animate
folder = Path(sys.argv[1])
options = AnimateOptions(model=str(folder / "model.safetensors"), device="cpu", precision="float32", crop=False, side_by_side=True)
print(animate(folder / "portrait.png", Path(sys.argv[2]), Path(sys.argv[3]), options).peak_memory_mb)
"""


def test_memory_does_not_grow_with_length(files, tmp_path):
    peaks = {}
    for count in (20, 170):
        clip = write_clip(tmp_path / f"{count}.mp4", moving_pictures(10, 512, 512) * (count // 10), sound=True)
        command = [sys.executable, "-c", PEAK, files, clip, tmp_path / f"out{count}.mp4"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        peaks[count] = float(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)
    # 150 more frames would be 118 MB as decoded, 470 MB as floats.
    assert peaks[170] - peaks[20] < 40


INTERRUPTED = """
import itertools, signal, sys
from dagan.cli import main
from dagan.inference.engine import Engine
from dagan.media.video import VideoWriter

owner, name, left = {"reading": (Engine, "keypoints", 5), "drawing": (VideoWriter, "write", 20)}[sys.argv.pop()]
method = getattr(owner, name)
calls = itertools.count(1)  # of several threads
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background passes on that it ignores Ctrl-C

def interrupted(*arguments):
    if next(calls) == left:
        signal.raise_signal(signal.SIGINT)  # what Ctrl-C does
    return method(*arguments)

setattr(owner, name, interrupted)
main()
"""


@pytest.mark.parametrize("stage", ["reading", "drawing"])
def test_an_interrupt_leaves_no_litter(files, tmp_path, stage):
    clip = write_clip(tmp_path / "clip.mp4", moving_pictures(30), sound=True)
    folder = tmp_path / "new" / "folder"
    command = [
        sys.executable, "-c", INTERRUPTED, "animate", files / "portrait.png", clip, "-o", folder / "out.mp4",
        "--save-motion", folder / "a.motion", "--json", folder / "r.json", "--model", files / "model.safetensors", "--no-crop",
        "--device", "cpu", "--batch-size", "1", stage,
    ]  # fmt: skip
    process = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert (process.returncode, process.stdout) == (130, "")
    assert "Traceback" not in process.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]


@pytest.fixture(scope="module")
def astronaut():
    from skimage.data import astronaut as picture

    return picture()


@pytest.fixture
def cascade(monkeypatch, tmp_path):
    """Faces are found with the method that needs no download."""
    monkeypatch.setenv("DAGAN_OFFLINE", "1")
    monkeypatch.delenv("DAGAN_FACE_LANDMARKER", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def swaying(picture, count):
    """The picture moved about by a few pixels."""
    return [np.roll(picture, (int(6 * np.sin(i)), int(8 * np.cos(i))), (0, 1))[8:-8, 8:-8] for i in range(count)]


@pytest.mark.usefixtures("cascade")
def test_faces_are_found_and_cropped_in_both(files, run, tmp_path, astronaut):
    wide = np.full((512, 800, 3), 128, np.uint8)
    wide[:, 200:712] = astronaut
    Image.fromarray(wide).save(tmp_path / "photo.png")
    clip = write_clip(tmp_path / "face.mp4", swaying(astronaut, 12))
    status, _, complaints = run("--side-by-side", "--json", "r.json", source=tmp_path / "photo.png", driving=clip, crop=True)
    assert status == 0
    assert "simpler method" in complaints
    got = decoded(tmp_path / "out.mp4")
    # Both crops show the same face in the same way, though one picture is wide and the other square.
    source = got[:, :, :64].astype(int)
    assert np.abs(source - got[:, :, 64:128]).mean() < 30
    assert np.abs(source - np.asarray(Image.fromarray(astronaut).resize((64, 64)))).mean() > 50
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["pictures_searched"] > 0
    assert report["without_face"] == 0
    assert report["several_faces"] is False


@pytest.mark.usefixtures("cascade")
def test_paste_back_puts_the_face_where_it_was(files, run, tmp_path, astronaut):
    Image.fromarray(astronaut).save(tmp_path / "photo.png")
    clip = write_clip(tmp_path / "face.mp4", swaying(astronaut, 4))
    assert run("--paste-back", source=tmp_path / "photo.png", driving=clip, crop=True)[0] == 0
    got = decoded(tmp_path / "out.mp4").astype(int)
    assert got.shape == (4, 512, 512, 3)
    difference = np.abs(got - astronaut).mean((0, 3))
    assert difference[400:, :].mean() < 6  # below the face: the photo
    assert difference[50:150, 180:260].mean() > 2 * difference[400:, :].mean()  # the face: the model's


@pytest.mark.usefixtures("cascade")
def test_pictures_without_a_face_are_refused(files, run, tmp_path, astronaut):
    Image.fromarray(astronaut).save(tmp_path / "photo.png")
    for source, driving, words in (
        (files / "portrait.png", files / "clip.mp4", "no face found in"),
        (tmp_path / "photo.png", files / "clip.mp4", "clip.mp4"),
    ):
        status, _, complaints = run(source=source, driving=driving, crop=True)
        assert status == 2
        assert "no face found" in complaints
        assert words in complaints
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.usefixtures("cascade")
def test_frames_with_a_missing_face_are_counted(run, tmp_path, astronaut):
    pictures = swaying(astronaut, 20)
    blank = [np.full_like(pictures[0], 90) for _ in range(10)]
    clip = write_clip(tmp_path / "face.mp4", pictures + blank)
    Image.fromarray(astronaut).save(tmp_path / "photo.png")
    status, _, complaints = run("--json", "r.json", source=tmp_path / "photo.png", driving=clip, crop=True)
    assert status == 0
    assert "no face in" in complaints
    report = json.loads((tmp_path / "r.json").read_text())
    assert 0 < report["without_face"] < report["pictures_searched"]
    assert len(decoded(tmp_path / "out.mp4")) == 30


@pytest.mark.usefixtures("cascade")
def test_the_interface_crops_as_the_command_does(files, run, written, tmp_path, astronaut):
    Image.fromarray(astronaut).save(tmp_path / "photo.png")
    clip = write_clip(tmp_path / "face.mp4", swaying(astronaut, 6))
    assert run("--reference", "first", "--batch-size", "4", source=tmp_path / "photo.png", driving=clip, crop=True)[0] == 0
    animator = Animator(read_model(files / "model.safetensors"), batch_size=4)
    animator.set_source(astronaut, crop=True)
    wanted = np.stack(list(animator.video(clip, crop=True)))
    assert (np.stack(written) == wanted).all()


def test_saving_an_edited_motion(files, run, tmp_path):
    """Motion is plain data: half the speed, the same frames."""
    assert run("--save-motion", "a.motion")[0] == 0
    motion = read_motion(tmp_path / "a.motion")
    slow = replace(motion, times=tuple(2 * t for t in motion.times), rate=motion.rate / 2)
    save_motion(tmp_path / "slow.motion", slow)
    assert run(driving="slow.motion", output="slow.mp4")[0] == 0
    assert frame_times(tmp_path / "slow.mp4") == [2 * t for t in frame_times(tmp_path / "out.mp4")]
    assert Path("slow.mp4").exists()
