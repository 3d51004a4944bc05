"""Gains are those whose results come nearest to what drives them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.data import astronaut

from dagan.config import Gains
from dagan.data.config import DataConfig
from dagan.data.store import open_dataset
from dagan.engine.open import open_engine
from dagan.engine.torch import TorchEngine
from dagan.errors import InputError
from dagan.media.landmarks import EXPRESSIONS, FaceLandmarker
from dagan.motion.openings import FaceKeypoints
from dagan.train.calibrate import LADDER, _chosen, calibrate, with_gains
from dagan.weights.files import read_file
from running_samples import TINY, save_tiny_model, tiny_model, write_clip


def test_each_movement_gets_the_gain_that_meets_the_driving_frames():
    driven = np.random.default_rng(0).normal(size=(200, len(EXPRESSIONS)))
    # How much of each the model draws: mouth, smile, eyes, gaze across and up, turn, nod.
    held = np.array([0.85, 1.0, 0.5, 0.4, 0.4, 1, 1])
    found = _chosen(driven, [driven * held * gain for gain in LADDER])
    assert found.gains == Gains(mouth=1.15, smile=1.0, eyes=2.0, gaze=2.4)
    assert found.slopes["eyes"] == pytest.approx((0.5, 1.0))
    assert found.slopes["gaze"] == pytest.approx((0.4, 0.96))
    assert found.pairs == 200


def test_a_movement_that_only_gets_noisier_is_left_as_it_is():
    rng = np.random.default_rng(1)
    driven = rng.normal(size=(300, len(EXPRESSIONS)))
    noise = rng.normal(size=driven.shape)
    assert _chosen(driven, [0.1 * driven + 2 * gain * noise for gain in LADDER]).gains == Gains()


@pytest.fixture
def faces(tmp_path):
    picture = astronaut()[0:256, 96:352]
    for name in ("id1.mp4", "id2.mp4"):
        write_clip(tmp_path / name, [np.roll(picture, shift, (0, 1)) for shift in ((0, 0), (4, 2), (-3, 5), (2, -4))])
    return open_dataset(DataConfig(train=tmp_path, size=64, hold_out=0))


def test_a_model_without_landmarks_has_no_gains(faces):
    with pytest.raises(InputError, match="stand on no landmarks"):
        calibrate(TorchEngine(tiny_model()), faces, 2)


GUIDED = replace(TINY, keypoints=replace(TINY.keypoints, landmarks=(13, 14, 159, 145)))


def test_pairs_are_drawn_with_every_gain(faces, monkeypatch):
    """A landmarker that sees one still face everywhere: nothing moves, so nothing is to be exaggerated."""
    face = FaceLandmarker().detect(astronaut()[0:256, 96:352])[0]
    looked = []
    monkeypatch.setattr("dagan.train.calibrate._face", lambda landmarker, picture: (looked.append(picture.shape), face)[1])
    found = calibrate(TorchEngine(tiny_model(config=GUIDED)), faces, 4)
    assert (found.gains, found.pairs) == (Gains(), 4)
    assert looked == [(64, 64, 3)] * 4 * (2 + len(LADDER))


def test_without_faces_nothing_can_be_told(faces, monkeypatch):
    monkeypatch.setattr("dagan.train.calibrate._face", lambda landmarker, picture: None)
    with pytest.raises(InputError, match="no pair of frames shows a face"):
        calibrate(TorchEngine(tiny_model(config=GUIDED)), faces, 4)


def test_gains_are_kept_with_the_weights(tmp_path):
    model = save_tiny_model(tmp_path / "a.safetensors", config=GUIDED)
    with_gains(model, tmp_path / "b.safetensors", Gains(mouth=1.2, eyes=2.0))
    config, card, tensors = read_file(tmp_path / "b.safetensors")
    assert config.keypoints.gains == Gains(mouth=1.2, eyes=2.0)
    before = read_file(model)
    assert (replace(config, keypoints=GUIDED.keypoints), card) == before[:2]
    assert all(torch.equal(tensors[name], value) for name, value in before[2].items())
    assert open_engine(tmp_path / "b.safetensors").face == FaceKeypoints(GUIDED.keypoints.landmarks, Gains(mouth=1.2, eyes=2.0))


def test_the_command_refuses_what_has_no_gains_and_keeps_what_is_there(tmp_path, command, faces):
    model, out = save_tiny_model(tmp_path / "plain.safetensors"), tmp_path / "out.safetensors"
    clips = faces.clips[0].path.parent
    status, _, complaints = command("train", "gains", model, clips, "-o", out, "--hold-out", "0")
    assert (status, complaints.splitlines()[-1]) == (2, "dagan: the keypoints of model 'tiny-64' stand on no landmarks: it has no gains")
    assert not out.exists()
    out.write_bytes(b"kept")
    status, _, complaints = command("train", "gains", model, clips, "-o", out)
    assert status == 2
    assert "exists already" in complaints
    assert out.read_bytes() == b"kept"


def test_the_command_writes_the_gains_it_finds(tmp_path, command, faces, monkeypatch):
    face = FaceLandmarker().detect(astronaut()[0:256, 96:352])[0]
    monkeypatch.setattr("dagan.train.calibrate._face", lambda landmarker, picture: face)
    model, out = save_tiny_model(tmp_path / "guided.safetensors", config=GUIDED), tmp_path / "out.safetensors"
    status, printed, _ = command("train", "gains", model, faces.clips[0].path.parent, "-o", out, "--pairs", "3", "--hold-out", "0")
    assert status == 0
    assert printed.splitlines()[-1] == f"{out}: gains from 3 pairs of frames"
    assert read_file(out)[0] == GUIDED
