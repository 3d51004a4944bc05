"""Rulers of movement in validation: what a result does beside what it was driven to."""

import numpy as np
import pytest
import torch
from skimage.data import astronaut

from dagan.media.landmarks import EXPRESSIONS, FaceLandmarker
from dagan.train.gan import MovementRuler, read_movements


def test_slopes_of_all_samples_together_without_faces_that_were_lost():
    rng = np.random.default_rng(0)
    source = rng.normal(size=(40, len(EXPRESSIONS)))
    driving = source + rng.normal(size=source.shape)
    result = source + (driving - source) * np.array([0.8, 0.7, 0.3, 0.2, 0.2, 1, 1])
    result[3] = np.nan
    ruler = MovementRuler()
    ruler.add(source[:25], driving[:25], result[:25])
    ruler.add(source[25:], driving[25:], result[25:])
    assert ruler.slopes("learnt_") == pytest.approx({"learnt_mouth": 0.8, "learnt_smile": 0.7, "learnt_eyes": 0.3, "learnt_gaze": 0.2})
    assert MovementRuler().slopes("") == {}


def test_expressions_are_read_from_pictures():
    face = torch.from_numpy(astronaut()[0:256, 96:352].copy()).permute(2, 0, 1)[None].float() / 255
    numbers = read_movements(torch.cat([face, torch.zeros_like(face), face.flip(3)]), FaceLandmarker())
    assert np.isfinite(numbers[[0, 2]]).all()
    assert np.isnan(numbers[1]).all()
    named = [dict(zip(EXPRESSIONS, row, strict=True)) for row in numbers]
    assert named[0]["mouth"] == pytest.approx(named[2]["mouth"], abs=0.02)
    assert named[0]["turn"] == pytest.approx(-named[2]["turn"], abs=0.03)
