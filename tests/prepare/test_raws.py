"""Raw videos are found and told apart by their contents; lists say what is wanted of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dagan.errors import InputError
from dagan.prepare.raws import find_raws, fingerprint, listed, read_list

VOXCELEB = """Identity  : \tid10270
Reference : \t5r0dWxy17C8
Offset    : \t-4
FV Conf   : \t17.464\t(1.000)
ASD Conf  : \t4.721

FRAME \tX \tY \tW \tH
000250 \t100 \t50 \t80 \t80
000300 \t140 \t50 \t80 \t80
000275 \t120 \t50 \t80 \t80
"""
SHARES = "Identity : id00012\nReference : 21Uxsk56VDQ\n\nFRAME X Y W H\n000000 0.25 0.1 0.3 0.5\n000050 0.25 0.1 0.3 0.5\n"


def test_videos_are_found_once_and_by_contents(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("a.mp4", "deep/b.MKV", ".hidden.mp4", "notes.txt"):
        (tmp_path / name).write_bytes(name.encode())
    found = find_raws([tmp_path, tmp_path / "a.mp4"])
    assert [raw.name for raw in found] == ["a.mp4", "deep/b.MKV"]
    assert fingerprint(tmp_path / "a.mp4") == found[0].digest != found[1].digest
    large = np.zeros(5 << 20, np.uint8)
    digests = set()
    for place in (None, 0, len(large) // 2, -1):
        if place is not None:
            large[place] += 1
        (tmp_path / "large.mp4").write_bytes(large.tobytes())
        digests.add(fingerprint(tmp_path / "large.mp4"))
    assert len(digests) == 4


def test_keys_stand_for_contents_settings_and_wishes(tmp_path: Path) -> None:
    (tmp_path / "5r0dWxy17C8.mp4").write_bytes(b"video")
    (tmp_path / "list.txt").write_text(VOXCELEB)
    (raw,) = find_raws([tmp_path])
    (wanted,), _ = listed([raw], read_list(tmp_path / "list.txt"))
    keys = {raw.key({"size": 256}), raw.key({"size": 128}), wanted.key({"size": 256})}
    assert len(keys) == 3
    (tmp_path / "5r0dWxy17C8.mp4").rename(tmp_path / "other.mp4")
    assert find_raws([tmp_path])[0].key({"size": 256}) in keys


def test_voxceleb_lists(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "00001.txt").write_text(VOXCELEB)
    (tmp_path / "one" / "00002.txt").write_text(SHARES)
    wanted = read_list(tmp_path)
    (pixels,), (shares,) = wanted["5r0dWxy17C8"], wanted["21Uxsk56VDQ"]
    assert (pixels.identity, pixels.times) == ("id10270", (10.0, 11.0, 12.0))
    assert pixels.box_at(10.5, 640, 360).tolist() == [110, 50, 190, 130]
    assert pixels.box_at(9.9, 640, 360) is None
    assert np.allclose(shares.box_at(1, 640, 360), [160, 36, 352, 216])


def test_tables(tmp_path: Path) -> None:
    table = tmp_path / "wanted.csv"
    table.write_text("video,start,end,left,top,right,bottom,identity,width,height\nabc,1,2.5,10,20,30,40,anna,100,100\nabc,4,5,.1,.2,.3,.4,,,\n")
    first, second = read_list(table)["abc"]
    assert first.identity == "anna"
    assert first.box_at(2, 200, 300).tolist() == [20, 60, 60, 120]
    assert np.allclose(second.box_at(4.5, 100, 100), [10, 20, 30, 40])


def test_videos_are_found_by_their_ids(tmp_path: Path) -> None:
    for name in ("abc.mp4", "A talk [x-Y_z].webm", "other.mp4"):
        (tmp_path / name).write_bytes(name.encode())
    table = tmp_path / "wanted.csv"
    rows = "".join(f"{video},0,1,0,0,1,1\n" for video in ("abc", "x-Y_z", "gone"))
    table.write_text(f"video,start,end,left,top,right,bottom\n{rows}")
    found, missing = listed(find_raws([tmp_path]), read_list(table))
    assert sorted(raw.name for raw in found) == ["A talk [x-Y_z].webm", "abc.mp4"]
    assert missing == ["gone"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.txt", "FRAME X Y W H\n1 2 3 4 5\n2 2 3 4 5\n", "Reference : ID"),
        ("a.txt", "Reference : abc\n000001 1 2 three 4\n", "line 2: '000001 1 2 three 4' is not 5 numbers"),
        ("a.txt", "Identity : ../up\nReference : abc\n1 2 3 4 5\n2 2 3 4 5\n", "identity '../up'"),
        ("a.csv", "video,start,end\n", "has no column left and no column top"),
        ("a.csv", "video,start,end,left,top,right,bottom\nabc,2,1,0,0,1,1\n", "line 2: end is 1: must be after start, 2"),
        ("a.csv", "video,start,end,left,top,right,bottom\nabc,2,nan,0,0,1,1\n", "is not 6 numbers"),
    ],
)
def test_odd_lists_are_refused_in_a_sentence(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=words.replace("(", r"\(")) as refusal:
        read_list(tmp_path / name)
    assert str(tmp_path / name) in str(refusal.value)


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        find_raws([tmp_path / "none"])
    with pytest.raises(InputError, match="holds no video files"):
        find_raws([tmp_path])
    with pytest.raises(InputError, match=r"holds no \.txt files"):
        read_list(tmp_path)
