"""Heads that are turned, motion taken apart into head and face, and poses set by hand: geometry alone, without pictures."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from dagan.config import Gains
from dagan.errors import InputError
from dagan.models.keypoints import Keypoints
from dagan.motion.head import HeadMotion, Relief, angles_of, changes, check_parts, fitted_motion, moved_head, parts_of, turn_of
from dagan.motion.openings import FaceKeypoints
from dagan.motion.pose import Pose, between, check_pose, posed
from dagan.motion.transfer import transfer

POINTS = (61, 291, 13, 14, 159, 145, 386, 374, 468, 473, 0, 17, 105, 334, 152)
PLACES = {
    61: (-0.18, 0.35), 291: (0.18, 0.35), 13: (0, 0.34), 14: (0, 0.36), 0: (0, 0.3), 17: (0, 0.4), 159: (-0.2, -0.18), 145: (-0.2, -0.1),
    386: (0.2, -0.18), 374: (0.2, -0.1), 468: (-0.2, -0.13), 473: (0.2, -0.13), 105: (-0.2, -0.3), 334: (0.2, -0.3), 152: (0, 0.6),
}  # fmt: skip
FREE = [(-0.4, -0.5), (0.4, -0.5), (0.0, 0.0), (-0.5, 0.1), (0.5, 0.1), (0.0, -0.7), (0.3, 0.4)]
FACE = FaceKeypoints(POINTS, Gains())


def source():
    value = torch.tensor([PLACES[point] for point in POINTS] + FREE, dtype=torch.float32)[None]
    return Keypoints(value, torch.eye(2).expand(1, value.shape[1], 2, 2).clone())


def relief():
    x, y = source().value[0].double().unbind(-1)
    depth = 0.6 * (x.square() + 0.5 * y.square())  # The face is round, and its middle is nearest.
    return Relief(depth, torch.stack([1.2 * x, 0.6 * y], dim=-1), torch.tensor([0.0, 0.0, 0.3], dtype=torch.float64), 1.1)


def driven(yaw=0.0, pitch=0.0, roll=0.0, size=1.0, shift=(0.0, 0.0), **expression):
    """Keypoints of the source when its head turns by exactly so much and its face does what the pose says."""
    own = posed(source(), relief(), FACE, [Pose(**expression)])
    turn = torch.from_numpy(turn_of(yaw, pitch, roll)[None])
    motion = HeadMotion(turn, torch.tensor([np.log(size)]), torch.tensor([shift], dtype=torch.float64))
    return moved_head(own, relief(), motion)


def place(keypoints, point):
    return keypoints.value[0, POINTS.index(point)].numpy()


def gap(keypoints, a, b):
    return float(np.linalg.norm(place(keypoints, a) - place(keypoints, b)))


def fitted(keypoints):
    """The motion of the head, by keypoints that no expression of these tests moves."""
    steady = [0.0 if point >= 0 and point not in (145, 374, 105, 334) else 1.0 for point in (*POINTS, *[-1] * len(FREE))]
    return fitted_motion(source(), relief(), keypoints, steady)


def test_turns_are_named_as_one_sees_them():
    nose = torch.tensor([0.0, 0.0, -0.2])  # in front of the face
    for angles, axis, sign in (((30, 0, 0), 0, 1), ((0, 30, 0), 1, -1)):  # to the right, and up
        moved = Rotation.from_rotvec(turn_of(*angles)).apply(nose)
        assert np.sign(moved[axis]) == sign
    ear = Rotation.from_rotvec(turn_of(0, 0, 30)).apply([0.5, 0, 0])
    assert ear[1] > 0  # clockwise: what is on the right goes down
    assert angles_of(Rotation.from_rotvec(turn_of(20, -10, 5)).as_matrix()) == pytest.approx([20, -10, 5])


@pytest.mark.parametrize("pose", [(25, 0, 0), (0, -18, 0), (-12, 9, 40), (0, 0, 0)])
def test_the_fit_finds_how_a_head_moved(pose):
    found = fitted(driven(*pose, size=1.2, shift=(0.1, -0.2)))
    assert np.degrees(found.turn[0].numpy() - turn_of(*pose)) == pytest.approx([0, 0, 0], abs=0.2)
    assert float(found.growth) == pytest.approx(np.log(1.2), abs=2e-3)
    assert found.shift[0].numpy() == pytest.approx([0.1, -0.2], abs=2e-3)


def test_expression_alone_leaves_the_head_and_keeps_the_openings():
    moved = driven(20, -8, 10, 1.1, mouth=0.8, smile=0.4, lids=-0.6)
    kept = parts_of("expression", 1.0, FACE, relief()).kept(source(), moved)
    still = driven(mouth=0.8, smile=0.4, lids=-0.6)
    assert np.degrees(np.abs(fitted(kept).turn.numpy())).max() < 1
    assert (kept.value[0, len(POINTS) :] - source().value[0, len(POINTS) :]).abs().max() < 1e-5
    for a, b in ((13, 14), (61, 291), (159, 145), (386, 374)):
        assert gap(kept, a, b) == pytest.approx(gap(still, a, b), rel=0.06, abs=2e-3)


def test_pose_alone_leaves_the_face():
    moved = driven(20, -8, 10, mouth=0.8, lids=-0.6)
    kept = parts_of("pose", 1.0, FACE, relief()).kept(source(), moved)
    still = driven(20, -8, 10)
    assert kept.value.numpy() == pytest.approx(still.value.numpy(), abs=0.02)
    assert gap(kept, 13, 14) == pytest.approx(gap(still, 13, 14), abs=2e-3)


def test_mouth_and_eyes_go_alone():
    moved = driven(15, mouth=1.0, lids=-1.0)
    mouth, eyes = (parts_of(part, 1.0, FACE, relief()).kept(source(), moved) for part in ("mouth", "eyes"))
    assert gap(mouth, 13, 14) > 0.08
    assert gap(mouth, 159, 145) == pytest.approx(0.08, abs=1e-4)
    assert gap(eyes, 159, 145) < 0.01
    assert gap(eyes, 13, 14) == pytest.approx(0.02, abs=1e-4)


def test_all_at_full_strength_is_all():
    moved = driven(20, 5, mouth=0.5)
    kept = parts_of("all", 1.0, FACE, relief()).kept(source(), moved)
    assert kept.value.numpy() == pytest.approx(moved.value.numpy(), abs=1e-5)
    assert kept.jacobian.numpy() == pytest.approx(moved.jacobian.numpy(), abs=1e-4)
    assert not changes("all", 1.0)


def test_strength_takes_a_share_of_turn_and_opening():
    moved = driven(20, mouth=1.0)
    half = parts_of("all", 0.5, FACE, relief()).kept(source(), moved)
    assert np.degrees(fitted(half).turn[0, 1].item()) == pytest.approx(-10, abs=1)
    assert gap(half, 13, 14) == pytest.approx(0.02 + (gap(driven(mouth=1.0), 13, 14) - 0.02) / 2, rel=0.06)
    nothing = parts_of("all", 0.0, FACE, relief()).kept(source(), moved)
    assert nothing.value.numpy() == pytest.approx(source().value.numpy(), abs=1e-6)


def test_parts_come_after_openings_and_before_the_limit():
    reference = driven()
    full = transfer(source(), driven(25, mouth=1.0), reference, limit_motion=False, face=FaceKeypoints(POINTS, Gains(mouth=1.5)))
    parts = parts_of("mouth", 1.0, FACE, relief())
    mouth = transfer(source(), driven(25, mouth=1.0), reference, face=FaceKeypoints(POINTS, Gains(mouth=1.5)), parts=parts)
    assert gap(mouth, 13, 14) == pytest.approx(gap(full, 13, 14), rel=0.06)


def test_a_model_without_landmarks_parts_head_from_the_rest():
    moved = driven(15)
    moved.value[0, 3] += torch.tensor([0.0, 0.1])
    plain = FaceKeypoints()
    face = parts_of("expression", 1.0, plain, relief()).kept(source(), moved)
    assert float(face.value[0, 3, 1] - source().value[0, 3, 1]) == pytest.approx(0.1, abs=0.02)
    head = parts_of("pose", 1.0, plain, relief()).kept(source(), moved)
    assert head.value.numpy() == pytest.approx(driven(15).value.numpy(), abs=0.02)
    with pytest.raises(InputError, match="--move mouth: no keypoints of model 'x' stand on landmarks there"):
        check_parts("mouth", plain, "x")


def test_a_pose_moves_what_it_names():
    def made(**pose):
        return posed(source(), relief(), FACE, [Pose(**pose)])

    assert torch.equal(made().value, source().value)
    assert gap(made(mouth=1.0), 13, 14) == pytest.approx(0.02 + 0.11 * 1.1, abs=1e-3)
    assert gap(made(mouth=-1.0), 13, 14) == pytest.approx(0, abs=1e-3)
    assert gap(made(smile=1.0), 61, 291) == pytest.approx(0.36 + 0.06 * 1.1, abs=1e-3)
    assert gap(made(lids=-1.0), 159, 145) == pytest.approx(0, abs=1e-6)
    assert place(made(gaze_x=1.0), 468)[0] > place(source(), 468)[0]
    assert place(made(gaze_y=1.0), 473)[1] < place(source(), 473)[1]
    assert made(zoom=1.5, shift_x=0.1).value.mean(1)[0, 0] > 0.15
    assert np.degrees(fitted(made(yaw=20)).turn[0].numpy() - turn_of(20, 0, 0)) == pytest.approx([0, 0, 0], abs=0.2)


def test_jacobians_turn_with_the_head():
    turned = posed(source(), relief(), FACE, [Pose(roll=90)])
    assert turned.jacobian[0, 0].numpy() == pytest.approx(np.array([[0, -1], [1, 0]]), abs=1e-5)
    aside = posed(source(), relief(), FACE, [Pose(yaw=40)])
    middle = aside.jacobian[0, len(POINTS) + 2].numpy()  # It lies in the middle of the face, where depth is level.
    assert middle == pytest.approx(np.diag([np.cos(np.radians(40)), 1]), abs=1e-5)


def test_poses_that_no_head_has_are_refused():
    for pose, words in (({"yaw": 90}, "yaw is 90: must be from -60 to 60"), ({"shift_x": 2}, "shift x is 2: must be from -0.5 to 0.5")):
        with pytest.raises(InputError, match=words):
            Pose(**pose)
    with pytest.raises(InputError, match="gaze x: the keypoints of model 'x' do not stand on what this moves"):
        check_pose([Pose(gaze_x=1)], FaceKeypoints((13, 14)), "x")
    check_pose([Pose(yaw=10, mouth=1)], FaceKeypoints((13, 14)), "x")


def test_choices_that_there_are_not_are_refused():
    with pytest.raises(InputError, match="--move is 'nose': must be all, expression, pose, mouth, eyes"):
        changes("nose", 1.0)
    for strength in (-0.1, 2.5, float("nan")):
        with pytest.raises(InputError, match="must be from 0"):
            changes("all", strength)


def test_poses_between_two():
    assert between(Pose(yaw=-20), Pose(yaw=20, mouth=1), 0.25) == Pose(yaw=-10, mouth=0.25)


@pytest.mark.parametrize("spread", [0.0, 1e-6, 1e-3])
@pytest.mark.parametrize("height", [1.1, 1e-3, 1e-6])
def test_keypoints_that_say_nothing_of_the_head_give_a_motion_all_the_same(spread, height):
    rng = np.random.default_rng(3)
    spot = Keypoints(torch.from_numpy(spread * rng.normal(size=(1, 22, 2))).float() + 0.3, source().jacobian)
    anywhere = Keypoints(torch.from_numpy(rng.uniform(-1, 1, (6, 22, 2))).float(), source().jacobian.expand(6, -1, -1, -1))
    for home, moved in ((spot, anywhere), (spot, spot), (source(), spot)):
        motion = fitted_motion(home, replace(relief(), height=height), moved, [1.0] * 22)
        assert all(part.isfinite().all() for part in (motion.turn, motion.growth, motion.shift))
