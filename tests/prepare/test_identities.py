"""Whom clips show, who is set aside, and that nobody near them is trained on."""

from __future__ import annotations

import numpy as np

from dagan.data.clips import held_out
from dagan.prepare.identities import Shown, split


def vector(*angles: float) -> np.ndarray:
    """A unit vector for each person: degrees turn it towards another one."""
    turn = np.radians(angles[0])
    return np.array([np.cos(turn), np.sin(turn), 0.0])


def test_without_embeddings_a_raw_video_shows_one_person() -> None:
    clips = [Shown("a", "1" * 32, "", None), Shown("b", "1" * 32, "", None), Shown("c", "2" * 32, "", None)]
    found = split(clips, 0.0, 0.6, 0.45)
    assert found.identities == {"a": "id111111111111", "b": "id111111111111", "c": "id222222222222"}
    assert (found.held, found.checked) == (frozenset(), False)


def test_embeddings_link_clips_across_videos_and_part_them_within_one() -> None:
    angles = {"a": 0, "b": 40, "c": 80, "d": 170}  # a and c are linked by b.
    clips = [Shown(name, "1" * 32, "", vector(angle)) for name, angle in angles.items()]
    found = split(clips, 0.0, 0.6, 0.45).identities
    assert found["a"] == found["b"] == found["c"] != found["d"]
    # The name stays when others come.
    more = split([*clips, Shown("e", "3" * 32, "", -vector(80))], 0.0, 0.6, 0.45).identities
    assert {name: more[name] for name in angles} == found


def test_what_a_list_says_comes_first() -> None:
    clips = [Shown("a", "1" * 32, "id10270", vector(0)), Shown("b", "2" * 32, "id10271", vector(1)), Shown("c", "3" * 32, "", vector(2))]
    found = split(clips, 0.0, 0.6, 0.45).identities
    assert (found["a"], found["b"]) == ("id10270", "id10271")
    assert found["c"] not in ("id10270", "id10271")


def test_nobody_is_set_aside_who_is_like_somebody_trained_on() -> None:
    rng = np.random.default_rng(0)
    people = rng.normal(size=(60, 256))  # far from each other
    clips = [Shown(f"clip{i}", f"{i:032x}", f"id{i}", people[i]) for i in range(60)]
    alone = split(clips, 0.3, 0.6, 0.45)
    assert alone.held == held_out([clip.identity for clip in clips], 0.3)
    assert (alone.moved, alone.checked) == ((), True)
    # Somebody who is set aside has a brother, and the brother a cousin who is set aside too: both go.
    first, second, *rest = sorted(alone.held, key=lambda name: int(name[2:]))
    trained = next(clip for clip in clips if clip.identity not in alone.held)
    near = {first: 0.55, second: 0.5}

    def beside(other: np.ndarray, own: np.ndarray, cosine: float) -> np.ndarray:
        unit = other / np.linalg.norm(other)
        across = own - (own @ unit) * unit
        return cosine * unit + np.sqrt(1 - cosine**2) * across / np.linalg.norm(across)

    assert trained.embedding is not None
    brother = beside(trained.embedding, people[int(first[2:])], near[first])
    cousin = beside(brother, people[int(second[2:])], near[second])
    changed = {first: brother, second: cousin}
    clips = [Shown(c.name, c.digest, c.identity, changed.get(c.identity, c.embedding)) for c in clips]
    found = split(clips, 0.3, 0.6, 0.45)
    assert found.held == alone.held - {first, second}
    assert [(identity, other) for identity, other, _ in found.moved] == [(first, trained.identity), (second, first)]
    assert found.moved[0][2] == np.float32(near[first]) or abs(found.moved[0][2] - near[first]) < 1e-5
    embeddings = {clip.identity: clip.embedding / np.linalg.norm(clip.embedding) for clip in clips if clip.embedding is not None}
    cosines = [embeddings[a] @ embeddings[b] for a in found.held for b in embeddings if b not in found.held]
    assert max(cosines) < 0.45
    assert rest
