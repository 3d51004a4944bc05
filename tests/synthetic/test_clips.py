import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dagan.data.clips import find_clips
from dagan.data.config import DataConfig
from dagan.data.store import open_dataset
from dagan.data.truth import STEP, read_truth, truth_of
from dagan.errors import InputError
from dagan.media.video import open_video
from dagan.synthetic import clip as job
from dagan.synthetic.clip import HeadRenderer, synthesise
from dagan.synthetic.scene import draw_scene

SIZE, FRAMES = 48, 5


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads") / "out"
    assert synthesise(folder, 2, SIZE, 7, FRAMES) == (2, 0)
    return folder


def test_files_hold_what_was_rendered(heads: Path) -> None:
    video = heads / "head_7_00001.mp4"
    truth = read_truth(truth_of(video))  # type: ignore[arg-type]
    scene = draw_scene(7, 1, SIZE, FRAMES, 25.0)
    renderer = HeadRenderer(scene)
    with open_video(video) as frames:
        images = [frame.image for frame in frames]
        assert frames.rate == 25
    assert len(images) == FRAMES == len(truth.depth)
    for index in (0, FRAMES - 1):
        view = renderer.frame(index)
        np.testing.assert_array_equal(truth.label[index], view.label)
        np.testing.assert_allclose(truth.depth[index], view.depth, atol=0.51 * STEP)
        np.testing.assert_allclose(truth.rotation[index], view.pose.rotation, atol=1e-6)
        assert np.abs(images[index].astype(int) - view.image).mean() < 6  # compression
    assert truth.focal == (scene.camera.focal, scene.camera.focal)
    assert truth.landmarks.shape == (FRAMES, len(truth.landmark_names), 3)
    assert truth.visible.any(1).all()
    assert truth.face[0].mean() > 0.05
    (fx, _), (px, _) = truth.normalised_camera
    assert 1.0 < fx < 3.1
    assert 0.45 < px < 0.55
    # The rotation is one, and carries no reflection.
    np.testing.assert_allclose(truth.rotation[2] @ truth.rotation[2].T, np.eye(3), atol=1e-5)
    assert np.linalg.det(truth.rotation[2]) == pytest.approx(1, abs=1e-5)


def test_description_needs_no_program_to_read(heads: Path) -> None:
    note = json.loads((heads / "head_7_00000.json").read_text())
    arrays = np.load(heads / note["arrays"]["file"])
    scale = note["arrays"]["depth"]
    codes = np.cumsum(arrays["depth"], axis=2, dtype=np.uint16)
    depth = np.where(codes == 0, scale["background"], scale["offset"] + scale["step"] * (codes - 1.0))
    np.testing.assert_allclose(depth, read_truth(heads / "head_7_00000.json").depth, atol=1e-5)
    assert note["intrinsics"]["fx"] > SIZE
    assert {"nose_tip", "left_mouth_corner", "right_eye_outer"} <= set(note["landmark_names"])


def test_training_reads_the_folder_as_ordinary_clips(heads: Path) -> None:
    clips = find_clips(heads)
    assert [clip.name for clip in clips] == ["head_7_00000.mp4", "head_7_00001.mp4"]
    assert len({clip.identity for clip in clips}) == 2
    dataset = open_dataset(DataConfig(train=heads, size=32, hold_out=0), torch.device("cpu"))
    assert len(dataset.members("train")) == 2


def test_folder_grows_and_whole_clips_are_kept(heads: Path) -> None:
    before = {path.name: path.read_bytes() for path in heads.iterdir()}
    assert synthesise(heads, 3, SIZE, 7, FRAMES) == (1, 2)
    for name, content in before.items():
        assert (heads / name).read_bytes() == content
    for path in heads.glob("head_7_00002.*"):
        path.unlink()


def test_same_recipe_gives_the_same_bytes(heads: Path, tmp_path: Path) -> None:
    synthesise(tmp_path, 1, SIZE, 7, FRAMES)
    assert (tmp_path / "head_7_00000.json").read_bytes() == (heads / "head_7_00000.json").read_bytes()
    assert (tmp_path / "head_7_00000.mp4").read_bytes() == (heads / "head_7_00000.mp4").read_bytes()
    first, again = (np.load(folder / "head_7_00000.npz")["depth"] for folder in (tmp_path, heads))
    np.testing.assert_array_equal(first, again)


def test_other_clips_are_not_replaced_unasked(heads: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is another clip"):
        synthesise(heads, 1, SIZE + 16, 7, FRAMES)
    (tmp_path / "head_0_00000.mp4").write_bytes(b"mine")
    with pytest.raises(InputError, match="without its description"):
        synthesise(tmp_path, 1, SIZE, 0, FRAMES)
    assert (tmp_path / "head_0_00000.mp4").read_bytes() == b"mine"
    assert synthesise(tmp_path, 1, SIZE, 0, 2, overwrite=True) == (1, 0)
    assert (tmp_path / "head_0_00000.mp4").stat().st_size > 500


@pytest.mark.parametrize("step", ["write_truth", "locate"])
def test_interrupt_leaves_no_part_of_a_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(job, step, interrupt)
    with pytest.raises(KeyboardInterrupt):
        synthesise(tmp_path / "out", 1, SIZE, 0, 2)
    assert list(tmp_path.rglob("*.*")) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [({"clips": 0}, "--clips is 0"), ({"size": 33}, "even"), ({"size": 8}, "--size is 8"), ({"seed": -1}, "--seed"),
     ({"frames": 1}, "--frames")],
)
def test_values_out_of_range_are_named(tmp_path: Path, change: dict[str, int], message: str) -> None:
    values = {"clips": 1, "size": SIZE, "seed": 0, "frames": 2} | change
    with pytest.raises(InputError, match=message):
        synthesise(tmp_path, **values)


def test_damaged_truth_is_named(heads: Path, tmp_path: Path) -> None:
    (tmp_path / "head_7_00000.json").write_bytes((heads / "head_7_00000.json").read_bytes())
    with pytest.raises(InputError, match=r"head_7_00000\.npz cannot be read"):
        read_truth(tmp_path / "head_7_00000.json")
    with np.load(heads / "head_7_00000.npz") as whole:
        np.savez(tmp_path / "head_7_00000.npz", **dict(whole) | {"depth": whole["depth"][1:]})
    with pytest.raises(InputError, match="its arrays do not fit together"):
        read_truth(tmp_path / "head_7_00000.json")
    (tmp_path / "other.json").write_text("{}")
    assert truth_of(tmp_path / "other.mp4") is None
    with pytest.raises(InputError, match="describes no synthetic clip"):
        read_truth(tmp_path / "other.json")


def test_several_processes_write_the_same(heads: Path, tmp_path: Path) -> None:
    assert synthesise(tmp_path, 2, SIZE, 7, FRAMES, workers=2) == (2, 0)
    assert (tmp_path / "head_7_00001.mp4").read_bytes() == (heads / "head_7_00001.mp4").read_bytes()
