"""A run goes on where it was ended, in whichever way, and comes to the same files; lists, people and clusters do too."""

from __future__ import annotations

import csv
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from dagan.media.video import open_video
from dagan.prepare.job import prepare
from dagan.prepare.pieces import pieces
from dagan.prepare.raws import PrepareOptions
from dagan.prepare.tracks import Finder, Shot, Track
from dagan.progress import silent
from killed_runs import dagan_command, environment, killed_again_and_again
from onnx_networks import onnx_flattening
from raw_videos import Pictures, another, scene, write_raw

SIZE = 64
Digests = Callable[[Path], dict[str, str]]


def run(raws: Path, output: Path, **more: Any) -> dict[str, Any]:
    """Prepares small clips in this process and returns the report's totals."""
    settings = {name: more.pop(name) for name in ("hold_out", "identity", "rate", "longest") if name in more}
    return dict(prepare([raws], output, PrepareOptions(size=SIZE, **settings), silent, lambda message: None, **more).totals)


def command_of(raws: Path, output: Path, *more: object) -> list[str]:
    return dagan_command("prepare", raws, "-o", output, "--size", SIZE, *more)


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "metadata.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, few_raws: Path) -> Path:
    """What a run that nobody disturbs makes."""
    folder = tmp_path_factory.mktemp("whole") / "clips"
    totals = run(few_raws, folder)
    assert totals["clips"] == 3
    assert totals["left_out"]["too small"] == 1
    assert set(totals["left_out"]) == {"too short", "too small"}
    return folder


@pytest.mark.slow
def test_a_run_without_its_clips_makes_them_again(whole: Path, few_raws: Path, digests: Digests, tmp_path: Path) -> None:
    before = digests(whole)
    clip = min((whole / "train").glob("*/*.mp4"))
    clip.unlink()
    (whole / "train" / "metadata.csv").unlink()
    (whole / "prepared" / ".0123.part").mkdir()
    (whole / "prepared" / ".0123.part" / "half.mp4").write_bytes(b"half")
    run(few_raws, whole)
    assert digests(whole) == before
    assert not list(whole.rglob(".*"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_runs_come_to_the_same_files(whole: Path, few_raws: Path, digests: Digests, tmp_path: Path) -> None:
    folder = tmp_path / "clips"

    def check() -> None:
        assert digests(folder) == digests(whole)
        shutil.rmtree(folder)

    killed_again_and_again(command_of(few_raws, folder, "--workers", 2), folder.exists, check, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_cluster_that_loses_a_worker_comes_to_the_same_files(
    whole: Path, few_raws: Path, digests: Digests, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    folder = tmp_path / "clips"
    words = command_of(few_raws, folder, "--cluster", "local", "--workers", 2)
    running = subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    killed = None
    deadline = time.monotonic() + 300
    while killed is None and running.poll() is None and time.monotonic() < deadline:
        # A worker that has a folder in work is in the middle of a video.
        if list(folder.glob("prepared/.*")):
            killed = next((p for p in psutil.Process(running.pid).children(recursive=True) if _is_at_work(p)), None)
        time.sleep(0.05)
    assert killed is not None
    killed.kill()
    printed, complaint = running.communicate(timeout=300)
    assert running.returncode == 0, complaint
    assert "3 clips" in printed
    assert digests(folder) == digests(whole)


def _is_at_work(process: psutil.Process) -> bool:
    try:
        return process.cmdline()[:1] != [] and process.cmdline()[0].startswith("ray::") and "Map" in process.cmdline()[0]
    except psutil.Error:
        return False


def test_a_cluster_that_is_not_there_is_said(few_raws: Path, tmp_path: Path, command: Callable[..., Any]) -> None:
    pytest.importorskip("ray")
    status, _, complaint = command("prepare", few_raws, "-o", tmp_path / "clips", "--cluster", "127.0.0.1:1")
    assert (status, complaint.count("\n")) == (2, 1), complaint
    assert "no Ray cluster answers" in complaint


def test_lists_choose_whom_to_take_and_when(head: Pictures, tmp_path: Path) -> None:
    raws = tmp_path / "raws"
    raws.mkdir()
    pictures = [np.concatenate([scene(a, (256, 256), (0, 0)), another(b)], 1) for a, b in zip(head[:45], head[5:50], strict=True)]
    write_raw(raws / "both.mp4", pictures)
    wanted = tmp_path / "wanted.csv"
    wanted.write_text("video,start,end,left,top,right,bottom,identity\nboth,0.2,1.6,0.5,0,1,1,id10270\ngone,0,1,0,0,1,1,id10271\n")
    totals = run(raws, tmp_path / "clips", lists=wanted)
    assert (totals["clips"], totals["left_out"]) == (1, {"missing": 1})
    (row,) = table(tmp_path / "clips" / "train")
    assert row["identity"] == "id10270"
    assert row["file"].startswith("id10270/")
    assert 0.2 <= float(row["start"]) <= 0.36
    assert 1.2 <= float(row["seconds"]) <= 1.48  # A piece reaches to the next sample.
    assert float(row["box"].split(":")[0]) > 230


def test_clips_of_512_and_people_set_aside_without_a_face_network(head: Pictures, tmp_path: Path) -> None:
    raws, output = tmp_path / "raws", tmp_path / "clips"
    raws.mkdir()
    for name, frames in (("a", head[:30]), ("b", head[10:40])):
        large = [np.asarray(Image.fromarray(scene(picture)).resize((800, 640))) for picture in frames]
        write_raw(raws / f"{name}.mp4", large)
    totals = dict(prepare([raws], output, PrepareOptions(size=512, hold_out=0.5), silent, lambda message: None).totals)
    assert (totals["clips"], totals["identities"], totals["held_identities"]) == (2, 2, 1)
    for path in output.glob("t*/*/*.mp4"):
        with open_video(path) as video:
            assert (video.width, video.height) == (512, 512)
    assert "was not checked, for want of a face network: name a network with --identity." in (output / "report.md").read_text()


def test_people_are_told_apart_and_set_aside(head: Pictures, tmp_path: Path) -> None:
    raws = tmp_path / "raws"
    raws.mkdir()
    write_raw(raws / "a.mp4", [scene(picture) for picture in head[:34]])
    write_raw(raws / "b.mp4", [scene(picture, seed=7) for picture in head[10:44]])
    write_raw(raws / "c.mp4", [scene(255 - another(picture), seed=7) for picture in head[10:44]])
    network = onnx_flattening(tmp_path / "faces.onnx")
    totals = run(raws, tmp_path / "clips", identity=network, hold_out=0.4)
    assert "face network" not in (tmp_path / "clips" / "report.md").read_text()
    assert totals["clips"] == totals["identities"] + 1 == 3  # In the negative the face is found too, and looks otherwise.
    assert (totals["held_identities"], totals["held_clips"]) in ((1, 1), (1, 2))
    rows = {part: table(tmp_path / "clips" / part) for part in ("train", "test")}
    same = {row["identity"] for part in rows.values() for row in part if row["source"] in ("a.mp4", "b.mp4")}
    assert len(same) == 1
    assert {row["identity"] for row in rows["train"]}.isdisjoint(row["identity"] for row in rows["test"])
    # Another share moves clips and makes none anew.
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "clips").rglob("*.mp4")}
    run(raws, tmp_path / "clips", identity=network)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "clips").rglob("*.mp4")} == before
    assert not (tmp_path / "clips" / "test").exists()


def test_another_frame_rate_repeats_and_drops(head: Pictures, tmp_path: Path) -> None:
    from fractions import Fraction

    raws = tmp_path / "raws"
    raws.mkdir()
    write_raw(raws / "a.mp4", [scene(picture) for picture in head[:40]], rate=30)
    run(raws, tmp_path / "clips", rate=Fraction(25))
    (clip,) = (tmp_path / "clips" / "train").glob("*/*.mp4")
    with open_video(clip) as video:
        frames = list(video)
    assert [frame.time for frame in frames] == [Fraction(i, 25) for i in range(34)]  # 40 frames of 1/30 s are 33.3 of 1/25 s.


def test_long_pieces_are_divided_evenly(head: Pictures, tmp_path: Path) -> None:
    path = write_raw(tmp_path / "a.mp4", [scene(picture) for picture in (head + head)[:96]])
    with open_video(path) as video:
        (shot,) = Finder().shots(video)
        found = list(pieces(shot, shot.tracks[:1], video.width, video.height, PrepareOptions(shortest=0.5, longest=2.0)))
        whole = list(pieces(shot, shot.tracks[:1], video.width, video.height, PrepareOptions()))
    assert [(piece.first, piece.stop) for piece in whole] == [(0, 96)]
    assert [(piece.first, piece.stop) for piece in found] == [(0, 48), (48, 96)]
    assert isinstance(shot, Shot)
    assert isinstance(shot.tracks[0], Track)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--size", "100"], "size is 100"), (["--hold-out", "1"], "hold_out is 1"), (["--workers", "0"], "--workers is 0"),
        (["--shortest", "20"], "longest is 12.0: must be above shortest"), (["--identity", "none.onnx"], "none.onnx does not exist"),
        (["--fps", "fast"], "frame rate is 'fast'"), (["--list", "none.csv"], "none.csv does not exist"),
        (["--leak", "0.9"], "leak is 0.9"),
    ],
)  # fmt: skip
def test_wrong_options_are_refused_before_anything_is_written(
    words: list[str], complaint: str, few_raws: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    status, printed, said = command("prepare", few_raws, "-o", tmp_path / "clips", *words)
    assert (status, printed, said.count("\n")) == (2, "", 1), said
    assert complaint in said
    assert not (tmp_path / "clips").exists()


def test_folders_with_other_things_are_refused(few_raws: Path, whole: Path, tmp_path: Path, command: Callable[..., Any]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for place, complaint in ((tmp_path, "holds other files"), (tmp_path / "mine.txt", "is a file"), (few_raws / "clips", "lies in")):
        status, _, said = command("prepare", few_raws, "-o", place)
        assert status == 2
        assert complaint in said
    status, _, said = command("prepare", few_raws, "-o", whole)
    assert status == 2
    assert f"size was {SIZE}, is 256" in said
    assert (tmp_path / "mine.txt").read_text() == "mine"
