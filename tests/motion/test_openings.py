"""Keypoints on landmarks: openings go from face to face, whatever the sizes of eyes and mouths, and gains make up for what is lost."""


import numpy as np
import pytest
import torch

from dagan.config import Gains
from dagan.errors import InputError
from dagan.models.keypoints import Keypoints
from dagan.motion.openings import FaceKeypoints
from dagan.motion.transfer import limit, transfer

POINTS = (61, 291, 13, 14, 159, 145, 386, 374, 468, 473, 0, 17, 105, 334, 152)
FREE = torch.tensor([[-0.5, -0.5], [0.5, -0.5], [0.0, 0.0], [-0.6, 0.1], [0.6, 0.1], [0.0, -0.7], [0.3, 0.4]])


def face(mouth=0.02, eye=0.08, width=0.36, gaze=0.0, size=1.0, turn=0.0, shift=(0.0, 0.0), free=0.0):
    """Keypoints of a drawn face (y down): openings in the picture's unit before it is sized, turned (radians) and shifted."""
    places = {
        61: (-width / 2, 0.35), 291: (width / 2, 0.35), 13: (0, 0.34), 14: (0, 0.34 + mouth), 0: (0, 0.3), 17: (0, 0.4 + mouth),
        159: (-0.2, -0.1 - eye), 145: (-0.2, -0.1), 386: (0.2, -0.1 - eye), 374: (0.2, -0.1), 468: (-0.2 + gaze, -0.13),
        473: (0.2 + gaze, -0.13), 105: (-0.2, -0.3), 334: (0.2, -0.3), 152: (0, 0.6 + mouth),
    }  # fmt: skip
    value = torch.cat([torch.tensor([places[point] for point in POINTS], dtype=torch.float64), FREE.double() * (1 + free)])
    factor = torch.polar(torch.tensor(size, dtype=torch.float64), torch.tensor(turn, dtype=torch.float64))
    turned = torch.view_as_real(torch.view_as_complex(value) * factor) + torch.tensor(shift)
    return Keypoints(turned[None].float(), torch.eye(2).expand(1, len(value), 2, 2))


def gap(keypoints, a, b):
    value = keypoints.value[0]
    return float((value[POINTS.index(a)] - value[POINTS.index(b)]).norm())


def look(keypoints):
    value = keypoints.value[0]
    return float(value[POINTS.index(468), 0] - value[POINTS.index(159), 0])


def moved(source, driving, reference=None, gains=None, limit_motion=False):
    kept = FaceKeypoints(POINTS, gains or Gains())
    return transfer(source, driving, reference or driving, reference is not None, True, limit_motion, kept)


def test_a_small_eye_closes_by_the_share_of_a_large_one():
    source = face(eye=0.04)
    half = moved(source, face(eye=0.06), face(eye=0.12))
    assert gap(half, 159, 145) == pytest.approx(0.02, abs=2e-3)
    closed = moved(source, face(eye=0.0), face(eye=0.12))  # places alone would put the upper lid below the lower one
    for upper, lower in ((159, 145), (386, 374)):
        assert gap(closed, upper, lower) == pytest.approx(0, abs=2e-3)
    plain = transfer(source, face(eye=0.0), face(eye=0.12), True, True, False)
    assert gap(plain, 159, 145) > 0.03


def test_an_eye_opens_by_the_smaller_of_share_and_way():
    assert gap(moved(face(eye=0.08), face(eye=0.09), face(eye=0.01)), 159, 145) == pytest.approx(0.16, abs=4e-3)  # not nine times
    assert gap(moved(face(eye=0.02), face(eye=0.12), face(eye=0.08)), 159, 145) == pytest.approx(0.03, abs=2e-3)  # not by 0.04


def test_lips_part_by_the_way_and_never_cross():
    opened = moved(face(mouth=0.0), face(mouth=0.2), face(mouth=0.05))
    assert gap(opened, 13, 14) == pytest.approx(0.15, abs=0.01)
    shut = moved(face(mouth=0.02), face(mouth=0.0), face(mouth=0.1))
    assert gap(shut, 13, 14) == pytest.approx(0, abs=2e-3)
    lower, upper = (shut.value[0, POINTS.index(p), 1] for p in (14, 13))
    assert lower >= upper - 1e-3


def test_openings_do_not_depend_on_the_pose_of_the_driving_face():
    source, reference = face(eye=0.06), face()
    pose = {"size": 1.3, "turn": 0.5, "shift": (0.3, -0.2)}
    for change in ({"mouth": 0.15}, {"eye": 0.02}, {"gaze": 0.03}, {"width": 0.42}):
        still, posed = moved(source, face(**change), reference), moved(source, face(**change, **pose), reference)
        for a, b in ((13, 14), (159, 145), (61, 291)):
            assert gap(posed, a, b) == pytest.approx(1.3 * gap(still, a, b), rel=0.04, abs=2e-3)


def test_gains_exaggerate_what_moves_and_nothing_else():
    source = face()
    same = moved(source, face(), face(), Gains(mouth=2, eyes=2, gaze=2, smile=2))
    assert same.value == pytest.approx(source.value.numpy(), abs=1e-5)
    for relative in (face(), None):
        wide = moved(source, face(mouth=0.10, width=0.40, gaze=0.02, eye=0.06), relative, Gains(mouth=1.5, eyes=2, gaze=3, smile=1.2))
        assert gap(wide, 13, 14) == pytest.approx(0.02 + 1.5 * 0.08, rel=0.05)
        assert gap(wide, 61, 291) == pytest.approx(0.36 + 1.2 * 0.04, rel=0.03)
        assert gap(wide, 159, 145) == pytest.approx(0.08 - 2 * 0.02, rel=0.08)
        assert look(wide) == pytest.approx(0.06, rel=0.05)


def test_absolute_motion_without_gains_stays_bit_by_bit():
    driving = face(mouth=0.2, eye=0.01, turn=0.3)
    assert torch.equal(moved(face(), driving).value, driving.value)


def test_models_without_landmarks_are_moved_as_ever():
    source, driving, reference = face(eye=0.04), face(eye=0.0), face(eye=0.12)
    plain = transfer(source, driving, reference)
    assert torch.equal(transfer(source, driving, reference, face=FaceKeypoints()).value, plain.value)


def test_a_wide_open_mouth_is_not_damped():
    source, wide = face(mouth=0.0), face(mouth=0.3)
    kept = FaceKeypoints(POINTS)
    _, all_counted = limit(source, wide)
    _, rigid = limit(source, wide, kept.rigid(22))
    assert float(all_counted) < 0.95
    assert float(rigid) > float(all_counted)
    assert 152 not in [POINTS[i] for i in kept.rigid(22) if i < len(POINTS)]


def test_too_few_rigid_points_count_all():
    assert FaceKeypoints((61, 291, 13, 14)).rigid(5) == [0, 1, 2, 3, 4]


def test_places_are_where_the_landmarks_are():
    landmarks = np.zeros((478, 3), np.float32)
    landmarks[13] = (0.5, 0.5, 0)  # the middle of the first pixel
    landmarks[14] = (63.5, 32, 0)
    from dagan.media.landmarks import Face

    found = FaceKeypoints((13, 14)).places(Face((0, 0, 64, 64), landmarks, 1.0, lambda points: points), 64)
    assert found == pytest.approx(np.array([[-1, -1], [1, 0]]), abs=1e-6)
    assert np.isnan(FaceKeypoints((13, 14)).places(None, 64)).all()
    keypoints = Keypoints(torch.zeros(2, 3, 2), torch.eye(2).expand(2, 3, 2, 2))
    put = FaceKeypoints((13, 14)).put(keypoints, [found, np.full((2, 2), np.nan, np.float32)])
    assert put.value[0].tolist() == [[-1, -1], [1, 0], [0, 0]]
    assert (put.value[1] == 0).all()


@pytest.mark.parametrize(("points", "choice", "drives"), [(POINTS, "auto", True), (POINTS, "learnt", False), ((), "auto", False)])
def test_landmarks_drive_where_keypoints_stand_on_them(points, choice, drives):
    assert FaceKeypoints(points).explicit(choice, "m") is drives


@pytest.mark.parametrize(("points", "choice", "message"), [((), "landmarks", "stand on no landmarks"), (POINTS, "both", "must be auto")])
def test_choices_that_cannot_be(points, choice, message):
    with pytest.raises(InputError, match=message):
        FaceKeypoints(points).explicit(choice, "m")


def test_a_reference_that_is_a_point_gives_finite_keypoints():
    point = Keypoints(torch.zeros(1, 22, 2), torch.eye(2).expand(1, 22, 2, 2))
    assert torch.isfinite(moved(face(), face(), point).value).all()
    assert torch.isfinite(moved(point, face(), face()).value).all()
