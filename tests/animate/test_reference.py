"""The choice of the reference frame."""

import numpy as np
import pytest

from dagan.animate.reference import check_reference, nearest_layout, normalise, parse_reference
from dagan.errors import InputError


def head(yaw=0.0, mouth=0.1, roll=0.0, size=1.0, place=(0.0, 0.0)):
    """Points of a schematic head (a ball's grid, lips, a nose) seen from the front after a turn by `yaw` and `roll` degrees."""
    angles = np.radians(np.arange(-60, 61, 20))
    longitude, latitude = (a.ravel() for a in np.meshgrid(angles, angles))
    ball = np.stack([np.sin(longitude) * np.cos(latitude), np.sin(latitude), np.cos(longitude) * np.cos(latitude)], -1)
    lips = np.array([[-0.2, 0.5, 0.8], [0.2, 0.5, 0.8], [0, 0.5 - mouth, 0.85], [0, 0.5 + mouth, 0.85]])
    points = np.concatenate([ball, lips, [[0, 0.1, 1.2]]])
    a, b = np.radians(yaw), np.radians(roll)
    points = points @ np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    flat = points[:, :2] @ np.array([[np.cos(b), np.sin(b)], [-np.sin(b), np.cos(b)]])
    return size * flat + np.array(place)


def test_place_and_size_in_the_picture_do_not_count():
    assert normalise(head(yaw=10, size=37, place=(200, 90))) == pytest.approx(normalise(head(yaw=10)))


@pytest.mark.parametrize("part", ["yaw", "roll"])
def test_the_frame_turned_like_the_source_is_found(part):
    driving = np.stack([head(**{part: angle}, size=50, place=(300, 200)) for angle in (-40, -20, 0, 20, 40)])
    for index, angle in enumerate((-40, -20, 0, 20, 40)):
        assert nearest_layout(head(**{part: angle + 3}), driving) == index


def test_a_closed_mouth_is_matched_with_a_closed_mouth():
    driving = np.stack([head(mouth=m, size=50) for m in (0.3, 0.2, 0.0, 0.1)])
    assert nearest_layout(head(mouth=0.02, yaw=2), driving) == 2


def test_frames_without_a_face_are_never_taken():
    driving = np.stack([np.full_like(head(), np.nan), head(yaw=50), np.full_like(head(), np.nan), head(yaw=40)])
    assert nearest_layout(head(), driving) == 3
    assert nearest_layout(head(), np.full_like(driving, np.nan)) == 0


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
    with pytest.raises(InputError, match="reference frame 10 does not exist.*10 frames, numbered 0 to 9"):
        check_reference(10, 10)
