"""Many pairs at once, by one process, by several and by a local cluster. A failure costs no other pair, and finished results are kept."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import moving_blob
from dagan.animate.batch import pairs_of, read_pairs
from dagan.animate.pipeline import AnimateOptions
from dagan.cli.animate import PORTRAIT
from dagan.errors import InputError
from dagan.media.video import open_video
from dagan.processes import share_out
from fragile_worker import Fragile
from running_samples import save_tiny_model

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, write_clip: Callable[..., None]) -> Path:
    """A tiny model, two photos, a driving video, and a table with a pair that fails in its middle."""
    folder = tmp_path_factory.mktemp("batch")
    save_tiny_model(folder / "tiny.safetensors")
    (folder / "photos").mkdir()
    photo = Image.open(PORTRAIT).convert("RGB").resize((96, 96))
    photo.save(folder / "photos" / "a.jpg")
    photo.rotate(5).save(folder / "photos" / "b.jpg")
    write_clip(folder / "driving.mp4", moving_blob(1, 4))
    (folder / "pairs.csv").write_text(
        "source,driving,output,side_by_side\nphotos/a.jpg,driving.mp4,,\nphotos/gone.jpg,driving.mp4,,\nphotos/b.jpg,driving.mp4,sub/wide.mp4,yes\n",
        encoding="utf-8",
    )
    return folder


def words(workspace: Path, *more: object) -> tuple[object, ...]:
    return ("animate", *more, "--model", workspace / "tiny.safetensors", "--no-crop", "--device", "cpu")


def states(folder: Path) -> list[str]:
    return [entry["state"] for entry in json.loads((folder / "summary.json").read_text(encoding="utf-8"))["entries"]]


def test_a_table_of_pairs(command: Command, workspace: Path, tmp_path: Path) -> None:
    call = words(workspace, "--batch", workspace / "pairs.csv", "-o", tmp_path / "out")
    code, said, complaint = command(*call)
    assert code == 1, complaint
    assert "2 written, 0 kept, 1 failed" in said
    assert "gone.jpg" in complaint
    assert states(tmp_path / "out") == ["written", "failed", "written"]
    widths = {}
    for name in ("a-driving.mp4", "sub/wide.mp4"):
        with open_video(tmp_path / "out" / name) as video:
            frames = list(video)
            widths[name] = frames[0].image.shape[1]
            assert len(frames) == 4
    assert widths["sub/wide.mp4"] > 2 * widths["a-driving.mp4"], "an option of this pair alone"
    # What is there is kept, and what failed is tried again.
    times = (tmp_path / "out" / "a-driving.mp4").stat().st_mtime_ns
    code, said, _ = command(*call)
    assert code == 1
    assert "0 written, 2 kept, 1 failed" in said
    assert (tmp_path / "out" / "a-driving.mp4").stat().st_mtime_ns == times
    assert states(tmp_path / "out") == ["kept", "failed", "kept"]
    (tmp_path / "out" / "a-driving.mp4").unlink()
    assert "1 written, 1 kept" in command(*call)[1]
    assert "2 written, 0 kept" in command(*call, "--overwrite")[1]


def test_a_folder_of_photos(command: Command, workspace: Path, tmp_path: Path) -> None:
    code, said, complaint = command(*words(workspace, workspace / "photos", workspace / "driving.mp4", "-o", tmp_path / "out"))
    assert code == 0, complaint
    assert "2 written" in said
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.mp4", "b.mp4", "summary.json"]


@pytest.mark.slow
def test_several_processes_and_a_cluster_give_the_same_videos(command: Command, workspace: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(workspace / "photos", photos)
    shutil.copy(photos / "a.jpg", photos / "c.jpg")
    ways = {"one": (), "processes": ("--workers", 2), "cluster": ("--workers", 2, "--cluster", "local")}
    found = {}
    for name, more in ways.items():
        code, _, complaint = command(*words(workspace, photos, workspace / "driving.mp4", "-o", tmp_path / name), *more)
        assert code == 0, complaint
        with open_video(tmp_path / name / "c.mp4") as video:
            found[name] = np.stack([frame.image for frame in video])
        assert states(tmp_path / name) == ["written"] * 3
    assert np.array_equal(found["one"], found["processes"])
    assert np.array_equal(found["one"], found["cluster"])


def test_what_is_wrong_with_a_table_is_said(workspace: Path, tmp_path: Path) -> None:
    for text, wanted in (
        ("source,driving,crp\na.jpg,b.mp4,no\n", "column 'crp': nearest: crop"), ("source\na.jpg\n", "lists no pairs"),
        ("source,driving\n", "lists no pairs"), ("source,driving\na.jpg,\n", "line 2: source or driving is empty"),
        ("source,driving,crop\na.jpg,b.mp4,perhaps\n", "line 2: crop is 'perhaps': must be true or false"),
        ("source,driving,max_side\na.jpg,b.mp4,big\n", "max_side is 'big': must be a number"),
        ("source,driving,frame_rate\na.jpg,b.mp4,fast\n", "frame_rate is 'fast'"),
        ("source,driving\na.jpg,b.mp4\na.png,b.mp4\n", "two pairs write .*a-b.mp4"),
    ):  # fmt: skip
        (tmp_path / "pairs.csv").write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=wanted):
            read_pairs(tmp_path / "pairs.csv", tmp_path, AnimateOptions())
    with pytest.raises(InputError, match="cannot be read as a CSV file"):
        read_pairs(tmp_path / "none.csv", tmp_path, AnimateOptions())
    with pytest.raises(InputError, match="holds no photos"):
        pairs_of(tmp_path, tmp_path / "driving.mp4", tmp_path, AnimateOptions())


def test_a_tables_options_are_those_of_its_line(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("source,driving,crop,reference,frame_rate\na.jpg,b.mp4,no,first,30000/1001\nc.jpg,b.mp4,,,\n")
    first, second = read_pairs(tmp_path / "pairs.csv", tmp_path / "out", AnimateOptions(paste_back=True))
    assert first.options == AnimateOptions(paste_back=True, crop=False, reference="first", frame_rate=first.options.frame_rate)
    assert float(first.options.frame_rate or 0) == pytest.approx(29.97, abs=1e-3)
    assert second.options == AnimateOptions(paste_back=True)
    assert (first.source, second.output) == (tmp_path / "a.jpg", tmp_path / "out" / "c-b.mp4")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ((), "give SOURCE and DRIVING"), (("a.jpg",), "give SOURCE and DRIVING"),
        (("a.jpg", "b.mp4", "--batch", "pairs.csv"), "leave out SOURCE and DRIVING"),
        (("--batch", "pairs.csv", "--json", "x.json"), "name one file"),
        (("--batch", "pairs.csv", "--workers", "0"), "--workers is 0"),
    ],
)  # fmt: skip
def test_wrong_calls_get_one_sentence(command: Command, workspace: Path, tmp_path: Path, more: tuple[str, ...], sentence: str) -> None:
    given = [workspace / word if word == "pairs.csv" else word for word in more]
    code, _, complaint = command("animate", *given, "-o", tmp_path / "out")
    assert code == 2
    assert sentence in complaint
    assert complaint.count("\n") == 1


def test_processes_share_work_out(tmp_path: Path) -> None:
    (tmp_path / "2").touch()
    assert dict(share_out(Fragile(tmp_path), range(4), 1)) == {0: 0, 1: 1, 2: 4, 3: 9}
    assert dict(share_out(Fragile(tmp_path), range(4), 2)) == {0: 0, 1: 1, 2: 4, 3: 9}
    (tmp_path / "2").unlink()
    with pytest.raises(InputError, match="a worker was ended from outside"):
        list(share_out(Fragile(tmp_path), range(4), 2))
    with pytest.raises(InputError, match=r"--cluster 127\.0\.0\.1:1: no Ray cluster answers"):
        list(share_out(Fragile(tmp_path), range(4), 2, "127.0.0.1:1"))


@pytest.mark.slow
def test_a_worker_of_a_cluster_that_dies_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Workers import the function's module on their own, so they must know of the folder of tests.
    here = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(here))
    found = dict(share_out(Fragile(tmp_path), range(4), 2, "local"))
    assert found == {0: 0, 1: 1, 2: 4, 3: 9}
