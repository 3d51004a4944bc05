"""`dagan animate` on whole photos: faces are found, cropped, pasted back."""

import json

import numpy as np
import pytest
from PIL import Image

from dagan.animate.animator import Animator
from dagan.weights import read_model
from running_samples import decoded, write_clip


@pytest.fixture(scope="module")
def astronaut():
    from skimage.data import astronaut as picture

    return picture()


def swaying(picture, count):
    """The picture moved about by a few pixels."""
    return [np.roll(picture, (int(6 * np.sin(i)), int(8 * np.cos(i))), (0, 1))[8:-8, 8:-8] for i in range(count)]


def test_faces_are_found_and_cropped_in_both(files, run, tmp_path, astronaut):
    wide = np.full((512, 800, 3), 128, np.uint8)
    wide[:, 200:712] = astronaut
    Image.fromarray(wide).save(tmp_path / "photo.png")
    clip = write_clip(tmp_path / "face.mp4", swaying(astronaut, 12))
    status, _, complaints = run("--side-by-side", "--json", "r.json", source=tmp_path / "photo.png", driving=clip, crop=True)
    assert status == 0
    assert complaints == ""
    got = decoded(tmp_path / "out.mp4")
    # Both crops show the same face in the same way, though one picture is wide and the other square.
    source = got[:, :, :64].astype(int)
    assert np.abs(source - got[:, :, 64:128]).mean() < 30
    assert np.abs(source - np.asarray(Image.fromarray(astronaut).resize((64, 64)))).mean() > 50
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["pictures_searched"] > 0
    assert report["frames_without_face"] == 0
    assert report["several_faces"] is False


def test_paste_back_puts_the_face_where_it_was(files, run, tmp_path, astronaut):
    Image.fromarray(astronaut).save(tmp_path / "photo.png")
    clip = write_clip(tmp_path / "face.mp4", swaying(astronaut, 4))
    assert run("--paste-back", source=tmp_path / "photo.png", driving=clip, crop=True)[0] == 0
    got = decoded(tmp_path / "out.mp4").astype(int)
    assert got.shape == (4, 512, 512, 3)
    difference = np.abs(got - astronaut).mean((0, 3))
    assert difference[400:, :].mean() < 6  # below the face: the photo
    assert difference[50:150, 180:260].mean() > 2 * difference[400:, :].mean()  # the face: the model's


def test_pictures_without_a_face_are_refused(files, run, tmp_path, astronaut):
    Image.fromarray(astronaut).save(tmp_path / "photo.png")
    for source, driving, words in (
        (files / "portrait.png", files / "clip.mp4", "no face found in"),
        (tmp_path / "photo.png", files / "clip.mp4", "clip.mp4"),
    ):
        status, _, complaints = run(source=source, driving=driving, crop=True)
        assert status == 2
        assert "no face found" in complaints
        assert words in complaints
    assert not (tmp_path / "out.mp4").exists()


def test_frames_with_a_missing_face_are_counted(run, tmp_path, astronaut):
    pictures = swaying(astronaut, 20)
    blank = [np.full_like(pictures[0], 90) for _ in range(10)]
    clip = write_clip(tmp_path / "face.mp4", pictures + blank)
    Image.fromarray(astronaut).save(tmp_path / "photo.png")
    status, _, complaints = run("--json", "r.json", source=tmp_path / "photo.png", driving=clip, crop=True)
    assert status == 0
    assert "no face in" in complaints
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["frames_without_face"] == 10
    assert len(decoded(tmp_path / "out.mp4")) == 30


def test_the_interface_crops_as_the_command_does(files, run, written, tmp_path, astronaut):
    Image.fromarray(astronaut).save(tmp_path / "photo.png")
    clip = write_clip(tmp_path / "face.mp4", swaying(astronaut, 6))
    assert run("--reference", "first", "--batch-size", "4", source=tmp_path / "photo.png", driving=clip, crop=True)[0] == 0
    animator = Animator(read_model(files / "model.safetensors"), batch_size=4)
    animator.set_source(astronaut, crop=True)
    wanted = np.stack(list(animator.video(clip, crop=True)))
    # The last bits may differ: threads share sums as they are free.
    assert np.abs(np.stack(written).astype(int) - wanted).max() <= 1
