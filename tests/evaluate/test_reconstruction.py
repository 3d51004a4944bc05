import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from dagan.commands.evaluate import EvaluateOptions, evaluate_reconstruction
from dagan.errors import InputError
from dagan.evaluate.reconstruction import Rulers, measure_clip, summarise
from dagan.media.video import VideoWriter
from dagan.models.dagan import DaGAN
from dagan.weights import save_model
from tiny import TINY


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A picture that moves to the right, two pixels a frame."""
    rng = np.random.default_rng(0)
    picture = np.kron(rng.integers(0, 255, (8, 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    folder = tmp_path / "clips"
    folder.mkdir()
    with VideoWriter(folder / "a.mp4", 64, 64, rate=Fraction(25)) as writer:
        for i in range(7):
            writer.write(np.roll(picture, 2 * i, axis=1), Fraction(i, 25))
    return folder / "a.mp4"


@pytest.fixture
def model() -> DaGAN:
    torch.manual_seed(0)
    return DaGAN(TINY).eval()


def test_copy_baseline_is_the_first_frame(clip: Path, model: DaGAN) -> None:
    scores = measure_clip(clip, model, Rulers(), every=2)
    assert scores.frames == 3
    assert set(scores.model) == {"L1", "PSNR", "SSIM"}
    copied = scores.copy["L1"]
    assert copied[0] < copied[1]  # farther frames differ more
    ours, baseline, ratio = summarise([scores]).metrics["L1"]
    assert ratio == pytest.approx(ours / baseline)


def test_faces_that_are_not_found_are_counted(clip: Path, model: DaGAN) -> None:
    found = iter([np.zeros((478, 3))])  # in the source alone
    scores = measure_clip(clip, model, Rulers(landmarks=lambda image: next(found, None)), every=2)
    assert scores.missing_faces == 3
    assert "AKD" not in scores.model


def test_landmark_distance_is_in_pixels_at_256(clip: Path, model: DaGAN) -> None:
    found = iter([np.zeros((478, 3))] + [np.full((478, 3), float(i)) for i in range(100)])
    scores = measure_clip(clip, model, Rulers(landmarks=lambda image: next(found)), every=6)
    # source 0, result 0, driving 1: both are one pixel of 64 off, diagonally.
    assert scores.model["AKD"] == pytest.approx([4 * 2**0.5])
    assert scores.copy["AKD"] == pytest.approx([4 * 2**0.5])


def test_command_writes_the_report(clip: Path, model: DaGAN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagan.evaluate.faces.find_landmarker_file", lambda path: None)
    save_model(tmp_path / "m.safetensors", model)
    options = EvaluateOptions(model=str(tmp_path / "m.safetensors"), device="cpu", every=3, report=tmp_path / "r.json")
    summary = evaluate_reconstruction(clip.parent, options)
    written = json.loads((tmp_path / "r.json").read_text())
    assert written["clips"] == 1
    assert written["metrics"]["L1"] == list(summary.metrics["L1"])
    with pytest.raises(InputError, match="--every is 0"):
        evaluate_reconstruction(clip.parent, EvaluateOptions(every=0))
