"""Steady motion: noise goes, movement stays and is not delayed, ends meet starts; and the motions that are made by hand."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from dagan.errors import InputError
from dagan.models.keypoints import Keypoints
from dagan.motion.file import DrivingMotion
from dagan.motion.pose import MOTIONS, Pose
from dagan.motion.transfer import Steadier, looped, smoothed

HOME = np.array([[-0.4, -0.5], [0.4, -0.5], [0.0, 0.6], [0.0, 0.3], [0.0, 0.35]], np.float32)


def motion(value):
    """A motion of five keypoints, 25 frames a second, whose Jacobians are the identity."""
    value = np.asarray(value, np.float32)
    times = tuple(Fraction(i, 25) for i in range(len(value) + 1))
    jacobian = np.broadcast_to(np.eye(2, dtype=np.float32), (*value.shape, 2)).copy()
    return DrivingMotion(value, jacobian, times, Fraction(25), Fraction(1, 25), 0, "m", "d", 64)


def noisy(frames=60, size=0.004):
    return motion(HOME + np.random.default_rng(0).normal(0, size, (frames, 5, 2)))


def speech(frames=100):
    """The last keypoint opens and closes as a mouth does, 3 times a second, in bursts."""
    times = np.arange(frames) / 25
    value = np.repeat(HOME[None], frames, 0)
    value[:, 4, 1] += 0.06 * np.sin(np.pi * 3 * times) ** 2 * (np.sin(times * 2) > -0.2)
    return motion(value)


def steps(keypoints):
    return np.abs(np.diff(keypoints, axis=0)).mean()


def test_a_still_face_becomes_still():
    for amount, most in ((0.25, 0.4), (0.5, 0.25), (1.0, 0.2)):
        assert steps(smoothed(noisy(), amount).value) < most * steps(noisy().value)


def test_speech_is_kept_and_not_delayed():
    spoken, steady = speech().value[:, 4, 1], smoothed(speech(), 0.5).value[:, 4, 1]
    assert np.polyfit(spoken, steady, 1)[0] > 0.95
    errors = [np.abs(spoken[5:-5] - np.roll(steady, -shift)[5:-5]).mean() for shift in (-2, -1, 0, 1, 2)]
    assert np.argmin(errors) == 2
    backwards = replace(speech(), value=speech().value[::-1].copy())
    assert smoothed(backwards, 0.5).value[::-1] == pytest.approx(smoothed(speech(), 0.5).value, abs=6e-3)  # neither way leads


def test_nothing_is_smoothed_unless_asked():
    assert smoothed(noisy(), 0.0) is not None
    assert (smoothed(noisy(), 0.0).value == noisy().value).all()
    assert len(smoothed(noisy(1), 1.0)) == 1
    for amount in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="must be from 0"):
            smoothed(noisy(), amount)


def test_jacobians_are_smoothed_too():
    shaky = noisy()
    shaky = replace(shaky, jacobian=shaky.jacobian + np.random.default_rng(1).normal(0, 0.01, shaky.jacobian.shape).astype(np.float32))
    assert steps(smoothed(shaky, 0.5).jacobian) < 0.25 * steps(shaky.jacobian)


def test_frames_that_come_one_by_one_are_steadied_by_the_past_alone():
    value, jacobian = (torch.from_numpy(x) for x in (noisy().value, noisy().jacobian))
    whole = Steadier(0.5)(Keypoints(value, jacobian))
    one_by_one = Steadier(0.5)
    parts = [one_by_one(Keypoints(value[i : i + 1], jacobian[i : i + 1])).value for i in range(len(value))]
    assert torch.equal(torch.cat(parts), whole.value)
    assert steps(whole.value.numpy()[20:]) < 0.6 * steps(noisy().value[20:])
    assert Steadier(0.0)(Keypoints(value, jacobian)).value is value


def test_the_end_passes_into_the_start():
    drifting = motion(HOME + np.linspace(0, 0.5, 50)[:, None, None])
    joined = looped(drifting)
    largest = np.abs(np.diff(drifting.value, axis=0)).max()
    assert np.abs(joined.value[-1] - joined.value[0]).max() < 3 * largest
    assert np.abs(np.diff(joined.value, axis=0)).max() < 8 * largest
    assert (joined.value[:30] == drifting.value[:30]).all()
    assert joined.times == drifting.times


@pytest.mark.parametrize("name", MOTIONS)
def test_made_motions_start_and_end_at_rest_and_move(name):
    poses = MOTIONS[name].poses()
    assert poses[0] == Pose()
    assert len(poses) == round(MOTIONS[name].seconds * 25)
    last = poses[-1]
    assert max(abs(last.yaw), abs(last.pitch), abs(last.roll)) < 1
    assert max(abs(last.mouth), abs(last.smile), abs(last.lids)) < 0.1
    assert len({pose.yaw + pose.pitch + pose.mouth + pose.smile + pose.lids for pose in poses}) > 8
    assert MOTIONS[name].about.endswith(".")


def test_six_motions_and_no_others():
    assert sorted(MOTIONS) == ["blink", "look", "nod", "shake", "smile", "speak"]
    assert min(pose.lids for pose in MOTIONS["blink"].poses()) == pytest.approx(-1)
    assert max(pose.yaw for pose in MOTIONS["shake"].poses()) == pytest.approx(14, abs=0.5)
