"""Motions that come with the package drive by their names; --smooth and --loop shape whatever drives."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dagan.animate.animator import Animator
from dagan.cli.animate import PORTRAIT
from dagan.engine.open import open_engine
from dagan.motion.file import read_motion
from dagan.motion.pose import MOTIONS
from running_samples import TINY, decoded, save_tiny_model

POINTS = (13, 14, 159, 145)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model whose keypoints stand on lips and lids of one eye, a photo, and a shaking clip; tests only read from it."""
    folder = tmp_path_factory.mktemp("made")
    save_tiny_model(folder / "tiny.safetensors", config=replace(TINY, keypoints=replace(TINY.keypoints, landmarks=POINTS)))
    Image.open(PORTRAIT).convert("RGB").resize((160, 160)).save(folder / "me.png")
    return folder


@pytest.fixture
def drive(folder, command, tmp_path, monkeypatch):
    """drive(driving, *arguments, output=): status and complaints of `dagan animate` with the tiny model."""
    monkeypatch.chdir(tmp_path)

    def call(driving, *arguments, output="out.mp4"):
        line = ["animate", folder / "me.png", driving, "-o", output, "--model", folder / "tiny.safetensors", "--device", "cpu"]
        status, _, complaints = command(*line, *arguments)
        return status, complaints

    return call


def test_a_name_drives(drive, tmp_path):
    assert drive("nod", "--save-motion", "nod.motion") == (0, "")
    pictures = decoded(tmp_path / "out.mp4").astype(int)
    assert len(pictures) == 60
    assert np.abs(pictures[12] - pictures[0]).mean() > 2
    kept = read_motion(tmp_path / "nod.motion")
    assert kept.reference == 0
    assert kept.explicit
    assert kept.value[12, :4, 1].mean() > kept.value[0, :4, 1].mean()  # The head looks down first.


def test_what_exists_wins_over_a_name(drive, tmp_path, write_clip, folder):
    photo = np.asarray(Image.open(folder / "me.png"))
    (tmp_path / "nod").mkdir()
    for i in range(3):
        Image.fromarray(np.roll(photo, i, 1)).save(tmp_path / "nod" / f"{i}.png")
    assert drive("nod") == (0, "")
    assert len(decoded(tmp_path / "out.mp4")) == 3


def test_a_word_that_is_no_file_and_no_motion_is_told_the_nearest(drive, tmp_path):
    status, complaints = drive("nodd")
    assert status == 2
    assert "nodd does not exist as a file, and no motion is called so: nearest: nod" in complaints
    assert not (tmp_path / "out.mp4").exists()


def test_what_a_model_cannot_move_is_refused(drive, tmp_path):
    status, complaints = drive("smile")
    assert status == 2
    assert "smile: the keypoints of model 'tiny-64' do not stand on what this moves" in complaints
    status, complaints = drive("nod", "--side-by-side")
    assert status == 2
    assert "--side-by-side shows the driving frames, and nod holds none" in complaints
    assert not list(Path(tmp_path).iterdir())


def test_smooth_and_loop_shape_the_motion(drive, tmp_path, folder, write_clip):
    photo = np.asarray(Image.open(folder / "me.png"))
    shaking = [np.roll(photo, (i * i) % 3, 1) for i in range(14)]
    write_clip(tmp_path / "clip.mp4", shaking)
    assert drive("clip.mp4", "--save-motion", "plain.motion")[0] == 0
    assert drive("clip.mp4", "--save-motion", "smooth.motion", "--smooth", "1", "--overwrite")[0] == 0
    assert drive("plain.motion", "--loop", "--overwrite")[0] == 0
    plain, smooth = (read_motion(tmp_path / f"{name}.motion").value for name in ("plain", "smooth"))
    assert np.abs(np.diff(smooth, axis=0)).mean() < np.abs(np.diff(plain, axis=0)).mean()
    status, complaints = drive("clip.mp4", "--smooth", "3", "--overwrite")
    assert status == 2
    assert "--smooth is 3: must be from 0" in complaints


def test_an_animator_steadies_frames_as_they_come(folder):
    engine = open_engine(str(folder / "tiny.safetensors"), device="cpu", precision="float32")
    photo = np.asarray(Image.open(folder / "me.png"))
    noise = np.random.default_rng(0).normal(0, 10, (12, *photo.shape))
    frames = list((photo + noise).clip(0, 255).astype(np.uint8))
    ways = []
    for smooth in (0.0, 1.0):
        animator = Animator(engine, smooth=smooth)
        animator.set_source(photo)
        drawn = animator.animate_batch(frames).astype(int)
        ways.append(np.abs(np.diff(drawn, axis=0)).mean())
    assert ways[1] < 0.85 * ways[0]


def test_motions_are_listed_and_drawn(command, tmp_path):
    status, printed, complaints = command("motions")
    assert (status, complaints) == (0, "")
    assert [line.split()[0] for line in printed.splitlines()] == list(MOTIONS)
    (tmp_path / "file").write_text("")
    status, _, complaints = command("motions", "-o", tmp_path / "file")
    assert status == 2
    assert "is a file: name a folder for the pictures" in complaints


@pytest.mark.slow
def test_strips_show_the_bundled_portrait(command, tmp_path):
    assert command("motions", "-o", tmp_path / "strips", "--device", "cpu")[0] == 0
    for name in MOTIONS:
        strip = np.asarray(Image.open(tmp_path / "strips" / f"{name}.png")).astype(int)
        assert strip.shape == (256, 6 * 256, 3)
        assert np.abs(strip[:, :256] - strip[:, 512:768]).mean() > 0.3
    status, _, complaints = command("motions", "-o", tmp_path / "strips", "--device", "cpu")
    assert status == 2
    assert "exists" in complaints
