from pathlib import Path

import pytest

from dagan.data.clips import Clip
from dagan.errors import InputError
from dagan.evaluate.pairs import Pair, draw_pairs, read_pairs, self_pairs, write_pairs


def clip(name: str, identity: str) -> Clip:
    return Clip(Path("clips") / name, name, identity)


CLIPS = [clip(f"id1028{i}#video{j}#001093#00119{j}.mp4", f"id1028{i}") for i in range(4) for j in range(2)]


def test_drawn_pairs_show_two_people_and_depend_on_the_seed_alone() -> None:
    pairs = draw_pairs(CLIPS, CLIPS, seed=1)
    assert [p.driving.name for p in sorted(pairs, key=lambda p: p.driving.name)] == [c.name for c in CLIPS]
    assert all(p.source.identity != p.driving.identity for p in pairs)
    assert draw_pairs(CLIPS[::-1], CLIPS[::-1], seed=1) == pairs
    assert draw_pairs(CLIPS, CLIPS, seed=2) != pairs
    few = draw_pairs(CLIPS, CLIPS, seed=1, count=3)
    assert len(few) == 3
    assert set(few) < set(pairs)


def test_nobody_else_to_draw() -> None:
    with pytest.raises(InputError, match="two people or more"):
        draw_pairs(CLIPS[:2], CLIPS[:2], seed=0)
    with pytest.raises(InputError, match="number of pairs is 0"):
        draw_pairs(CLIPS, CLIPS, seed=0, count=0)


def test_lists_go_out_and_in(tmp_path: Path) -> None:
    pairs = [*self_pairs(CLIPS[:2]), Pair(CLIPS[3], CLIPS[0], 7)]
    write_pairs(tmp_path / "p.csv", pairs)
    assert (tmp_path / "p.csv").read_text().splitlines()[0] == "source,driving,frame"
    assert read_pairs(tmp_path / "p.csv", CLIPS, CLIPS) == (pairs, [])


def test_the_published_format(tmp_path: Path) -> None:
    """A leading distance, names without folders; a clip that is not there is named, the others stay."""
    text = (
        "distance,source,driving,frame\n"
        f"3.5,{CLIPS[0].name},{CLIPS[2].name},0\n"
        f"1.25,id10999#gone#000001#000100.mp4,{CLIPS[2].name},0\n"
        f"0.5,{Path(CLIPS[4].name).stem},{CLIPS[6].name},12.0\n"
    )
    (tmp_path / "vox.csv").write_text("\ufeff" + text)
    pairs, unknown = read_pairs(tmp_path / "vox.csv", CLIPS, CLIPS)
    assert pairs == [Pair(CLIPS[0], CLIPS[2]), Pair(CLIPS[4], CLIPS[6], 12)]
    assert unknown == ["id10999#gone#000001#000100.mp4"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source,frame\na,0\n", "no column driving"),
        ("source,driving,frame\na,b,0\n", "names no clip of the folder, such as 'a'"),
        ("source,driving,frame\n", "holds no pairs"),
        (f"source,driving,frame\n{CLIPS[0].name},{CLIPS[1].name},-1\n", "line 2: frame is '-1'"),
        (f"source,driving,frame\n{CLIPS[0].name},{CLIPS[1].name},x\n", "line 2: frame is 'x'"),
    ],
)
def test_lists_that_do_not_fit(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_pairs(tmp_path / "p.csv", CLIPS, CLIPS)


def test_a_short_name_that_two_clips_share_names_neither(tmp_path: Path) -> None:
    clips = [clip("a/1.mp4", "a"), clip("b/1.mp4", "b"), clip("c/2.mp4", "c")]
    (tmp_path / "p.csv").write_text("source,driving\n1.mp4,2.mp4\nb/1,2\n")
    assert read_pairs(tmp_path / "p.csv", clips, clips) == ([Pair(clips[1], clips[2])], ["1.mp4"])
