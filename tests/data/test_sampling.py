"""What is drawn, how often, and what belongs together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dagan.data.clips import Clip
from dagan.data.config import PairConfig, TripletConfig
from dagan.data.landmark_tables import POINTS
from dagan.data.sampling import ClipChooser, PairSampler, TripletSampler
from dagan.data.store import ClipDataset, MemoryStore
from dagan.errors import InputError
from dagan.media.landmarks import expressions


def _dataset(lengths: dict[str, list[int]], portraits: tuple[str, ...] = (), held: frozenset[str] = frozenset()) -> ClipDataset:
    """Clips of the given lengths per identity, 25 frames per second; frames are 1 x 1."""
    clips = [Clip(Path(f"{who}{i}"), f"{who}{i}", who) for who, counts in lengths.items() for i in range(len(counts))]
    clips += [Clip(Path(who), who, who, still=True) for who in portraits]
    count = np.asarray([n for counts in lengths.values() for n in counts] + [1] * len(portraits))
    start = np.concatenate([[0], np.cumsum(count)[:-1]])
    frames = np.zeros((count.sum(), 3, 1, 1), np.uint8)
    thumbnails = np.zeros((count.sum(), 16, 16), np.uint8)
    return ClipDataset(tuple(clips), start, count, np.full(len(clips), 25.0), held, MemoryStore(frames), thumbnails)


def _shares(data: ClipDataset, balance: str) -> dict[str, float]:
    drawn = ClipChooser(data, "train", balance, 2).draw(np.random.default_rng(0), 20000)  # type: ignore[arg-type]
    names = [data.clips[i].identity for i in drawn]
    return {who: names.count(who) / len(names) for who in set(names)}


def test_balance() -> None:
    data = _dataset({"many": [10, 10, 10, 10], "long": [100], "short": [5, 55]})
    assert _shares(data, "identity") == pytest.approx({"many": 1 / 3, "long": 1 / 3, "short": 1 / 3}, abs=0.02)
    assert _shares(data, "clip") == pytest.approx({"many": 4 / 7, "long": 1 / 7, "short": 2 / 7}, abs=0.02)
    assert _shares(data, "seconds") == pytest.approx({"many": 0.2, "long": 0.5, "short": 0.3}, abs=0.02)


def test_seconds_count_not_frames() -> None:
    data = _dataset({"slow": [50], "fast": [100]})
    rate = np.asarray([25.0, 50.0])
    assert _shares(replace(data, rate=rate), "seconds") == pytest.approx({"slow": 0.5, "fast": 0.5}, abs=0.02)


def test_triplets_are_evenly_spaced_within_one_clip() -> None:
    data = _dataset({"a": [9], "b": [4], "c": [30], "d": [2]})
    numbers = TripletSampler(data, "train", "clip", TripletConfig(gap=(2, 5))).draw(np.random.default_rng(0), 3000).numbers
    owner = np.searchsorted(data.start, numbers, side="right") - 1
    assert (owner == owner[:, :1]).all()
    assert set(owner[:, 0]) == {0, 1, 2}, "a clip of two frames has no triplet"
    gap = np.diff(numbers, axis=1)
    assert (gap[:, 0] == gap[:, 1]).all()
    assert set(gap[owner[:, 0] == 2, 0]) == {2, 3, 4, 5}
    assert set(gap[owner[:, 0] == 0, 0]) == {2, 3, 4}
    assert set(gap[owner[:, 0] == 1, 0]) == {1}, "short clips take the gap that fits"
    assert numbers.min() == 0
    assert set(range(9)) == set(numbers[owner[:, 0] == 0].ravel()), "every frame of the clip can be drawn"


def test_min_motion_prefers_pairs_that_move() -> None:
    data = _dataset({"a": [100]})
    assert data.thumbnails is not None
    data.thumbnails[50:] = (np.arange(50) % 2 * 100)[:, None, None]  # the second half flickers, the first is still
    rng = np.random.default_rng(0)
    any_motion = TripletSampler(data, "train", "clip", TripletConfig()).draw(rng, 500).numbers[:, 1]
    lively = TripletSampler(data, "train", "clip", TripletConfig(min_motion=0.1)).draw(rng, 500).numbers[:, 1]
    assert (any_motion < 50).mean() > 0.4
    assert (lively < 50).mean() < 0.05
    with pytest.raises(InputError, match="min_motion needs decoded clips"):
        TripletSampler(replace(data, thumbnails=None), "train", "clip", TripletConfig(min_motion=0.1))


def test_pairs_are_two_frames_of_one_clip() -> None:
    data = _dataset({"a": [4], "b": [2], "c": [1]})
    draw = PairSampler(data, "train", "clip", PairConfig()).draw(np.random.default_rng(0), 3000)
    owner = np.searchsorted(data.start, draw.numbers, side="right") - 1
    assert (owner[:, 0] == owner[:, 1]).all()
    assert set(owner[:, 0]) == {0, 1}
    assert (draw.numbers[:, 0] != draw.numbers[:, 1]).all()
    assert not draw.still.any()
    pairs, counts = np.unique(draw.numbers[owner[:, 0] == 0], axis=0, return_counts=True)
    assert len(pairs) == 12
    assert counts.min() > 0.7 * counts.mean()


def test_still_pairs_show_one_picture_and_portraits_of_the_split() -> None:
    data = _dataset({"a": [4], "b": [6]}, portraits=("a", "b", "c", "z"), held=frozenset("bz"))
    draw = PairSampler(data, "train", "clip", PairConfig(still=0.5, portrait=0.5)).draw(np.random.default_rng(0), 4000)
    assert draw.still.mean() == pytest.approx(0.5, abs=0.03)
    still = draw.numbers[draw.still]
    assert (still[:, 0] == still[:, 1]).all()
    portrait = still[:, 0] >= 10
    assert portrait.mean() == pytest.approx(0.5, abs=0.04)
    assert set(still[portrait, 0]) == {10, 12}, "portraits of identities that are held out are never drawn"
    assert set(still[~portrait, 0]) == {0, 1, 2, 3}


def test_split_without_usable_clips() -> None:
    with pytest.raises(InputError, match="no train clip has 3 frames"):
        TripletSampler(_dataset({"a": [2], "b": [2]}), "train", "clip", TripletConfig())


def test_expressive_pairs_differ_more_and_stay_within_their_clip() -> None:
    data = _dataset({"a": [200], "b": [200]})
    rng = np.random.default_rng(0)
    points = rng.normal(size=(400, len(POINTS), 2)).astype(np.float32)
    points[:, POINTS.index(10)], points[:, POINTS.index(152)] = (0, -1), (0, 1)
    points[7] = np.nan  # a frame without a face may be drawn like any other
    data = replace(data, landmarks=points)
    found = expressions(lambda mesh: points[:, POINTS.index(mesh)])
    spread = np.nan_to_num(found / np.nanstd(found, axis=0))

    def difference(share: float) -> float:
        numbers = PairSampler(data, "train", "identity", PairConfig(expressive=share)).draw(np.random.default_rng(1), 2000).numbers
        assert (numbers // 200 == numbers[:, :1] // 200).all()
        assert (numbers[:, 0] != numbers[:, 1]).all()
        return float(np.abs(spread[numbers[:, 0]] - spread[numbers[:, 1]]).max(1).mean())

    assert difference(1.0) > 1.2 * difference(0.0)
    assert difference(0.0) < difference(0.5) < difference(1.0)
    with pytest.raises(InputError, match=r"sampling\.expressive needs landmarks"):
        PairSampler(replace(data, landmarks=None), "train", "identity", PairConfig(expressive=0.5))


def test_lively_clips_are_drawn_more_often() -> None:
    data = _dataset({"a": [200], "b": [200]})
    points = np.random.default_rng(0).normal(size=(400, len(POINTS), 2)).astype(np.float32)
    points[:, POINTS.index(10)], points[:, POINTS.index(152)] = (0, -1), (0, 1)
    points[:200] = points[0] + 0.05 * points[:200]  # the first person's face hardly moves
    data = replace(data, landmarks=points)

    def share_of_the_second(lively: float) -> float:
        numbers = PairSampler(data, "train", "identity", PairConfig(lively=lively)).draw(np.random.default_rng(1), 4000).numbers
        assert (numbers // 200 == numbers[:, :1] // 200).all()
        return float((numbers[:, 0] >= 200).mean())

    assert share_of_the_second(0.0) == pytest.approx(0.5, abs=0.03)
    assert share_of_the_second(1.0) > 0.8
    assert share_of_the_second(0.5) == pytest.approx((0.5 + share_of_the_second(1.0)) / 2, abs=0.03)
    with pytest.raises(InputError, match=r"sampling\.lively needs landmarks"):
        PairSampler(replace(data, landmarks=None), "train", "identity", PairConfig(lively=0.5))
