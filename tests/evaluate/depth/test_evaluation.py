import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.optim.swa_utils import AveragedModel
from typer.testing import CliRunner

from dagan.checks import dump
from dagan.cli import app
from dagan.data.truth import ClipTruth, read_truth
from dagan.errors import InputError
from dagan.evaluate.depth import ROWS, EvaluateDepthOptions, measure_depth, measure_folder, picture
from dagan.evaluate.depth_networks import CameraMotion, ShownFrame, open_networks
from dagan.evaluate.metrics import rotation_between
from dagan.models.dagan import DaGAN
from dagan.models.depth import DepthNetwork, EgomotionConfig, EgomotionNetwork
from dagan.synthetic.clip import synthesise
from dagan.train.depth import save_depth
from dagan.train.depth_objective import DepthObjective
from dagan.train.log import save_checkpoint
from dagan.weights import save_model
from tiny import TINY

EGOMOTION = EgomotionConfig(encoder="lite", encoder_widths=(8, 8, 8, 16, 16), focal=1.25)


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    synthesise(folder, 2, 64, 1, 7)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as stage 1 leaves it."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    objective = DepthObjective(DepthNetwork(TINY.depth), EgomotionNetwork(EGOMOTION))
    recipe = {"model": dump(TINY.depth), "egomotion": dump(EGOMOTION), "data": {"size": 64}}
    save_depth(folder / "depth.safetensors", objective.depth_network, {"recipe": recipe})
    averaged = AveragedModel(objective, use_buffers=True)
    payload = {"stage": "depth", "recipe": recipe, "averaged": averaged.state_dict(), "modules": {"objective": objective.state_dict()}}
    save_checkpoint(folder, payload)
    return folder


class _Knowing:
    """Networks that answer with the truth, distorted in scale and shift."""

    name, size = "truth", 64

    def __init__(self, truth: ClipTruth, every: int) -> None:
        self.truth, self.every, self.asked, self.pairs = truth, every, 0, 0
        self.egomotion = SimpleNamespace(config=SimpleNamespace(focal=1.25))

    def disparity(self, images: np.ndarray) -> np.ndarray:
        first, self.asked = self.asked, self.asked + len(images)
        return 0.1 / self.truth.depth[:: self.every][first : self.asked] + 0.3

    def metric(self, disparity: np.ndarray) -> np.ndarray:
        return 0.5 / (disparity - 0.3)

    def motions(self, first: np.ndarray, second: np.ndarray) -> list[CameraMotion]:
        focal = 1.1 * self.truth.normalised_camera[0][0]
        rotations = self.truth.rotation.astype(np.float64)
        moved = [rotation_between(rotations[2 * i], rotations[2 * i + 3]) for i in range(self.pairs, self.pairs + len(first))]
        self.pairs += len(first)
        return [CameraMotion(rotation, (focal, focal)) for rotation in moved]


def test_truth_itself_measures_perfectly(heads: Path) -> None:
    truth = read_truth(heads / "head_1_00000.json")
    found = measure_depth(heads / "head_1_00000.mp4", _Knowing(truth, 2), truth, None, every=2, gap=3, show=2)  # type: ignore[arg-type]
    means = found.means()
    assert found.frames == 4
    assert means["spearman"][0] == pytest.approx(1)
    assert means["relief"] == (pytest.approx(0, abs=1e-4), pytest.approx(0.22, abs=0.08))
    assert means["normals"][0] < 1 < 20 < means["normals"][1]
    assert means["delta"] == (1.0, 1.0)
    # Two pairs, 0-3 and 2-5; the third would end beyond the clip.
    assert len(found.figures["rotation"]) == 2
    assert means["rotation"][0] == pytest.approx(0, abs=0.05)
    assert means["rotation"][1] > 0.05
    assert means["focal"] == (pytest.approx(0.1), pytest.approx(abs(1.25 / truth.normalised_camera[0][0] - 1)))
    assert len(found.shown) == 2
    assert picture(found).shape == (2 * 64, 6 * 64, 3)


def test_real_clip_is_ranked_against_landmarks(heads: Path) -> None:
    truth = read_truth(heads / "head_1_00001.json")
    faces = iter([None])

    def landmarks(image: np.ndarray) -> np.ndarray | None:
        return next(faces, truth.landmarks[0] * [1, 1, 1])

    networks = _Knowing(truth, 7)
    networks.disparity = lambda images: 1 / truth.depth[: len(images)] * 0 + 1 / truth.depth[:1]  # type: ignore[method-assign]
    found = measure_depth(heads / "head_1_00001.mp4", networks, None, landmarks, every=3, gap=1, show=1)  # type: ignore[arg-type]
    assert found.missing_faces == 1
    assert set(found.means()) == {"landmarker"}
    assert found.means()["landmarker"][0] > 0.9
    assert picture(found).shape == (64, 3 * 64, 3)


def test_truth_of_another_clip_is_refused(heads: Path) -> None:
    truth = read_truth(heads / "head_1_00000.json")
    short = replace(truth, depth=truth.depth[:2])
    with pytest.raises(InputError, match="does not fit its ground truth"):
        measure_depth(heads / "head_1_00000.mp4", _Knowing(truth, 2), short, None, every=2, gap=1)  # type: ignore[arg-type]


def test_networks_open_from_every_kind_of_file(trained: Path, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (1, 48, 48, 3), np.uint8)
    beside = open_networks(str(trained / "depth.safetensors"), device="cpu")
    assert beside.size == 64
    assert beside.egomotion is not None
    assert beside.disparity(image).shape == (1, 48, 48)
    checkpoint = open_networks(str(trained / "last.ckpt"), device="cpu")
    np.testing.assert_allclose(checkpoint.disparity(image), beside.disparity(image), atol=1e-6)
    motion = checkpoint.motions(image, image[:, ::-1].copy())[0]
    np.testing.assert_allclose(motion.rotation @ motion.rotation.T, np.eye(3), atol=1e-5)
    assert motion.focal == (pytest.approx(1.25), pytest.approx(1.25))  # the head starts at zero
    save_model(tmp_path / "model.safetensors", DaGAN(TINY))
    whole = open_networks(str(tmp_path / "model.safetensors"), size=32, device="cpu")
    assert (whole.size, whole.egomotion) == (32, None)
    assert open_networks(str(tmp_path / "model.safetensors"), trained / "last.ckpt", device="cpu").egomotion is not None


def test_bad_weights_are_named(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.ckpt does not exist"):
        open_networks(str(tmp_path / "no.ckpt"))
    (tmp_path / "bad.ckpt").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"bad\.ckpt cannot be read as a checkpoint"):
        open_networks(str(trained / "depth.safetensors"), tmp_path / "bad.ckpt")
    with pytest.raises(InputError, match="--size is 50"):
        open_networks(str(trained / "depth.safetensors"), size=50)
    save_model(tmp_path / "rgb.safetensors", DaGAN(TINY.rgb_only()))
    with pytest.raises(InputError, match="has no depth network"):
        open_networks(str(tmp_path / "rgb.safetensors"))


def test_command_writes_report_page_and_pictures(heads: Path, trained: Path, tmp_path: Path) -> None:
    output = tmp_path / "report"
    arguments = ["evaluate", "depth", str(heads), "--weights", str(trained / "depth.safetensors"), "-o", str(output), "--every", "3"]
    result = CliRunner().invoke(app, [*arguments, "--gap", "2", "--pictures", "1", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    note = json.loads((output / "depth.json").read_text())
    assert note["synthetic_clips"] == 2
    assert set(note["synthetic"]) == set(ROWS)
    assert all(np.isfinite(list(figure.values())).all() for figure in note["synthetic"].values())
    assert [clip["clip"] for clip in note["clips"]] == ["head_1_00000.mp4", "head_1_00001.mp4"]
    page = (output / "depth.md").read_text()
    assert f"| {note['synthetic']['relief']['value']:.3f} |" in page
    assert [path.name for path in (output / "pictures").iterdir()] == ["head_1_00000.png"]
    assert "pictures/head_1_00000.png" in page
    with pytest.raises(InputError, match="holds a report already"):
        measure_folder(heads, EvaluateDepthOptions(weights=str(trained / "depth.safetensors"), output=output))


def test_missing_motion_network_is_said(heads: Path, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "alone.safetensors").write_bytes((trained / "depth.safetensors").read_bytes())
    summary, _ = measure_folder(heads, EvaluateDepthOptions(weights=str(tmp_path / "alone.safetensors"), clips=1, device="cpu"))
    assert summary.synthetic_clips == 1
    assert not {"rotation", "focal"} & set(summary.synthetic)
    assert any("Pose and focal length are not measured" in note for note in summary.notes)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"every": 0}, "--every"), ({"gap": 0}, "--gap"), ({"hold_out": 2.0}, "--hold-out"), ({"pictures": -1}, "--pictures")],
)
def test_values_out_of_range_are_named(heads: Path, change: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        measure_folder(heads, EvaluateDepthOptions(**change))  # type: ignore[arg-type]


def test_shown_frame_without_a_face_still_makes_a_row() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    shown = ShownFrame(image, np.ones((8, 8)), np.ones((8, 8)), (8.0, 8.0), (3.5, 3.5), np.ones((8, 8)), np.zeros((8, 8), bool))
    assert picture(SimpleNamespace(shown=[shown])).shape == (8, 48, 3)  # type: ignore[arg-type]
