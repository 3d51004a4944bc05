"""Finding clips, whom they show, and which identities are held out."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from dagan.data.clips import find_clips, find_stills, held_out, refuse_mixed_parts
from dagan.errors import InputError
from dagan.media.images import image_files


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        ("id10280#NXjT3732Ekg#001093#001192.mp4", "id10280"),
        ("id10001/1zcIwhmdeo4/00001.mp4", "id10001"),
        ("anna/first.mp4", "anna"),
        ("anna/2020/first.mp4", "anna"),
        ("loose.mp4", "loose"),
        ("idle_hands.mp4", "idle_hands"),
    ],
)
def test_identity_from_the_name(tmp_path: Path, name: str, identity: str) -> None:
    _touch(tmp_path / name)
    (clip,) = find_clips(tmp_path)
    assert (clip.name, clip.identity) == (name, identity)


def test_metadata_beats_names(tmp_path: Path) -> None:
    for name in ("id1#a.mp4", "id2#b.mp4", "c.mp4"):
        _touch(tmp_path / name)
    (tmp_path / "metadata.csv").write_text("file,identity,more\nid1#a.mp4,anna,x\nid2#b.mp4,anna,y\n")
    assert [c.identity for c in find_clips(tmp_path)] == ["c", "anna", "anna"]


def test_metadata_without_columns_is_named(tmp_path: Path) -> None:
    _touch(tmp_path / "a.mp4")
    (tmp_path / "metadata.csv").write_text("path,person\na.mp4,anna\n")
    with pytest.raises(InputError, match=r"metadata\.csv has no column file and no column identity"):
        find_clips(tmp_path)


def test_folders_of_images_are_clips_and_numbers_count(tmp_path: Path) -> None:
    for i in (10, 9, 1):
        (tmp_path / "anna" / "take").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "anna" / "take" / f"f{i}.png")
    (clip,) = find_clips(tmp_path)
    assert (clip.name, clip.identity, clip.still) == ("anna/take", "anna", False)
    assert [p.name for p in image_files(clip.path)] == ["f1.png", "f9.png", "f10.png"]


def test_stills_share_identities_with_clips(clips_folder: Path, portraits_folder: Path) -> None:
    stills = find_stills(portraits_folder)
    assert all(s.still for s in stills)
    assert {s.identity for s in stills} == {c.identity for c in find_clips(clips_folder)}


def test_empty_and_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no video files"):
        find_clips(tmp_path)
    with pytest.raises(InputError, match="holds no images"):
        find_stills(tmp_path)
    with pytest.raises(InputError, match="nowhere does not exist"):
        find_clips(tmp_path / "nowhere")


def test_held_out_is_about_the_share_and_stable() -> None:
    names = [f"id{i:05d}" for i in range(3000)]
    chosen = held_out(names, 0.1)
    assert 240 < len(chosen) < 360
    # Others that come or go change nothing.
    assert held_out(names[:1500], 0.1) == chosen & set(names[:1500])
    assert held_out(reversed(names), 0.1) == chosen
    assert chosen < held_out(names, 0.2)


def test_held_out_of_few() -> None:
    assert held_out(["a"], 0.5) == frozenset()
    assert held_out(["a", "b", "c"], 0) == frozenset()
    assert len(held_out(["a", "b", "c"], 1e-9)) == 1
    assert len(held_out(["a", "b", "c"], 0.999999)) == 2


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Train", "TEST"), ("vox/train", "vox/val"), ("training", "validation")])
def test_a_root_with_clips_to_test_on_is_not_trained_on(train: str, test: str, tmp_path: Path) -> None:
    for part in (train, test):
        (tmp_path / part / "id1").mkdir(parents=True)
        (tmp_path / part / "id1" / "a.mp4").touch()
    clips = find_clips(tmp_path)
    with pytest.raises(InputError) as caught:
        refuse_mixed_parts(tmp_path, clips)
    assert f"{tmp_path / train} to train on and {tmp_path / test} to test on" in str(caught.value)
    assert str(caught.value).endswith(f"name {tmp_path / train} instead")
    refuse_mixed_parts(tmp_path / train, find_clips(tmp_path / train))


@pytest.mark.parametrize("folders", [("train", "more"), ("test", "val"), ("a/train", "b/test"), ("trains", "test")])
def test_other_folders_may_lie_side_by_side(folders: tuple[str, str], tmp_path: Path) -> None:
    for part in folders:
        (tmp_path / part).mkdir(parents=True)
        (tmp_path / part / "a.mp4").touch()
    refuse_mixed_parts(tmp_path, find_clips(tmp_path))
