"""A video as source: its own motion goes on while its face is exchanged, times are those of what drives, and nonsense is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from dagan.cli.animate import PORTRAIT
from dagan.models.keypoints import Keypoints
from dagan.motion.head import HeadMotion, Relief, moved_head, turn_of
from dagan.motion.openings import FaceKeypoints
from dagan.motion.parts import parts_of
from running_samples import TINY, decoded, save_tiny_model

POINTS = (13, 14, 0, 159, 145, 374)
PLACES = [(0.0, 0.34), (0.0, 0.36), (0.0, 0.3), (-0.2, -0.18), (-0.2, -0.1), (0.2, -0.1), (-0.4, -0.5), (0.4, -0.5), (0.0, 0.1)]


def test_the_face_is_exchanged_and_the_head_goes_on():
    home = Keypoints(torch.tensor([PLACES]), torch.eye(2).expand(1, len(PLACES), 2, 2))
    depth = torch.tensor(PLACES, dtype=torch.float64).square().sum(1)
    slope, pivot = 2 * torch.tensor(PLACES, dtype=torch.float64), torch.tensor([0.0, 0.0, 0.3], dtype=torch.float64)
    relief = Relief(depth, slope, pivot, 1.1)

    def with_mouth(gap, yaw):
        opened = home.value.clone()
        opened[0, 1, 1] += gap
        turn = torch.from_numpy(turn_of(yaw, 0, 0)[None])
        motion = HeadMotion(turn, torch.zeros(1, dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64))
        return moved_head(Keypoints(opened, home.jacobian), relief, motion)

    def gap(keypoints):
        return float(keypoints.value[0, 1, 1] - keypoints.value[0, 0, 1])

    own, driven = with_mouth(0.15, 15.0), with_mouth(0.05, -10.0)
    parts = parts_of("expression", 1.0, FaceKeypoints(POINTS), relief)
    exchanged = parts.exchanged(home, own, driven)
    assert gap(exchanged) == pytest.approx(0.07, abs=0.01)  # the driving opening, not the sum of both
    assert torch.equal(exchanged.value[:, len(POINTS) :], own.value[:, len(POINTS) :])
    assert torch.equal(exchanged.jacobian, own.jacobian)
    eyes = parts_of("eyes", 1.0, FaceKeypoints(POINTS), relief).exchanged(home, own, driven)
    assert gap(eyes) == pytest.approx(gap(own), abs=1e-5)


@pytest.fixture
def dub(command, tmp_path, write_clip, monkeypatch):
    """dub(driving, *arguments): status and complaints of animating a clip of six frames in which a photo moves to the right."""
    monkeypatch.chdir(tmp_path)
    save_tiny_model(tmp_path / "tiny.safetensors", config=replace(TINY, keypoints=replace(TINY.keypoints, landmarks=(13, 14))))
    photo = np.asarray(Image.open(PORTRAIT).convert("RGB").resize((128, 128)))
    write_clip(tmp_path / "source.mp4", [np.roll(photo, 2 * i, 1) for i in range(6)])
    write_clip(tmp_path / "driving.mp4", [np.roll(photo, -i, 0) for i in range(9)])

    def call(driving, *arguments):
        line = ["animate", "source.mp4", driving, "-o", "out.mp4", "--model", "tiny.safetensors", "--device", "cpu", "--no-crop"]
        status, _, complaints = command(*line, *arguments)
        return status, complaints

    return call


def test_the_result_lasts_as_long_as_what_drives(dub, tmp_path):
    assert dub("driving.mp4")[0] == 0
    pictures = decoded(tmp_path / "out.mp4").astype(int)
    assert len(pictures) == 9
    assert np.abs(pictures[5] - pictures[0]).mean() > 2  # The source goes on.
    assert np.abs(pictures[6] - pictures[0]).mean() < np.abs(pictures[5] - pictures[0]).mean()  # It begins again.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--move", "pose"], "--move pose: the head of a source that is a video moves as it does there"),
        (["--paste-back"], "source.mp4 is a video: --side-by-side, --paste-back"),
    ],
)
def test_what_needs_a_photo_is_refused(dub, tmp_path, arguments, words):
    status, complaints = dub("driving.mp4", *arguments)
    assert status == 2
    assert words in complaints
    assert not (tmp_path / "out.mp4").exists()
