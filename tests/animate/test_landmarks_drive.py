"""Landmarks of every frame in place of the keypoints that stand on them: in the command, in Python, in motion files and in graphs."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dagan.animate.animator import Animator
from dagan.engine.open import open_engine
from dagan.engine.torch import TorchEngine
from dagan.export.job import ExportOptions, export_model
from dagan.media.landmarks import FaceLandmarker
from dagan.media.video import open_video
from dagan.motion.file import read_motion
from dagan.weights import read_model
from running_samples import TINY, decoded, moving_pictures, save_tiny_model, write_clip

POINTS = (13, 14, 159, 145)
GUIDED = replace(TINY, name="tiny-guided", image_size=128, motion_size=64, keypoints=replace(TINY.keypoints, landmarks=POINTS))


@pytest.fixture(scope="module")
def portrait():
    from skimage.data import astronaut

    return np.asarray(Image.fromarray(astronaut()[0:256, 96:352]).resize((128, 128)))


@pytest.fixture(scope="module")
def guided(tmp_path_factory, portrait):
    """A model whose keypoints stand on landmarks, a portrait, and a clip in which it sways; tests only read from it."""
    folder = tmp_path_factory.mktemp("guided")
    save_tiny_model(folder / "model.safetensors", config=GUIDED)
    Image.fromarray(portrait).save(folder / "portrait.png")
    shifts = [(0, 0), (3, 2), (5, -2), (1, 4), (-3, 1)]
    write_clip(folder / "clip.mp4", [np.roll(portrait, shift, (0, 1)) for shift in shifts])
    return folder


@pytest.fixture
def drive(guided, command, tmp_path, monkeypatch):
    """drive(*arguments, driving=): status and complaints of `dagan animate` with the guided model."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments, driving="clip.mp4", source="portrait.png", output="out.mp4"):
        files = [guided / name for name in (source, driving)]
        line = ["animate", *files, "-o", output, "--model", guided / "model.safetensors", "--device", "cpu", "--precision", "float32"]
        status, _, complaints = command(*line, "--no-crop", *arguments)
        return status, complaints

    return call


def places(picture):
    """Where the landmarks are, by the landmarker itself."""
    face = FaceLandmarker().detect(picture)[0]
    return 2 * (face.landmarks[list(POINTS), :2] - 0.5) / (len(picture) - 1) - 1


def test_landmarks_drive_unless_told_otherwise(guided, drive, tmp_path):
    assert drive("--save-motion", "a.motion", "--json", "a.json") == (0, "")
    assert drive("--keypoints", "learnt", "--save-motion", "b.motion", "--json", "b.json", output="b.mp4") == (0, "")
    with open_video(guided / "clip.mp4") as reader:
        pictures = [frame.image for frame in reader]
    told, learnt = read_motion(tmp_path / "a.motion"), read_motion(tmp_path / "b.motion")
    assert (told.explicit, learnt.explicit) == (True, False)
    for value, picture in zip(told.value, pictures, strict=True):
        assert np.abs(value[: len(POINTS)] - places(picture)).max() < 0.03  # two pixels: the landmarker follows faces from frame to frame
    assert np.abs(learnt.value[:, : len(POINTS)] - told.value[:, : len(POINTS)]).max() > 0.1
    assert (learnt.value[:, len(POINTS) :] == told.value[:, len(POINTS) :]).all()
    assert [json.loads((tmp_path / name).read_text())["keypoints"] for name in ("a.json", "b.json")] == ["landmarks", "learnt"]
    assert np.abs(decoded(tmp_path / "out.mp4").astype(int) - decoded(tmp_path / "b.mp4")).max() > 5


def test_a_motion_file_drives_as_its_video_did(guided, drive, tmp_path):
    for choice in ("landmarks", "learnt"):
        names = f"{choice}.motion", f"{choice}.mp4", f"{choice}-again.mp4"
        assert drive("--keypoints", choice, "--save-motion", names[0], output=names[1]) == (0, "")
        assert drive(driving=tmp_path / names[0], output=names[2]) == (0, "")
        assert (decoded(tmp_path / names[1]) == decoded(tmp_path / names[2])).all()


def test_the_python_interface_gives_the_same(guided, drive, written, portrait):
    assert drive("--reference", "first") == (0, "")
    animator = Animator(read_model(guided / "model.safetensors"))
    animator.set_source(portrait)
    with open_video(guided / "clip.mp4") as reader:
        results = np.stack([animator.animate(frame.image) for frame in reader])
    assert np.abs(results.astype(int) - np.stack(written)).max() <= 1
    streamed = Animator(read_model(guided / "model.safetensors"), batch_size=2)
    streamed.set_source(portrait)
    assert np.abs(np.stack(list(streamed.video(guided / "clip.mp4"))).astype(int) - results).max() <= 1
    animator.set_source(portrait)
    animator.set_reference(portrait)
    assert np.abs(animator.animate(portrait).astype(int) - results[0]).mean() < 2


def test_a_source_without_a_face_is_driven_by_learnt_keypoints(guided, drive, tmp_path):
    Image.fromarray(moving_pictures(1, 128, 128)[0]).save(tmp_path / "thing.png")
    assert drive("--json", "r.json", source=tmp_path / "thing.png") == (0, "")
    assert json.loads((tmp_path / "r.json").read_text())["keypoints"] == "learnt"


def test_a_reference_with_a_face_does_not_bring_landmarks_to_a_source_without(guided, portrait):
    thing = moving_pictures(1, 128, 128)[0]
    results = []
    for choice in ("auto", "learnt"):
        animator = Animator(read_model(guided / "model.safetensors"), keypoints=choice)
        animator.set_source(thing)
        animator.set_reference(portrait)
        results.append(animator.animate(np.roll(portrait, 3, 1)))
    assert (results[0] == results[1]).all()


def test_landmarks_are_refused_with_models_that_know_none(run):
    status, _, complaints = run("--keypoints", "landmarks")
    assert status == 2
    assert complaints == (
        "dagan: --keypoints landmarks: the keypoints of model 'tiny-64' stand on no landmarks: use learnt, or another model\n"
    )


@pytest.mark.slow
def test_graphs_draw_with_landmarks_too(guided, tmp_path, portrait):
    model = read_model(guided / "model.safetensors")
    export_model(model, tmp_path / "graphs", ExportOptions())
    exact, graphs = TorchEngine(model), open_engine(tmp_path / "graphs", precision="float32")
    assert graphs.face == exact.face
    assert graphs.face.landmarks == POINTS
    results = []
    for engine in (exact, graphs):
        animator = Animator(engine)
        animator.set_source(portrait)
        with open_video(guided / "clip.mp4") as reader:
            results.append(np.stack([animator.animate(frame.image) for frame in reader]).astype(int))
    assert np.abs(results[0] - results[1]).max() <= 1
