"""A video as source: its own motion goes on while its face is exchanged, times are those of what drives, and nonsense is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from dagan.cli.animate import PORTRAIT
from dagan.models.keypoints import Keypoints
from dagan.motion.head import HeadMotion, Relief, moved_head, parts_of, turn_of
from dagan.motion.openings import FaceKeypoints
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


def test_a_face_is_pasted_back_into_every_frame(dub, tmp_path, write_clip):
    photo = np.asarray(Image.open(PORTRAIT).convert("RGB").resize((96, 96)))
    wholes = [np.full((96, 160, 3), 90 + 10 * i, np.uint8) for i in range(6)]
    for i, whole in enumerate(wholes):
        whole[:, 32 + i : 128 + i] = photo
    write_clip(tmp_path / "source.mp4", wholes)
    assert dub("driving.mp4", "--paste-back", "--mark")[0] == 0
    pictures = decoded(tmp_path / "out.mp4").astype(int)
    assert pictures.shape == (9, 96, 160, 3)
    for i, picture in enumerate(pictures):
        # Beside the square, which is the middle, there is the frame that the source shows then.
        assert np.abs(picture[:, :20] - wholes[i % 6][:, :20].astype(int)).max() <= 4
    assert np.abs(pictures[0, 30:60, 60:100] - wholes[0][30:60, 60:100].astype(int)).mean() > 2


def test_a_shot_without_a_face_stays_as_it_is(dub, tmp_path, write_clip):
    photo = np.asarray(Image.open(PORTRAIT).convert("RGB").resize((160, 160)))
    stripes = np.repeat(np.where(np.arange(160) // 4 % 2, 60, 200)[None, :, None], 160, 0).repeat(3, 2).astype(np.uint8)
    write_clip(tmp_path / "source.mp4", [photo] * 5 + [stripes] * 4)
    assert dub("driving.mp4", "--paste-back", "--crop")[0] == 0
    pictures, source = decoded(tmp_path / "out.mp4").astype(int), decoded(tmp_path / "source.mp4").astype(int)
    assert np.abs(pictures[:5] - source[:5]).mean() > 1
    assert np.abs(pictures[5:] - source[5:]).mean() < 1


def test_a_larger_video_is_pasted_into_a_smaller_one(dub, tmp_path, write_clip):
    write_clip(tmp_path / "source.mp4", [np.full((120, 200, 3), 90 + 10 * i, np.uint8) for i in range(6)])
    status, complaints = dub("driving.mp4", "--paste-back", "--max-side", "100")
    assert status == 0
    assert "has pictures of 200 x 120 pixels: the video is made at 100 x 60 (--max-side 100)" in complaints
    assert decoded(tmp_path / "out.mp4").shape == (9, 60, 100, 3)


@pytest.mark.parametrize(("size", "side"), [("96", 96), ("photo", 128)])
def test_results_have_the_size_that_was_asked_for(dub, tmp_path, size, side):
    assert dub("driving.mp4", "--size", size)[0] == 0
    pictures = decoded(tmp_path / "out.mp4")
    assert pictures.shape == (9, side, side, 3)
    assert len(np.unique(pictures)) > 50


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--move", "pose"], "--move pose: the head of a source that is a video moves as it does there"),
        (["--size", "32"], "--size is 32 pixels: must be from 64"),
        (["--still-background"], "source.mp4 is a video: --side-by-side, --still-background"),
    ],
)
def test_what_needs_a_photo_is_refused(dub, tmp_path, arguments, words):
    status, complaints = dub("driving.mp4", *arguments)
    assert status == 2
    assert words in complaints
    assert not (tmp_path / "out.mp4").exists()
