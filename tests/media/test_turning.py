"""Faces that lie on their side or stand on their head: found, cropped upright, pasted back."""

import math

import numpy as np
import pytest
from PIL import Image

from dagan.media.framing import Framing, Turn, crop, frame_still, lean, paste, quarters, upright_angle
from dagan.media.landmarks import FaceLandmarker
from dagan.media.shots import Shot
from dagan.media.view import frame_shot
from faces_seen import seen


def turned(picture, degrees):
    """The picture turned clockwise, whole."""
    return np.ascontiguousarray(np.asarray(Image.fromarray(picture).rotate(-degrees, Image.Resampling.BICUBIC, expand=True)))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 30, 45, 90, 120, 150, 180, 190, 200, 210, 270, 315])
def test_a_face_at_any_angle_is_cropped_upright(finder, astronaut, degrees, mirrored):
    picture = turned(astronaut[:, ::-1] if mirrored else astronaut, degrees)
    framing = frame_still(picture, finder)
    cut = crop(picture, framing, 256)
    (face,) = FaceLandmarker().detect(cut, thorough=False)
    assert abs(math.degrees(lean(face.landmarks))) < 20
    assert (face.box[0] + face.box[2]) / 2 == pytest.approx(128, abs=26)
    assert (face.box[1] + face.box[3]) / 2 == pytest.approx(128, abs=26)
    assert 0.4 < (face.box[3] - face.box[1]) / 256 < 0.7
    # What was cut out, put back where it was, is the picture again.
    back = paste(picture, crop(picture, framing, 512), framing).astype(int)
    assert np.abs(back - picture).mean() < 1.5


def test_quarter_turns_move_pixels_exactly(astronaut):
    for turns in (1, 2, 3):
        framing = Framing(200, 150, 120, turns * math.pi / 2)
        assert (crop(astronaut, framing, 120) == np.rot90(astronaut[90:210, 140:260], turns)).all()
        assert (paste(astronaut, crop(astronaut, framing, 120), framing) == astronaut).all()


def test_a_square_at_an_odd_angle_comes_back_with_the_picture_round_it_untouched(astronaut):
    framing = Framing(250, 240, 200, math.radians(37))
    drawn = paste(astronaut, np.zeros((256, 256, 3), np.uint8), framing)
    assert drawn[240, 250].max() == 0
    corner = np.array([math.cos(framing.angle), math.sin(framing.angle)]) * 95 + (250, 240)
    assert drawn[round(corner[1]), round(corner[0])].astype(int).sum() < astronaut[round(corner[1]), round(corner[0])].astype(int).sum()
    assert (drawn[:90] == astronaut[:90]).all()
    assert (drawn[:, :100] == astronaut[:, :100]).all()


def test_angles():
    assert upright_angle(math.radians(15)) == 0
    assert upright_angle(math.radians(-22)) == 0
    assert upright_angle(math.radians(85)) == pytest.approx(math.pi / 2)
    assert upright_angle(math.radians(-178)) == pytest.approx(-math.pi)
    assert upright_angle(math.radians(120)) == pytest.approx(math.radians(120))
    assert [quarters(turns * math.pi / 2) for turns in range(-1, 3)] == [3, 0, 1, 2]
    assert quarters(0.4) is None
    for angle in (0.0, 0.7, -2.5, 3.0):
        assert math.remainder(seen((10, 20, 50, 80), angle).lean - angle, math.tau) == pytest.approx(0, abs=1e-5)


def test_positions_on_a_turned_canvas_come_back():
    points = np.random.default_rng(0).uniform(0, 300, (20, 2))
    for angle in (0.0, math.pi / 2, math.pi, 2.2, -0.6):
        turn = Turn(angle, 400, 300)
        there = turn.forward(points)
        assert (there > -1e-6).all()
        assert (there < np.array(turn.size) + 1e-6).all()
        assert turn.back(there) == pytest.approx(points)
    assert Turn(math.pi / 2, 400, 300).forward(np.array([[10.0, 20.0]])) == pytest.approx(np.array([[20.0, 390.0]]))


def shot_of(angles, box=(300, 200, 380, 300)):
    shot = Shot(0.0)
    for index, angle in enumerate(angles):
        shot.add(index / 6, seen(box, angle), 1.0)
    return shot


@pytest.mark.parametrize("degrees", [0, 12, 90, -90, 180, 130])
def test_a_shot_filmed_with_the_camera_held_otherwise(degrees):
    rng = np.random.default_rng(1)
    framing = frame_shot(shot_of(np.radians(degrees) + rng.normal(0, 0.05, 40)), 1280, 720)
    assert not framing.moving
    square = framing.at(1)
    assert (square.center_x, square.center_y) == pytest.approx((340, 250), abs=4)
    assert square.side == pytest.approx(100 / 0.52, rel=0.2 if degrees == 12 else 0.1)
    assert math.degrees(math.remainder(square.angle - (0 if degrees == 12 else math.radians(degrees)), math.tau)) == pytest.approx(0, abs=4)


def test_a_camera_that_rolls_is_followed():
    angles = np.linspace(0, 2.5 * math.pi, 90)
    framing = frame_shot(shot_of(angles), 1280, 720)
    for index in range(5, 85, 5):
        square = framing.at(index / 6)
        assert abs(math.remainder(square.angle - angles[index], math.tau)) < math.radians(10)
        assert (square.center_x, square.center_y) == pytest.approx((340, 250), abs=4)
