"""Gains are those whose results come nearest to what drives them."""

from dataclasses import replace

import numpy as np
import pytest
from skimage.data import astronaut

from dagan.config import Gains
from dagan.data.config import DataConfig
from dagan.data.store import open_dataset
from dagan.engine.torch import TorchEngine
from dagan.errors import InputError
from dagan.media.expression import EXPRESSIONS
from dagan.media.landmarks import FaceLandmarker
from dagan.train.gan.calibrate import LADDER, _chosen, calibrate
from running_samples import TINY, tiny_model, write_clip


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
    monkeypatch.setattr("dagan.train.gan.calibrate._face", lambda landmarker, picture: (looked.append(picture.shape), face)[1])
    found = calibrate(TorchEngine(tiny_model(config=GUIDED)), faces, 4)
    assert (found.gains, found.pairs) == (Gains(), 4)
    assert looked == [(64, 64, 3)] * 4 * (2 + len(LADDER))


def test_without_faces_nothing_can_be_told(faces, monkeypatch):
    monkeypatch.setattr("dagan.train.gan.calibrate._face", lambda landmarker, picture: None)
    with pytest.raises(InputError, match="no pair of frames shows a face"):
        calibrate(TorchEngine(tiny_model(config=GUIDED)), faces, 4)
