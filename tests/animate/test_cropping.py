"""`dagan animate` on whole photos: faces are found, cropped, pasted back."""

import json

import numpy as np
import pytest
from PIL import Image

from dagan.animate.animator import Animator
from dagan.errors import InputError
from dagan.media.framing import FaceFinder, crop, frame_still, lean
from dagan.media.landmarks import FaceLandmarker
from dagan.weights import load, read_model
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


def test_every_frame_shows_the_source_though_some_driving_frames_show_nobody(run, tmp_path, astronaut):
    """The bundled model; black, then the person, a title, the person again: the landmarks stay near the source's."""
    person = swaying(astronaut, 8)
    title = np.zeros_like(person[0])
    title[230:260, 100:400:40] = 255
    clip = write_clip(tmp_path / "late.mp4", [np.zeros_like(title)] * 4 + person[:4] + [title] * 4 + person[4:])
    Image.fromarray(astronaut).save(tmp_path / "photo.png")
    common = {"source": tmp_path / "photo.png", "driving": clip, "crop": True, "model": "lite-256"}
    status, _, complaints = run("--json", "r.json", **common)
    assert status == 0
    assert "no face in 8 of 16 frames: the nearest motion is held there" in complaints
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["frames_without_face"] == 8
    assert report["reference_frame"] in (4, 5, 6, 7, 12, 13, 14, 15)
    landmarker = FaceLandmarker()
    source = landmarker.detect(crop(astronaut, frame_still(astronaut, FaceFinder(landmarker)), 256))[0].landmarks
    got = decoded(tmp_path / "out.mp4")
    for result in got:
        (face,) = landmarker.detect(result, thorough=False)
        assert np.linalg.norm(face.landmarks - source, axis=1).mean() < 20
    assert np.abs(got[0].astype(int) - got[4]).mean() < 2
    status, _, complaints = run("--on-missing", "error", "--overwrite", **common)
    assert status == 2
    assert "late.mp4 shows no face at 0.00 s (frame 0)" in complaints
    assert run("--on-missing", "never", "--overwrite", **common)[0] == 2


def test_a_photo_on_its_side_is_drawn_upright_and_put_back_as_it_was(run, written, tmp_path, astronaut):
    lying = np.ascontiguousarray(np.rot90(astronaut))
    Image.fromarray(lying).save(tmp_path / "photo.png")
    clip = write_clip(tmp_path / "face.mp4", [np.rot90(picture, 2) for picture in swaying(astronaut, 3)])
    options = {"source": tmp_path / "photo.png", "driving": clip, "crop": True, "model": "lite-256"}
    assert run("--side-by-side", **options)[0] == 0
    landmarker = FaceLandmarker()
    for tiles in written:
        for tile in np.split(tiles, 4, axis=1)[::3] + np.split(tiles, 4, axis=1)[1:2]:
            (face,) = landmarker.detect(np.ascontiguousarray(tile), thorough=False)
            assert abs(np.degrees(lean(face.landmarks))) < 15
    written.clear()
    assert run("--paste-back", "--overwrite", **options)[0] == 0
    for picture in written:
        (face,) = landmarker.detect(picture, thorough=False)
        assert np.degrees(lean(face.landmarks)) == pytest.approx(-90, abs=15)
        assert (picture[:, 400:] == lying[:, 400:]).all()


def test_without_cropping_too_faceless_frames_do_not_drive(run, written, tmp_path, astronaut):
    close = astronaut[20:240, 110:330]
    clip = write_clip(tmp_path / "face.mp4", [np.zeros_like(close)] * 3 + [np.roll(close, 2 * i, 1) for i in range(3)])
    Image.fromarray(close).save(tmp_path / "photo.png")
    status, _, complaints = run(source=tmp_path / "photo.png", driving=clip, model="lite-256")
    assert status == 0
    assert "no face in 3 of 6 frames" in complaints
    assert all(np.abs(picture.astype(int) - written[3]).max() <= 2 for picture in written[:3])
    assert np.abs(written[5].astype(int) - written[3]).mean() > 0.5


def test_frame_by_frame_the_latest_face_drives_on(astronaut):
    close = np.ascontiguousarray(astronaut[20:240, 110:330])
    black, moved = np.zeros_like(close), np.roll(close, 6, axis=1)
    results = {}
    for mode in ("hold", "rest"):
        animator = Animator(load("lite-256", "cpu", "float32"), on_missing=mode)
        animator.set_source(close)
        results[mode] = [animator.animate(frame).astype(int) for frame in (black, close, moved, black)]
        at_rest = animator.engine.render(animator._source, animator._source.keypoints)[0].astype(int)
        for first in results[mode][:2]:  # before the first face, and in it, the source rests
            assert np.abs(first - at_rest).max() <= 1
        assert np.abs(results[mode][2] - at_rest).mean() > 0.5
        animator.reset()
        assert np.abs(animator.animate_batch([black, moved, black])[0].astype(int) - at_rest).max() <= 1
    assert np.abs(results["hold"][3] - results["hold"][2]).max() <= 1
    assert np.abs(results["rest"][3] - at_rest).max() <= 1
    refusing = Animator(load("lite-256", "cpu", "float32"), on_missing="error")
    refusing.set_source(close)
    with pytest.raises(InputError, match="a driving frame shows no face"):
        refusing.animate(black)
