"""Whom clips show in the folder layouts of published data sets, which are recognised by their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from dagan.data.clips import choose, find_clips, find_stills, in_words
from dagan.errors import InputError

VOXCELEB1 = {
    "train/id10001#abc-_1#000010#000099.mp4": "id10001", "train/id10001#xyz#000001#000080.mp4": "id10001",
    "test/id10280#NXjT3732Ekg#001093#001192.mp4": "id10280",
}  # fmt: skip
VOXCELEB2 = {"id00012/21Uxsk56VDQ/00001.mp4": "id00012", "dev/mp4/id00017/a#b/00002.mp4": "id00017"}
HDTF = {
    "RD_Radio1_000.mp4": "RD_Radio1", "RD_Radio11_000.mp4": "RD_Radio11", "RD_Radio11_001.mp4": "RD_Radio11",
    "WDA_AnnaExample0_000.mp4": "WDA_AnnaExample", "WDA_AnnaExample1_003.mp4": "WDA_AnnaExample",
    "WRA_BenExample_000.mp4": "WRA_BenExample",
}  # fmt: skip
CELEBV = {"Anna/1.png": "Anna", "Anna/2.png": "Anna", "Ben/Image/1.png": "Ben", "Ben/Image/2.png": "Ben"}
PLAIN = {"anna/clip_000.mp4": "anna", "train/ben.mp4": "ben", "clip_000.mp4": "clip_000"}


def make(folder: Path, names: object) -> Path:
    for name in names:  # type: ignore[attr-defined]
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("names", "layout", "said"),
    [
        (VOXCELEB1, "voxceleb1", "laid out as VoxCeleb1"), (VOXCELEB2, "voxceleb2", "laid out as VoxCeleb2"),
        (HDTF, "hdtf", "laid out as HDTF"), (CELEBV, "celebv", "laid out as CelebV, a folder of frames for each person"),
        (PLAIN, "plain", "identities by folders and file names"),
    ],
)  # fmt: skip
def test_layouts_are_recognised_and_tell_identities(names: dict[str, str], layout: str, said: str, tmp_path: Path) -> None:
    clips = find_clips(make(tmp_path, names))
    assert choose(clips, "auto") == layout
    assert in_words(tmp_path, clips, "auto") == said
    expected = {(str(Path(name).parent) if name.endswith(".png") else name): identity for name, identity in names.items()}
    assert {clip.name: clip.identity for clip in clips} == expected
    assert find_clips(tmp_path, layout) == clips


def test_folders_of_frames_count_as_files_do(tmp_path: Path) -> None:
    make(tmp_path, [f"test/id1028{i}#v#000001#000002.mp4/000000{k}.png" for i in range(2) for k in range(2)])
    clips = find_clips(tmp_path)
    assert choose(clips, "auto") == "voxceleb1"
    assert [clip.identity for clip in clips] == ["id10280", "id10281"]


def test_numbered_files_of_one_name_may_show_anybody(tmp_path: Path) -> None:
    clips = find_clips(make(tmp_path, [f"clip_{i:03}.mp4" for i in range(4)]))
    assert choose(clips, "auto") == "plain"
    assert len({clip.identity for clip in clips}) == 4
    assert {clip.identity for clip in find_clips(tmp_path, "hdtf")} == {"clip"}


def test_a_given_layout_holds_for_what_is_named_so(tmp_path: Path) -> None:
    make(tmp_path, [*HDTF, "id10001#v#000001#000002.mp4"])
    assert {c.name: c.identity for c in find_clips(tmp_path, "voxceleb1")}["id10001#v#000001#000002.mp4"] == "id10001"
    with pytest.raises(InputError, match=r"no clip is named as in layout voxceleb2 \(id00012/VIDEO/00001.mp4\), such as RD_Radio11_"):
        find_clips(tmp_path, "voxceleb2")
    with pytest.raises(InputError, match="layout 'vox' is unknown: must be one of auto, voxceleb1"):
        find_clips(tmp_path, "vox")


def test_the_table_comes_before_the_layout(tmp_path: Path) -> None:
    make(tmp_path, HDTF)
    (tmp_path / "metadata.csv").write_text("file,identity\nRD_Radio1_000.mp4,host\nRD_Radio11_000.mp4,host\n")
    clips = find_clips(tmp_path)
    assert [clip.identity for clip in clips][:3] == ["host", "RD_Radio11", "host"]
    assert in_words(tmp_path, clips, "auto") == "identities by metadata.csv"


def test_portraits_of_a_layout_show_the_same_people(tmp_path: Path) -> None:
    make(tmp_path, [name.replace(".mp4", ".png") for name in HDTF])
    assert {still.name.replace(".png", ".mp4"): still.identity for still in find_stills(tmp_path)} == HDTF
