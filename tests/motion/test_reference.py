"""The choice of the reference frame."""

import numpy as np
import pytest

from dagan.errors import InputError
from dagan.media.landmarks import BLENDSHAPE_NAMES, Face, head_pose, pose_distance, turn_between
from dagan.motion.file import check_reference, nearest_layout, normalise, parse_reference


def turn(yaw=0.0, pitch=0.0, roll=0.0):
    """The rotation for angles in degrees, for points as rows."""
    a, b, c = np.radians([yaw, pitch, roll])
    about_y = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    about_z = np.array([[np.cos(c), np.sin(c), 0], [-np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def face(angles=None, gap=0.0, size=100.0, place=(0.0, 0.0, 0.0), **movements):
    """A face as the landmarker gives it: random points, the lips `gap` face heights apart, turned, scaled and placed."""
    points = np.random.default_rng(0).normal(size=(478, 3))
    points[10], points[152] = (0, -1, 0), (0, 1, 0)
    points[13], points[14] = (0, 0.5 - gap, 1), (0, 0.5 + gap, 1)
    placed = size * points @ turn(**(angles or {})) + np.array(place)
    strengths = np.array([movements.get(name, 0.0) for name in BLENDSHAPE_NAMES])
    return Face((0.0, 0.0, 1.0, 1.0), placed.astype(np.float32), 1.0, lambda _: strengths)


def distance(a, b):
    return pose_distance(head_pose(a), head_pose(b))


@pytest.mark.parametrize("angles", [{"yaw": 25}, {"pitch": -12}, {"roll": 40}, {"yaw": 20, "pitch": 10}])
def test_the_turn_between_two_heads_is_measured(angles):
    a, b = face(), face(angles, size=37, place=(200, 90, 3))
    rotation = turn(**angles)
    expected = np.degrees(np.arccos((np.trace(rotation) - 1) / 2))
    assert turn_between(head_pose(a).rigid, head_pose(b).rigid) == pytest.approx(expected, abs=0.01)
    assert distance(a, b) == pytest.approx(expected / 10, abs=0.01)


def test_place_and_size_in_the_picture_do_not_count():
    assert distance(face({"yaw": 10}), face({"yaw": 10}, size=37, place=(200, 90, -5))) == pytest.approx(0, abs=1e-3)


def test_an_open_mouth_closed_eyes_and_other_movements_count():
    still = face()
    assert distance(still, face(gap=0.03)) == pytest.approx(1, abs=1e-3)
    assert distance(face({"yaw": 60}), face({"yaw": 60}, gap=0.03)) == pytest.approx(1, abs=1e-3)  # also seen from the side
    assert distance(still, face(eyeBlinkLeft=0.3, eyeBlinkRight=0.3)) == pytest.approx(np.hypot(1, 0.3 * np.sqrt(2)), abs=1e-3)
    assert distance(still, face(mouthSmileLeft=0.5)) == pytest.approx(0.5, abs=1e-3)
    assert distance(still, face(_neutral=0.9)) == pytest.approx(0, abs=1e-3)
    assert distance(still, face(gap=0.1)) > distance(still, face({"yaw": 20}))


def test_the_keypoints_that_lie_alike_are_found_wherever_they_are():
    driving = np.random.default_rng(1).normal(size=(9, 15, 2))
    for index in (0, 4, 8):
        assert nearest_layout(0.3 * driving[index] + np.array([0.2, -0.5]), driving) == index
    assert normalise(5 * driving + 2) == pytest.approx(normalise(driving))


def test_points_that_coincide_do_not_break_it():
    assert nearest_layout(np.zeros((5, 2)), np.zeros((3, 5, 2))) == 0


def test_reference_arguments():
    assert parse_reference("auto") is None
    assert parse_reference("first") == 0
    assert parse_reference("12") == 12
    for wrong in ("-1", "last", "1.5", "", "²"):
        with pytest.raises(InputError, match="auto, first or a frame number"):
            parse_reference(wrong)
    check_reference(9, 10)
    with pytest.raises(InputError, match=r"reference frame 10 does not exist.*10 frames, numbered 0 to 9"):
        check_reference(10, 10)
