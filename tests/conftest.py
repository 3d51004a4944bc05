"""Data that several rooms' tests need, made on the spot: small clips of a blob that moves over a textured background."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from dagan.cli import main
from exported_folders import known_graphs, onnx_folder, openvino_folder  # noqa: F401 (fixtures of several rooms)


def moving_blob(seed: int, frames: int, size: int = 64) -> list[np.ndarray]:
    """Frames size x size x 3 uint8: a shaded, textured blob that swings to the side, over a still background."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    waves = rng.uniform(6, 20, (3, 4))
    background = np.stack([0.4 + 0.2 * np.sin(a * x + b) * np.cos(c * y + d) for a, b, c, d in waves], -1)
    colour = rng.uniform(0.3, 1.0, 3)
    pictures = []
    for t in range(frames):
        centre_x, centre_y = 0.5 + 0.15 * np.sin(0.7 * t + seed), 0.5 + 0.05 * np.cos(0.5 * t)
        distance = np.hypot(x - centre_x, y - centre_y) / 0.28
        texture = 0.75 + 0.25 * np.sin(25 * (x - centre_x)) * np.sin(25 * (y - centre_y))
        inside = (np.clip(1 - distance, 0, 1) * 8).clip(0, 1)[..., None]
        blob = colour * (texture * np.sqrt(np.clip(1 - distance**2, 0, 1)))[..., None]
        pictures.append(((background * (1 - inside) + blob * inside).clip(0, 1) * 255).astype(np.uint8))
    return pictures


def _write_clip(path: Path, pictures: list[np.ndarray]) -> None:
    """An H.264 file, 25 frames per second, with a key frame every 5 frames and frames predicted from both sides."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "5", "bf": "2", "crf": "12"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="session")
def write_clip() -> Callable[[Path, list[np.ndarray]], None]:
    """Writes pictures H x W x 3 as a video."""
    return _write_clip


@pytest.fixture(scope="session")
def clips_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight clips, 9 to 16 frames of 64 x 64, of six identities named as in VoxCeleb."""
    folder = tmp_path_factory.mktemp("clips")
    for i in range(8):
        _write_clip(folder / f"id{10000 + min(i, 5)}#video{i}#0.mp4", moving_blob(i, 9 + i))
    return folder


@pytest.fixture(scope="session")
def portraits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six portraits 72 x 64, one for each identity of `clips_folder`."""
    folder = tmp_path_factory.mktemp("portraits")
    for i in range(6):
        picture = np.pad(moving_blob(40 + i, 1)[0], ((4, 4), (0, 0), (0, 0)), mode="edge")
        Image.fromarray(picture).save(folder / f"id{10000 + i}#portrait.png")
    return folder


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """command(*arguments) runs `dagan ...` -> (status, what was printed, what was complained of)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dagan", *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as leave:
            status = int(leave.code or 0)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return call
