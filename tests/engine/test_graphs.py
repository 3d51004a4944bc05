"""Engines on exported graphs: the same results as PyTorch's, the same motion files, one sentence for what cannot work."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dagan
from dagan.engine import open as door
from dagan.engine import sessions
from dagan.engine.graphs import GraphEngine
from dagan.engine.open import open_engine
from dagan.engine.sessions import available, read_note
from dagan.engine.torch import TorchEngine
from dagan.errors import InputError
from dagan.export.job import ExportOptions
from dagan.media.video import VideoWriter
from dagan.weights import read_model
from running_samples import moving_pictures, tiny_model, write_clip

PICTURES = moving_pictures(3)


def test_all_runtimes_are_there():
    assert available() == ["torch", "onnxruntime", "openvino"]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_engine_gives_what_torch_gives(onnx_folder, runtime):
    exact, engine = TorchEngine(tiny_model()), open_engine(onnx_folder, runtime, precision="float32")
    for member in ("name", "size", "keypoint_count", "has_depth", "depth_range", "precision", "detector_digest", "face", "align_corners"):
        assert getattr(engine, member) == getattr(exact, member), member
    assert engine.device == f"cpu ({runtime})"
    found, wanted = engine.keypoints(PICTURES), exact.keypoints(PICTURES)
    np.testing.assert_allclose(found.value, wanted.value, atol=1e-4)
    np.testing.assert_allclose(found.jacobian, wanted.jacobian, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(engine.disparity(PICTURES), exact.disparity(PICTURES), atol=1e-4)
    source, wanted_source = engine.encode(PICTURES[0]), exact.encode(PICTURES[0])
    np.testing.assert_allclose(source.keypoints.value, wanted_source.keypoints.value, atol=1e-4)
    for batch in (slice(0, 3), slice(1, 2)):
        result, wanted_result = engine.render(source, found[batch]), exact.render(wanted_source, wanted[batch])
        assert result.dtype == np.uint8
        assert np.abs(result.astype(int) - wanted_result).max() <= 1
    assert wanted_result.std() > 5
    drawing, wanted_drawing = engine.draw(source, found), exact.draw(wanted_source, wanted)
    np.testing.assert_allclose(drawing.images, wanted_drawing.images, atol=2e-3)
    np.testing.assert_allclose(drawing.deformation, wanted_drawing.deformation, atol=2e-3)


def test_results_outlive_the_next_call(onnx_folder):
    """A runtime that hands out its own buffers would overwrite them."""
    for runtime in ("onnxruntime", "openvino"):
        engine = open_engine(onnx_folder, runtime)
        first = engine.keypoints(PICTURES[:1])
        kept = first.value.clone()
        source, depth = engine.encode(PICTURES[0]), engine.disparity(PICTURES[:1])
        before = engine.render(source, first), depth.copy()
        engine.keypoints(PICTURES[2:])
        engine.disparity(PICTURES[2:])
        engine.encode(PICTURES[2])
        assert (first.value == kept).all()
        assert (depth == before[1]).all()
        assert (engine.render(source, first) == before[0]).all()


def test_bfloat16_keeps_coordinates_exact(onnx_folder):
    exact, rough = (open_engine(onnx_folder, "openvino", precision=p) for p in ("float32", "bfloat16"))
    assert rough.precision == "bfloat16"
    keypoints = exact.keypoints(PICTURES)
    results = [e.render(e.encode(PICTURES[0]), keypoints).astype(int) for e in (exact, rough)]
    difference = np.abs(results[0] - results[1])
    assert difference.max() > 0  # it is another precision
    assert difference.mean() < 0.5


def test_the_animator_takes_any_engine(onnx_folder):
    frames = []
    for engine in (TorchEngine(tiny_model()), open_engine(onnx_folder)):
        animator = dagan.Animator(engine)
        animator.set_source(PICTURES[0])
        frames.append(animator.animate_batch(PICTURES).astype(int))
    assert np.abs(frames[0] - frames[1]).max() <= 1


def test_a_model_is_exported_once(onnx_folder, tmp_path, monkeypatch):
    """Into the cache, by its weights; said once."""
    monkeypatch.setattr(door, "cache_folder", lambda: tmp_path)
    exported, told = [], []

    def export(model, folder):
        exported.append(folder)
        shutil.copytree(onnx_folder, folder)

    path = onnx_folder.parent / "model.safetensors"
    for model in (path, str(path), read_model(path)):
        assert open_engine(model, "onnxruntime", warn=told.append, export=export).name == "tiny-64"
    assert len(exported) == len(told) == 1
    assert str(exported[0]) in told[0]
    open_engine(tiny_model(seed=1), "openvino", warn=told.append, export=export)
    assert exported[1] != exported[0]


def test_what_does_not_go_together(onnx_folder, openvino_folder, tmp_path, monkeypatch):
    cases = [
        ((onnx_folder, "torch"), {}, "holds onnx graphs, which --runtime torch cannot run: use onnxruntime or openvino"),
        ((openvino_folder, "onnxruntime"), {}, "holds openvino graphs.* use openvino"),
        ((onnx_folder, "tensorrt"), {}, "tensorrt"),
        (("lite-256", "tensorrt"), {}, "runtime 'tensorrt' is unknown: use torch, onnxruntime or openvino"),
        ((onnx_folder, "onnxruntime"), {"precision": "bfloat16"}, "does not compute in 'bfloat16': use auto or float32"),
        ((onnx_folder,), {"device": "cuda"}, "computes on the CPU here"),
        ((onnx_folder,), {"batch_size": 0}, "batch size is 0"),
        ((tmp_path,), {}, "does not exist"),
        ((str(tmp_path / "nowhere"), "openvino"), {}, "no model is called"),
    ]
    for arguments, options, words in cases:
        with pytest.raises(InputError, match=words):
            open_engine(*arguments, **options)
    flat = GraphEngine(onnx_folder, replace(read_note(onnx_folder), has_depth=False), "onnxruntime")
    with pytest.raises(InputError, match="no depth network"):
        flat.disparity(PICTURES)
    with pytest.raises(InputError, match="takes uint8"):
        open_engine(openvino_folder).keypoints([np.zeros((32, 64, 3), np.uint8)])
    monkeypatch.setattr(sessions, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"the runtime openvino is not installed: pip install 'dagan\[export\]'"):
        open_engine(openvino_folder)


def test_damaged_graphs(onnx_folder, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(onnx_folder, folder)
    graph = folder / "keypoints.onnx"
    whole = graph.read_bytes()
    graph.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"keypoints\.onnx is damaged"):
        open_engine(folder).keypoints(PICTURES)
    for runtime in ("onnxruntime", "openvino"):
        with pytest.raises(InputError, match=f"cannot be read by {runtime}"):
            sessions.open_session(graph, runtime)
    graph.unlink()
    with pytest.raises(InputError, match=r"keypoints\.onnx is missing"):
        open_engine(folder).keypoints(PICTURES)


@pytest.fixture
def run(onnx_folder, tmp_path, monkeypatch, command):
    """run(command, *arguments) -> (status, what was printed, what was complained of), in a folder with photo.png and clip.mp4."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PICTURES[0]).save("photo.png")
    write_clip(tmp_path / "clip.mp4", moving_pictures(5), sound=True)
    return command


def test_animate_with_every_runtime(run, onnx_folder, tmp_path, monkeypatch):
    written = []
    write = VideoWriter.write
    monkeypatch.setattr(VideoWriter, "write", lambda self, image, *when: (written.append(image.astype(int)), write(self, image, *when)))
    base = ("animate", "photo.png", "clip.mp4", "--no-crop", "--side-by-side", "--batch-size", 2, "--precision", "float32")
    model = onnx_folder.parent / "model.safetensors"
    kinds = {"a": (model, "--device", "cpu"), "b": (onnx_folder,), "c": (onnx_folder, "--runtime", "openvino")}
    for name, (where, *more) in kinds.items():
        status, printed, complaints = run(*base, "-o", f"{name}.mp4", "--json", f"{name}.json", "--model", where, *more)
        assert (status, complaints) == (0, "")
        assert "5 frames" in printed
    devices = [json.loads((tmp_path / f"{name}.json").read_text())["device"] for name in kinds]
    assert devices == ["cpu", "cpu (onnxruntime)", "cpu (openvino)"]
    films = np.stack(written).reshape(3, 5, 64, 4, 64, 3)  # source, driving, depth, result
    assert np.abs(films[1:] - films[:1])[:, :, :, [0, 1, 3]].max() <= 1
    assert np.abs(films[1:] - films[:1])[:, :, :, 2].mean() < 1  # colours stretch the last bits of an untrained depth map


def test_motion_files_fit_every_runtime(run, onnx_folder):
    model = onnx_folder.parent / "model.safetensors"
    base = ("animate", "photo.png", "clip.mp4", "--no-crop", "-o", "a.mp4", "--save-motion", "a.motion", "--model", onnx_folder)
    assert run(*base)[0] == 0
    for i, more in enumerate(((model,), (onnx_folder, "--runtime", "openvino"))):
        assert run("animate", "photo.png", "a.motion", "--no-crop", "-o", f"{i}.mp4", "--model", *more)[::2] == (0, "")


def test_depth_with_a_runtime(run, onnx_folder, tmp_path):
    for name, more in (("a", (onnx_folder.parent / "model.safetensors", "--precision", "float32")), ("b", (onnx_folder,))):
        assert run("depth", "photo.png", "--no-crop", "-o", f"{name}.npz", "--model", *more)[0] == 0
    maps = [np.load(tmp_path / f"{name}.npz")["disparity"] for name in "ab"]
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-4)


def test_the_export_command(run, onnx_folder, monkeypatch):
    from dagan.export import job

    asked = []

    def export(model, folder, options, progress):
        asked.append((model.config.name, folder.name, options))
        return read_note(onnx_folder)

    monkeypatch.setattr(job, "export_model", export)
    status, printed, _ = run("export", "-o", "new", "--format", "openvino", "--model", onnx_folder.parent / "model.safetensors")
    assert status == 0
    assert asked == [("tiny-64", "new", ExportOptions(kind="openvino"))]
    assert "new: tiny-64 as onnx\n  encoder.onnx: float32, differs from PyTorch by " in printed
    for arguments, words in (
        (("-o", onnx_folder), "exists already"),
        (("-o", "new", "--model", "nowhere.safetensors"), "nowhere.safetensors does not exist"),
        (("-o", "new", "--int8"), "--int8 needs --calibration"),
        (("-o", "new", "--int8", "--calibration", "nowhere"), "data folder nowhere does not exist"),
        (("-o", "new", "--calibration", "."), "clips to calibrate on are for int8"),
        (("-o", "new", "--format", "tensorrt"), "format 'tensorrt' is unknown: use onnx or openvino"),
    ):
        status, printed, complaints = run("export", *arguments)
        assert (status, printed) == (2, "")
        assert words in complaints
        assert complaints.count("\n") == 1
    assert run("animate", "photo.png", "clip.mp4", "-o", "x.mp4", "--model", onnx_folder, "--runtime", "torch")[0] == 2
    for words in ("animate photo.png clip.mp4 -o x.mp4", "depth photo.png -o x.png", "bench"):
        status, _, complaints = run(*words.split(), "--runtime", "tensorrt")
        assert (status, complaints.count("\n")) == (2, 1)
        assert complaints.startswith("dagan: runtime 'tensorrt' is unknown: use torch, onnxruntime or openvino")


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/x/cache"}, Path("/x/cache/dagan")),
        ("linux", {}, Path("/home/me/.cache/dagan")),
        ("darwin", {}, Path("/home/me/Library/Caches/dagan")),
        ("win32", {"LOCALAPPDATA": "/c/Local"}, Path("/c/Local/dagan/Cache")),
        ("win32", {}, Path("/home/me/AppData/Local/dagan/Cache")),
    ],
)
def test_cache_folder_of_each_platform(monkeypatch, platform, variables, expected):
    monkeypatch.setattr(door.sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert door.cache_folder() == expected


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_signals_come_through_when_another_thread_has_dropped_a_session(onnx_folder, runtime):
    """On processors with AMX the process would end by a segmentation fault."""
    script = f"""
import gc, signal, threading
from pathlib import Path
from dagan.engine.sessions import open_session

sessions, heard = [open_session(Path({str(onnx_folder / "generator.onnx")!r}), {runtime!r})], []
signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
thread = threading.Thread(target=lambda: (sessions.clear(), gc.collect()))
thread.start()
thread.join()
signal.raise_signal(signal.SIGINT)
print(len(heard))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "1"), done.stderr
