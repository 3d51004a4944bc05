"""Fixtures of tests of `dagan animate`."""

import pytest
from PIL import Image

from dagan.media.video import VideoWriter
from running_samples import FRAMES, moving_pictures, save_tiny_model, write_clip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a model, a portrait and a driving clip with sound; tests only read from it."""
    folder = tmp_path_factory.mktemp("files")
    save_tiny_model(folder / "model.safetensors")
    Image.fromarray(moving_pictures(1, 80, 70, seed=5)[0]).save(folder / "portrait.png")
    write_clip(folder / "clip.mp4", moving_pictures(FRAMES, 96, 64), sound=True)
    return folder


@pytest.fixture
def run(files, tmp_path, monkeypatch, command):
    """run(*arguments, source=, driving=, output=) -> (status, what was printed, what was complained of)."""
    monkeypatch.chdir(tmp_path)

    clip, weights = files / "clip.mp4", files / "model.safetensors"

    def call(*arguments, source=files / "portrait.png", driving=clip, output="out.mp4", model=weights, crop=False):
        line = ["animate", source, driving, "-o", output, "--model", model, "--device", "cpu", "--precision", "float32"]
        line += arguments if crop else (*arguments, "--no-crop")
        return command(*line)

    return call


@pytest.fixture
def written(monkeypatch):
    """The pictures that were handed to the encoder, which is lossy, so far."""
    pictures = []
    write = VideoWriter.write
    monkeypatch.setattr(VideoWriter, "write", lambda self, image, *when: (pictures.append(image.copy()), write(self, image, *when)))
    return pictures
