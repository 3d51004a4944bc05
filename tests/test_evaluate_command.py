"""`dagan evaluate` as users run it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import moving_blob
from dagan.evaluate.records import load
from dagan.models.dagan import DaGAN
from dagan.weights import save_model
from tiny import TINY


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_model(file, DaGAN(TINY).eval())
    return str(file)


@pytest.fixture
def clips(tmp_path: Path, write_clip: Callable[[Path, list[np.ndarray]], None]) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    for i in range(3):
        write_clip(folder / f"id{i}#v#0.mp4", moving_blob(i, 9))
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, command: Callable[..., tuple[int, str, str]]) -> Callable[..., tuple[int, str, str]]:
    """Runs `dagan evaluate ...`: status, standard output, error stream."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> tuple[int, str, str]:
        return command("evaluate", *arguments)

    return call


@pytest.mark.slow
def test_reconstruction_prints_ratios_and_writes_the_folder(run, clips: Path, model: str, tmp_path: Path) -> None:
    common = ("reconstruction", clips, "--model", model, "--device", "cpu", "--every", 4)
    code, out, _ = run(*common, "--json", tmp_path / "s.json", "-o", tmp_path / "run")
    assert code == 0
    assert "3 clips, 3 pairs, 6 frames of tiny" in out
    summary = json.loads((tmp_path / "s.json").read_text())
    ours, copied, ratio = summary["metrics"]["L1"]
    assert ratio == pytest.approx(ours / copied)
    assert summary["clips"] == 3
    assert summary["frames"] == 6
    assert f"{ours:.4f}" in out
    evaluation = load(tmp_path / "run" / "evaluation.json")
    assert evaluation.methods == ("tiny", "copy")
    per_pair = [np.mean(s.values["l1"]) for s in evaluation.scores if s.method == "tiny"]
    assert ours == pytest.approx(np.mean(per_pair))
    assert [entry["L1"] for entry in summary["scores"]] == pytest.approx(per_pair)
    for method in ("source", "driving", "tiny", "copy"):
        for pair in {s.pair for s in evaluation.scores}:
            with Image.open(tmp_path / "run" / evaluation.pictures[method][pair]) as strip:
                assert strip.size == (2 * 128, 128)
    before = (tmp_path / "run" / "evaluation.json").read_bytes()
    code, _, err = run(*common, "-o", tmp_path / "run")
    assert code == 2
    assert "exists already" in err
    code, _, _ = run(*common, "-o", tmp_path / "run", "--overwrite")
    assert code == 0
    assert (tmp_path / "run" / "evaluation.json").read_bytes() == before


def test_two_models_results_and_a_list(run, clips: Path, model: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("distance,source,driving,frame\n1,id0#v#0.mp4,id0#v#0.mp4,2\n2,id9#v#0.mp4,id0#v#0.mp4,0\n")
    code, _, err = run(
        "reconstruction", clips, "--model", model, "--model", model, "--results", clips, "--pairs", tmp_path / "list.csv",
        "--device", "cpu", "-o", tmp_path / "run",
    )  # fmt: skip
    assert code == 0
    assert "names clips or frames that are not there, and their pairs are left out: id9#v#0.mp4" in err
    evaluation = load(tmp_path / "run" / "evaluation.json")
    assert evaluation.methods == ("tiny", "tiny-2", "clips", "copy")
    assert [s.source_frame for s in evaluation.scores] == [2] * 4
    assert evaluation.scores[0].values == evaluation.scores[1].values
    assert evaluation.scores[2].values["l1"] == (0, 0)
    assert (tmp_path / "run" / "pairs.csv").read_text().split() == ["source,driving,frame", "id0#v#0.mp4,id0#v#0.mp4,2"]


def test_results_without_a_model(run, clips: Path, tmp_path: Path) -> None:
    code, out, _ = run("reconstruction", clips, "--no-model", "--results", clips, "--size", 64)
    assert code == 0
    assert "100.0000" in out


def test_ratios_are_of_the_pairs_that_both_have(run, clips: Path, tmp_path: Path, write_clip) -> None:
    (tmp_path / "peer").mkdir()
    write_clip(tmp_path / "peer" / "id1#v#0.mp4", moving_blob(2, 9))  # of one clip, and wrong
    code, _, err = run("reconstruction", clips, "--no-model", "--results", tmp_path / "peer", "--size", 64, "-o", tmp_path / "run",
                       "--json", tmp_path / "s.json")  # fmt: skip
    assert code == 0
    assert err.count("no result") == 2
    found = {(s.method, s.driving): np.mean(s.values["l1"]) for s in load(tmp_path / "run" / "evaluation.json").scores if s.frames}
    assert len(found) == 4
    _, copied, ratio = json.loads((tmp_path / "s.json").read_text())["metrics"]["L1"]
    assert ratio == pytest.approx(found["peer", "id1#v#0.mp4"] / found["copy", "id1#v#0.mp4"])
    assert copied == pytest.approx(np.mean([found["copy", f"id{i}#v#0.mp4"] for i in range(3)]))


@pytest.mark.slow
def test_cross_identity_writes_pairs_that_can_be_given_again(run, clips: Path, model: str, tmp_path: Path) -> None:
    common = ("cross-identity", clips, "--model", model, "--device", "cpu", "--every", 4)
    assert run(*common, "--count", 2, "--seed", 5, "-o", tmp_path / "a")[0] == 0
    listed = (tmp_path / "a" / "pairs.csv").read_text().splitlines()
    assert len(listed) == 3
    assert all(line.split(",")[0] != line.split(",")[1] for line in listed[1:])
    assert run(*common, "--pairs", tmp_path / "a" / "pairs.csv", "-o", tmp_path / "b")[0] == 0
    assert load(tmp_path / "a" / "evaluation.json").scores == load(tmp_path / "b" / "evaluation.json").scores


def test_sources_from_portraits(run, clips: Path, model: str, tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    Image.fromarray(moving_blob(9, 1, 96)[0]).save(tmp_path / "faces" / "id7.png")
    code, _, _ = run("cross-identity", clips, "--model", model, "--device", "cpu", "--portraits", tmp_path / "faces", "-o", tmp_path / "r")
    assert code == 0
    evaluation = load(tmp_path / "r" / "evaluation.json")
    assert {s.source for s in evaluation.scores} == {"id7.png"}
    assert len({s.driving for s in evaluation.scores}) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--every", 0), "--every is 0"),
        (("--lpips", "none.pth"), "none.pth does not exist"),
        (("--identity", "none.onnx"), "none.onnx does not exist"),
        (("--identity", "hub:only"), "names no file on the hub"),
        (("--workers", 0), "--workers is 0"),
        (("--model", "none.safetensors"), "none.safetensors"),
        (("--pairs", "none.csv"), "none.csv does not exist"),
        (("--results", "nowhere"), "nowhere does not exist"),
    ],
)
def test_bad_input_is_one_sentence(run, clips: Path, model: str, tmp_path: Path, arguments: tuple, message: str) -> None:
    chosen = arguments if "--model" in arguments else ("--model", model, *arguments)
    code, _, err = run("reconstruction", clips, "--device", "cpu", *chosen, "-o", tmp_path / "run")
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_identity_is_fetched_when_asked_for(run, clips: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(repository: str, file: str) -> str:
        asked.append((repository, file))
        raise OSError("no network in tests")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    code, _, err = run("reconstruction", clips, "--model", model, "--identity", "hub:someone/faces/nets/arc.onnx")
    assert code == 2
    assert asked == [("someone/faces", "nets/arc.onnx")]
    assert "could not be fetched" in err


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_another_runtime_gives_the_same_figures(
    run, clips: Path, onnx_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    common = ("reconstruction", clips, "--device", "cpu", "--precision", "float32", "--every", 4, "--model")
    assert run(*common, onnx_folder.parent / "model.safetensors", "-o", tmp_path / "torch")[0] == 0
    code, out, _ = run(*common, onnx_folder, "--runtime", runtime, "-o", tmp_path / runtime)
    assert code == 0
    assert "6 frames of tiny" in out
    plain, graphs = (load(tmp_path / name / "evaluation.json") for name in ("torch", runtime))
    assert graphs.settings["tiny: device"] == f"cpu ({runtime}), precision float32"
    for a, b in zip(plain.scores, graphs.scores, strict=True):
        assert b.values["l1"] == pytest.approx(a.values["l1"], abs=1e-4)


def test_runtimes_that_cannot_compute_are_refused_in_one_sentence(run, clips: Path, model: str) -> None:
    for more, message in (
        (("--runtime", "tensorrt"), "runtime 'tensorrt' is unknown"),
        (("--runtime", "openvino", "--device", "cuda"), "--runtime openvino computes on the CPU here"),
        (("--runtime", "onnxruntime", "--precision", "bfloat16"), "does not compute in 'bfloat16'"),
    ):
        code, out, err = run("reconstruction", clips, "--model", model, *more)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert message in err
