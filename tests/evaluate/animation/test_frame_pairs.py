"""Pairs of single frames, as the published lists for VoxCeleb have them: read against made-up folders and measured from end to end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import moving_blob
from dagan.data.clips import clips_for
from dagan.errors import InputError
from dagan.evaluate.measure import measure_pair
from dagan.evaluate.methods import CopyMethod, ResultsSpec
from dagan.evaluate.pairs import Pair, read_pairs, write_pairs
from dagan.evaluate.records import load
from dagan.evaluate.rulers import RulerFiles, Rulers, Settings
from dagan.media.video import open_video

FRAMES = 7
NAMES = [f"id1028{i // 2}#video{i % 2}#000100#00011{i}.mp4" for i in range(10)]
ELSEWHERE = "/mnt/somebody/voxceleb1/test"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, write_clip: Callable[[Path, list[np.ndarray]], None]) -> Path:
    """Ten clips of five people as VoxCeleb1 has them, below `test`: six folders of frames, numbered from 0, and four videos."""
    root = tmp_path_factory.mktemp("vox")
    (root / "test").mkdir()
    for i, name in enumerate(NAMES):
        pictures = moving_blob(i, FRAMES)
        if i >= 6:
            write_clip(root / "test" / name, pictures)
            continue
        (root / "test" / name).mkdir()
        for number, picture in enumerate(pictures):
            Image.fromarray(picture).save(root / "test" / name / f"{number:07}.png")
    return root


def same_identity() -> str:
    """A list of frame pairs within clips, with an index that has no name."""
    rows = [f"{i},{ELSEWHERE}/{name}/0000001.png,{ELSEWHERE}/{name}/000000{2 + i % 5}.png" for i, name in enumerate(NAMES)]
    return "\n".join([",source,driving", *rows, f"10,{ELSEWHERE}/id19999#gone#1#2.mp4/0000000.png,{ELSEWHERE}/{NAMES[0]}/0000001.png", ""])


def cross_identity() -> str:
    """A list of frame pairs between people, with distances, and frames that names tell already."""
    rows = [f"{i / 3},{name}/0000003.png,{NAMES[(i + 3) % 10]}/000000{i % 7}.png,0" for i, name in enumerate(NAMES)]
    return "\n".join(["distance,source,driving,frame", *rows, ""])


@pytest.mark.parametrize(("protocol", "text"), [("reconstruction", same_identity()), ("cross-identity", cross_identity())])
def test_both_published_lists_are_measured(
    protocol: str, text: str, folder: Path, tiny_model: Path, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    (tmp_path / "vox.csv").write_text(text)
    code, out, err = command(
        "evaluate", protocol, folder, "--pairs", tmp_path / "vox.csv", "--model", tiny_model, "--device", "cpu", "-o", tmp_path / "run"
    )
    assert code == 0, err
    assert f"{folder}, laid out as VoxCeleb1: clips 10, identities 5" in err
    assert ("left out: /mnt/somebody" in err) == (protocol == "reconstruction")
    run = load(tmp_path / "run" / "evaluation.json")
    ours = [scores for scores in run.scores if scores.method == "tiny"]
    assert len(ours) == 10
    assert all(scores.problem is None for scores in run.scores)
    if protocol == "reconstruction":
        assert [(s.source_frame, s.frames) for s in ours] == [(1, (2 + i % 5,)) for i in range(10)]
        assert all(len(s.values["l1"]) == 1 for s in ours)
        assert "10 clips, 10 pairs, 10 frames of tiny" in out
    else:
        assert [(s.source_frame, s.frames) for s in ours] == [(3, (i % 7,)) for i in range(10)]
        assert [s.driving for s in ours] == [f"test/{NAMES[(i + 3) % 10]}" for i in range(10)]
    clips = clips_for(folder, 0)
    again, unknown = read_pairs(tmp_path / "run" / "pairs.csv", clips, clips)  # What is written reads back.
    assert (len(again), unknown) == (10, [])
    assert [(pair.frame, pair.driving_frame) for pair in again] == [(s.source_frame, s.frames[0]) for s in ours]


def test_the_named_frames_are_compared(folder: Path, tmp_path: Path) -> None:
    """What copying the source gives is the difference of exactly the two frames, in a folder and in a video."""
    clips = {clip.name: clip for clip in clips_for(folder, 0)}
    settings = Settings(protocol="reconstruction", size=64)
    rulers = Rulers(RulerFiles(), settings)
    for name in (f"test/{NAMES[0]}", f"test/{NAMES[7]}"):
        with open_video(clips[name].path) as video:
            pictures = [frame.image / 255 for frame in video]
        measured = measure_pair(Pair(clips[name], clips[name], 5, 2), {"copy": CopyMethod()}, rulers, settings)
        scores = measured.methods["copy"].scores
        assert scores.pair == f"{name}@5--{name}@2"
        assert scores.values["l1"] == pytest.approx([np.abs(pictures[5] - pictures[2]).mean()], abs=1e-6)
        assert scores.values["flicker"] == (None,)
        beyond = measure_pair(Pair(clips[name], clips[name], 5, FRAMES), {"copy": CopyMethod()}, rulers, settings)
        assert f"has no frame {FRAMES}: it has {FRAMES}, which are counted from 0" in (beyond.methods["copy"].scores.problem or "")


def test_single_images_of_another_program_are_results_of_frame_pairs(folder: Path, tmp_path: Path) -> None:
    clips = {clip.name: clip for clip in clips_for(folder, 0)}
    clip = clips[f"test/{NAMES[0]}"]
    bare = NAMES[0].removesuffix(".mp4")
    picture = np.asarray(Image.open(clip.path / "0000004.png"))
    Image.fromarray(np.asarray(Image.fromarray(picture).resize((96, 96)))).save(tmp_path / f"{bare}@1-{bare}@3.png")
    settings = Settings(protocol="reconstruction", size=64)
    rulers, method = Rulers(RulerFiles(), settings), ResultsSpec("peer", tmp_path).open()
    Image.fromarray(picture).save(tmp_path / f"{bare}@1--{bare}@4.png")
    method = ResultsSpec("peer", tmp_path).open()
    exact = measure_pair(Pair(clip, clip, 1, 4), {"peer": method}, rulers, settings).methods["peer"]
    assert exact.scores.values["l1"] == (0,)
    resized = measure_pair(Pair(clip, clip, 1, 3), {"peer": method}, rulers, settings).methods["peer"]
    assert resized.notices == ("results of 96 x 96 pixels are resized to 64 x 64",)
    missing = measure_pair(Pair(clip, clip, 1, 5), {"peer": method}, rulers, settings).methods["peer"]
    assert f"holds no image, video or image folder named '{bare}@1--{bare}@5'" in (missing.scores.problem or "")
    whole = ResultsSpec("whole", folder / "test").open()  # A result of the whole clip has the frame too.
    found = measure_pair(Pair(clip, clip, 1, 5), {"whole": whole}, rulers, settings).methods["whole"]
    assert found.scores.values["l1"] == (0,)
    assert found.scores.problem is None


def test_names_lose_folders_but_not_the_person(tmp_path: Path, write_clip: Callable[[Path, list[np.ndarray]], None]) -> None:
    for name in ("id1/a/00001.mp4", "id2/b/00001.mp4"):
        (tmp_path / name).parent.mkdir(parents=True)
        write_clip(tmp_path / name, moving_blob(0, 3))
    (tmp_path / "id3" / "c" / "00001").mkdir(parents=True)
    Image.fromarray(moving_blob(1, 1)[0]).save(tmp_path / "id3" / "c" / "00001" / "25.png")  # Its only frame, and not numbered from 0.
    clips = clips_for(tmp_path, 0, least=1)
    (tmp_path / "list.csv").write_text(
        "Source_Image;Target\n".replace(";", ",")
        + "/data/vox2/dev/mp4/id1/a/00001.mp4/0000002.jpg,C:\\vox2\\id2\\b\\00001\\1.png\n"
        + "/data/vox2/id9/a/00001.mp4/2.png,id1/a/00001.mp4/1.png\n"
        + "id3/c/00001.mp4/0000025.png,/x/id1/a/00001.mp4/0.png\n"
        + "id3/c/00001.mp4/0000024.png,id1/a/00001.mp4/0.png\n"
    )
    pairs, unknown = read_pairs(tmp_path / "list.csv", clips, clips)
    assert pairs == [Pair(clips[0], clips[1], 2, 1), Pair(clips[2], clips[0], 0, 0)]
    assert unknown == ["/data/vox2/id9/a/00001.mp4/2.png", "id3/c/00001.mp4/0000024.png"]


def test_lists_of_frame_pairs_go_out_and_in(folder: Path, tmp_path: Path) -> None:
    clips = clips_for(folder, 0)
    pairs = [Pair(clips[0], clips[1], 0, 0), Pair(clips[2], clips[3], 4)]
    write_pairs(tmp_path / "pairs.csv", pairs)
    assert read_pairs(tmp_path / "pairs.csv", clips, clips) == (pairs, [])
    (tmp_path / "bad.csv").write_text(f"source,driving,driving_frame\n{clips[0].name},{clips[1].name},x\n")
    with pytest.raises(InputError, match="line 2: driving_frame is 'x', must be a whole number from 0"):
        read_pairs(tmp_path / "bad.csv", clips, clips)
