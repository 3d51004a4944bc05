"""The benchmark measures what it says: figures fit together, runtimes are listed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from dagan import cli
from dagan.bench import job
from dagan.bench.job import BenchOptions, count_gflop, difference, measure, open_model
from dagan.bench.timing import Times, matrix_peak, repeated
from dagan.engine import open as door
from dagan.engine.open import open_engine
from dagan.engine.torch import TorchEngine
from dagan.errors import InputError
from dagan.export.job import export_graphs
from running_samples import moving_pictures, save_tiny_model, tiny_model

OPENER = partial(open_engine, export=export_graphs)
PICTURES = moving_pictures(5)


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    return save_tiny_model(tmp_path / "tiny.safetensors")


def test_difference_sees_a_difference():
    model, other = tiny_model(), tiny_model(seed=1)
    exact = TorchEngine(model)
    assert difference(TorchEngine(model), exact, PICTURES) == (0.0, 0.0)
    mean, largest = difference(TorchEngine(other), exact, PICTURES)
    assert 1 < mean < largest
    low = tiny_model()
    low.compute_dtype = torch.bfloat16
    mean, largest = difference(TorchEngine(low), exact, PICTURES)
    assert 0 < mean < 1


def test_operations_are_counted():
    counted = count_gflop(tiny_model(), PICTURES[0])
    assert set(counted) == {"encode", "keypoints", "draw"}
    # A source has its keypoints found, and features on top.
    assert counted["encode"] > counted["keypoints"] > 0.001


def test_times():
    times = Times.of([0.001] * 90 + [0.003] * 9 + [0.1])
    assert (times.p50, times.least) == (1.0, 1.0)
    assert 1 <= times.p90 <= 3
    assert 3 <= times.p99 <= 100
    calls = []
    repeated(lambda: calls.append(0), seconds=0, least=4)
    assert len(calls) == 5  # one to warm up
    assert matrix_peak(torch.device("cpu"), torch.float32) > 1


def test_a_whole_run_and_its_report(monkeypatch, capsys, tmp_path, model_file):
    report = tmp_path / "report.json"
    words = ["bench", "--model", str(model_file), "--runtime", "torch", "--frames", "9"]
    monkeypatch.setattr(sys, "argv", ["dagan", *words, "--seconds", "0", "--json", str(report)])
    monkeypatch.setattr(job, "matrix_peak", lambda device, dtype: 100.0)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    told = json.loads(report.read_text())
    (figures,) = told["runtimes"]
    assert (told["trained"], figures["runtime"], figures["device"]) == (True, "torch", "cpu")
    for part in figures["parts"]:
        assert 0 < part["single"]["least"] <= part["single"]["p50"] <= part["single"]["p90"] <= part["single"]["p99"]
        assert part["peak_share"] == pytest.approx(part["gflop"] / (part["batch_ms"] / 1000) / 100)
    assert figures["difference_mean"] < 1
    assert figures["video_fps"] > 0
    printed = capsys.readouterr().out
    for word in ("keypoints", "peak memory", "difference"):
        assert word in printed


def test_without_videos(model_file):
    report = measure(BenchOptions(model=str(model_file), runtimes=("torch",), frames=0, seconds=0, precision="float32"), OPENER)
    assert report.runtimes[0].video_fps is None
    assert set(report.peak_gflops) == {"float32"}


def test_presets_without_weights_come_fresh_and_the_same():
    model, trained = open_model("lite-256-rgb", "cpu", "float32")
    again, _ = open_model("lite-256-rgb", "cpu", "float32")
    assert not trained
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert open_model("lite-256", "cpu", "float32")[1]


def test_every_runtime_is_measured(monkeypatch, model_file, tmp_path, known_graphs):
    monkeypatch.setattr(door, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(job, "matrix_peak", lambda device, dtype: 100.0)  # float16 takes a CPU very long
    options = BenchOptions(model=str(model_file), frames=0, seconds=0, precision="float32")
    report = measure(options, OPENER)
    assert [figures.runtime for figures in report.runtimes] == ["torch", "onnxruntime", "openvino"]
    for figures in report.runtimes:
        assert figures.precision == "float32"
        assert figures.difference_mean < 0.1
        assert [part.name for part in figures.parts] == ["encode", "keypoints", "draw"]

    report = measure(replace(options, precision="float16"), OPENER)
    assert [figures.runtime for figures in report.runtimes] == ["torch"]
    assert set(report.left_out) == {"onnxruntime", "openvino"}
    assert all("'float16'" in problem for problem in report.left_out.values())


def test_a_runtime_that_was_asked_for_and_cannot_compute_is_said(monkeypatch, model_file, tmp_path):
    monkeypatch.setattr(door, "cache_folder", lambda: tmp_path)
    options = BenchOptions(model=str(model_file), frames=0, seconds=0)
    with pytest.raises(InputError, match="runtime 'abacus' is unknown: use torch"):
        measure(replace(options, runtimes=("abacus",)), OPENER)
    with pytest.raises(InputError, match="onnxruntime does not compute in 'float16'"):
        measure(replace(options, runtimes=("onnxruntime",), precision="float16"), OPENER)


def test_an_exported_folder_is_measured_in_what_runs_it(monkeypatch, onnx_folder):
    model, folder = tiny_model(), onnx_folder
    monkeypatch.setattr(job, "matrix_peak", lambda device, dtype: 100.0)
    options = BenchOptions(model=str(folder), frames=0, seconds=0, precision="float32")
    report = measure(options, OPENER)
    assert [figures.runtime for figures in report.runtimes] == ["onnxruntime", "openvino"]
    assert all(figures.difference_mean is None for figures in report.runtimes)  # the graphs' own model is not here
    monkeypatch.setattr(job, "bundled", lambda: [model.config.name])
    monkeypatch.setattr(job, "load", lambda name, device, precision: tiny_model())
    (figures,) = measure(replace(options, runtimes=("onnxruntime",)), OPENER).runtimes
    assert figures.difference_mean < 0.1
    with pytest.raises(InputError, match="which --runtime torch cannot run"):
        measure(replace(options, runtimes=("torch",)), OPENER)


def test_what_cannot_work_is_said(monkeypatch, capsys, tmp_path):
    with pytest.raises(InputError, match="--frames is -1: must be from 0"):
        measure(BenchOptions(frames=-1), OPENER)
    (tmp_path / "old.json").write_text("mine")
    monkeypatch.setattr(sys, "argv", ["dagan", "bench", "--json", str(tmp_path / "old.json")])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "old.json").read_text() == "mine"


def test_help_imports_nothing_heavy():
    heavy = ("torch", "numpy", "av", "PIL", "skimage", "scipy", "ai_edge_litert")
    code = (
        f"import sys, dagan.cli\ntry:\n  dagan.cli.app(['bench', '--help'])\nfinally:\n  print([m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.rstrip().endswith("[]"), done.stdout[-500:] + done.stderr
    assert "--frames" in done.stdout
