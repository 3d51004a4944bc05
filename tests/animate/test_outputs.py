"""What `dagan animate` writes besides ordinary videos: image files, one frame, strips, cut-out people, grids."""

import av
import numpy as np
import pytest
from PIL import Image

import dagan.animate.animator
from dagan.animate.finish import Matte
from dagan.media.animations import AnimationReader
from running_samples import FRAMES, decoded, moving_pictures


@pytest.fixture
def square(monkeypatch):
    """The person is taken for the square in the middle, because the tiny model's portraits show no face."""
    matte = np.zeros((64, 64), np.float32)
    matte[16:48, 16:48] = 1
    monkeypatch.setattr(dagan.animate.animator, "find_matte", lambda *given: Matte(matte, 64))


def test_frames_become_image_files(run, written, tmp_path):
    assert run("--reference", "first", output="out.mp4")[0] == 0
    status, _, complaints = run("--reference", "first", output="frames/f%03d.png")
    assert status == 0
    assert "image files hold none" in complaints
    files = sorted((tmp_path / "frames").iterdir())
    assert [file.name for file in files] == [f"f{i:03d}.png" for i in range(FRAMES)]
    assert all((np.asarray(Image.open(file)) == picture).all() for file, picture in zip(files, written, strict=True))
    status, _, complaint = run(output="frames/f%03d.png")
    assert (status, "exists already" in complaint) == (2, True)
    assert run("--overwrite", output="frames/f%03d.png")[0] == 0
    assert len(list((tmp_path / "frames").iterdir())) == FRAMES


def test_one_frame_or_some_become_a_picture(run, written, tmp_path):
    assert run("--reference", "first", output="out.mp4")[0] == 0
    assert run("--reference", "first", "--still", "4", output="still.png")[0] == 0
    assert np.abs(np.asarray(Image.open("still.png")).astype(int) - written[4]).max() <= 1
    assert run("--reference", "first", "--strip", "3", output="strip.png")[0] == 0
    wanted = np.concatenate([written[i] for i in (0, 5, FRAMES - 1)], axis=1)
    assert np.abs(np.asarray(Image.open("strip.png")).astype(int) - wanted).max() <= 1
    assert run("--strip", "2", "--side-by-side", output="strip.jpg")[0] == 0
    assert Image.open("strip.jpg").size == (2 * 4 * 64, 64)


@pytest.mark.parametrize(
    ("arguments", "output", "words"),
    [
        (["--still", "99"], "a.png", f"frames 0 to {FRAMES - 1}"),
        (["--strip", "99"], "a.png", f"has {FRAMES} frames"),
        (["--strip", "0"], "a.png", "at least 1"),
        (["--strip", "2", "--still", "1"], "a.png", "choose one"),
        (["--still", "1"], "a%d.png", "names many files"),
        (["--still", "1"], "a.mp4", "a picture is written to"),
        (["--alpha"], "a.mp4", "a transparent video is written to"),
        (["--alpha", "--still", "1"], "a.jpg", "cannot be transparent"),
        (["--alpha", "--paste-back"], "a.webm", "leave out"),
        (["--encoder", "libx264"], "a%d.png", "--encoder is for videos"),
        ([], "a.jpg", "a video is written to"),
    ],
)
def test_what_cannot_be_written_is_refused(run, tmp_path, arguments, output, words):
    status, _, complaint = run(*arguments, output=output)
    assert status == 2
    assert words in complaint
    assert list(tmp_path.iterdir()) == []


def opaque(path) -> np.ndarray:
    """N x H x W: how opaque the frames of an animated picture or a video are."""
    if path.suffix in (".webm", ".mov"):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            if path.suffix == ".webm":
                decoder = av.CodecContext.create("libvpx-vp9", "r")
                frames = [frame for packet in container.demux(stream) for frame in decoder.decode(packet if packet.size else None)]
            else:
                frames = list(container.decode(stream))
            return np.stack([frame.to_ndarray(format="rgba")[..., 3] for frame in frames])
    with Image.open(path) as image:
        found = []
        for i in range(image.n_frames):
            image.seek(i)
            found.append(np.asarray(image.convert("RGBA"))[..., 3])
        return np.stack(found)


@pytest.mark.parametrize("suffix", [".webm", ".mov", ".webp", ".png", ".gif"])
def test_people_are_cut_out(run, square, tmp_path, suffix):
    assert run("--alpha", output=f"out{suffix}")[0] == 0
    found = opaque(tmp_path / f"out{suffix}")
    assert len(found) == FRAMES
    assert found.min() < 10
    assert found.max() > 245
    assert 0.05 < (found > 127).mean() < 0.7
    if suffix in (".webp", ".png", ".gif"):
        assert len(list(AnimationReader(tmp_path / f"out{suffix}"))) == FRAMES


def test_cut_out_pictures_keep_alpha(run, square, tmp_path):
    assert run("--alpha", "--still", "0", output="a.webp")[0] == 0
    assert Image.open("a.webp").mode == "RGBA"
    assert run("--alpha", "--mark", output="f%d.png")[0] == 0
    assert np.asarray(Image.open("f3.png")).shape == (64, 64, 4)
    assert decoded(tmp_path / "f3.png").shape == (1, 64, 64, 3)


def test_a_grid_shows_what_each_photo_gives(files, run, written, tmp_path):
    """Three photos and the driving frame are four tiles; each photo moves as it does alone."""
    folder = tmp_path / "photos"
    folder.mkdir()
    others = [tmp_path / "b.png", tmp_path / "c.png"]
    for i, path in enumerate([folder / "a.png", *others]):
        Image.fromarray(moving_pictures(1, 80, 70, seed=5 + i)[0]).save(path)
    alone = []
    for path in (folder / "a.png", *others):
        written.clear()
        assert run("--reference", "first", "--overwrite", source=path)[0] == 0
        alone.append(np.stack(written))
    written.clear()
    also = [word for path in others for word in ("--also", path)]
    assert run("--reference", "first", "--grid", *also, "--show-driving", "--overwrite", source=folder)[0] == 0
    frames = np.stack(written).astype(int)
    assert frames.shape == (FRAMES, 128, 128, 3)
    tiles = [frames[:, :64, 64:], frames[:, 64:, :64], frames[:, 64:, 64:]]
    assert all(np.abs(tile - single).max() <= 1 for tile, single in zip(tiles, alone, strict=True))
    assert np.abs(frames[0, :64, :64] - moving_pictures(1, 96, 64)[0][:, 16:80]).mean() < 12
    written.clear()
    assert run("--grid", "--size", "128", "--overwrite", source=folder)[0] == 0
    assert written[0].shape == (128, 128, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--also", "PHOTO"], "--also is for --grid"),
        (["--show-driving"], "--show-driving is for --grid"),
        (["--grid", "--paste-back"], "leave out --paste-back"),
        (["--grid", "--also", "none.png"], "none.png does not exist"),
        (["--grid", "--also", "CLIP"], "is a video"),
    ],
)
def test_grids_that_cannot_be_are_refused(files, run, arguments, words):
    places = {"PHOTO": files / "portrait.png", "CLIP": files / "clip.mp4"}
    status, _, complaint = run(*(places.get(word, word) for word in arguments))
    assert status == 2
    assert words in complaint
    empty = files / "empty"
    empty.mkdir(exist_ok=True)
    status, _, complaint = run("--grid", source=empty)
    assert (status, "holds no images" in complaint) == (2, True)
