"""`dagan animate` where something is wrong: one line says what, nothing is left behind, memory stays flat."""

import os
import subprocess
import sys
from functools import partial

import pytest
from PIL import Image

from dagan.weights import read_model, save_model
from running_samples import assert_refused, moving_pictures, write_clip


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
        (["--side-by-side"], {"source": clip}, "is a video: --side-by-side"),
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
    ]


def test_bad_input_ends_with_one_line_and_leaves_nothing(files, run, tmp_path):
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for arguments, options, words in bad_inputs(files, inputs):
        assert_refused(partial(run, *arguments, **options), words, (tmp_path, files), (arguments, options))


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


def test_outputs_are_checked_before_the_model_is_opened(files, command, tmp_path):
    (tmp_path / "out.mp4").write_text("mine")
    status, _, complaint = command(
        "animate", files / "portrait.png", files / "clip.mp4", "-o", tmp_path / "out.mp4", "--model", "not looked at", "--no-crop"
    )
    assert status == 2
    assert "exists already" in complaint


def test_weights_that_find_no_finite_keypoints_are_named(files, run, tmp_path):
    model = read_model(files / "model.safetensors")
    model.keypoint_detector.heatmap.bias.data.fill_(float("nan"))
    save_model(tmp_path / "hurt.safetensors", model)
    status, _, complaints = run("--save-motion", "a.motion")
    assert (status, complaints) == (0, "")
    assert_refused(partial(run, "--overwrite", model=tmp_path / "hurt.safetensors"), "finite keypoints", [tmp_path], "clip")
    status, _, complaints = run("--overwrite", model=tmp_path / "hurt.safetensors", driving=tmp_path / "a.motion")
    assert status == 2
    assert "finds no finite keypoints in the source picture" in complaints


def test_a_damaged_motion_leaves_nothing(files, run, tmp_path):
    assert run("--save-motion", "a.motion")[0] == 0
    content = (tmp_path / "a.motion").read_bytes()
    (tmp_path / "b.motion").write_bytes(content[: len(content) // 2])
    status, _, complaints = run(driving="b.motion", output="b.mp4")
    assert (status, complaints.count("\n")) == (2, 1)
    assert not (tmp_path / "b.mp4").exists()


PEAK = """
import sys
from pathlib import Path
from dagan.animate.pipeline import AnimateOptions, animate
from dagan.engine.open import open_engine
folder = Path(sys.argv[1])
engine = open_engine(folder / "model.safetensors", device="cpu", precision="float32")
options = AnimateOptions(crop=False, side_by_side=True)
print(animate(engine, folder / "portrait.png", Path(sys.argv[2]), Path(sys.argv[3]), options).peak_memory_mb)
"""


@pytest.mark.slow
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
from dagan.engine.torch import TorchEngine
from dagan.media.video import VideoWriter

owner, name, left = {"reading": (TorchEngine, "keypoints", 5), "drawing": (VideoWriter, "write", 20)}[sys.argv.pop()]
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


@pytest.mark.slow
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
