"""Tells whom clips show, sets people aside for testing, and sees to it that nobody near them is trained on.

Legend: N clips, D numbers of an embedding, which has length 1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dagan.data.clips import held_out

_ROWS = 2048  # So many clips are compared with all others at once, which bounds the memory.


@dataclass(frozen=True)
class Shown:
    """What a clip says about whom it shows."""

    name: str
    """The clip's name, which no other clip has."""
    digest: str
    """What stands for the contents of its raw video."""
    identity: str
    """Whom a list says that it shows; empty where none does."""
    embedding: np.ndarray | None
    """D numbers; None without a face recognition network."""


@dataclass(frozen=True)
class Split:
    """Who is trained on, and who is set aside."""

    identities: Mapping[str, str]
    """The identity of each clip."""
    held: frozenset[str]
    """The identities that are set aside for testing."""
    moved: tuple[tuple[str, str, float], ...] = field(default=())
    """Identities that were to be set aside but are near one that is trained on, with that one, and how similar they are."""
    checked: bool = False
    """Whether embeddings could be compared."""


def split(clips: Sequence[Shown], share: float, same: float, leak: float) -> Split:
    """Names the identity of each clip, and sets about a share of the identities aside, chosen by a hash of their names.

    A list's word counts most. Then clips are one person's where embeddings are linked by a cosine of at least `same`. Without embeddings a
    raw video shows one person. Somebody set aside whose clips come within `leak` of clips that are trained on is trained on too.
    """
    identities = _identities(clips, same)
    held = set(held_out(identities.values(), share))
    known = [clip for clip in clips if clip.embedding is not None]
    moved: list[tuple[str, str, float]] = []
    while held and known:
        near = _nearest(known, identities, held)
        leaks = {identity: found for identity, found in near.items() if found[1] >= leak}
        if not leaks:
            break
        moved += [(identity, other, cosine) for identity, (other, cosine) in sorted(leaks.items())]
        held -= set(leaks)
    return Split(identities, frozenset(held), tuple(moved), bool(known))


def _identities(clips: Sequence[Shown], same: float) -> dict[str, str]:
    found = {clip.name: clip.identity or f"id{clip.digest[:12]}" for clip in clips}
    told = [clip for clip in clips if clip.embedding is not None and not clip.identity]
    if told:
        _, groups = connected_components(_links(_matrix(told), same), directed=False)
        for group in range(int(groups.max()) + 1):
            members = [told[i].name for i in np.flatnonzero(groups == group)]
            # The name comes from a clip, so that it stays when other people come or go.
            name = f"id{hashlib.sha256(min(members).encode()).hexdigest()[:12]}"
            found.update(dict.fromkeys(members, name))
    return found


def _matrix(clips: Sequence[Shown]) -> np.ndarray:
    vectors = np.array([clip.embedding for clip in clips], np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def _similar(some: np.ndarray, others: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the cosines of a few of `some` with all `others`, with the number of the first one."""
    for start in range(0, len(some), _ROWS):
        yield start, some[start : start + _ROWS] @ others.T


def _links(vectors: np.ndarray, least: float) -> coo_array:
    rows, columns = [], []
    for start, cosines in _similar(vectors, vectors):
        row, column = np.nonzero(cosines >= least)
        rows.append(row + start)
        columns.append(column)
    places = (np.concatenate(rows), np.concatenate(columns))
    return coo_array((np.ones(len(places[0]), np.int8), places), shape=(len(vectors), len(vectors)))


def _nearest(clips: Sequence[Shown], identities: Mapping[str, str], held: set[str]) -> dict[str, tuple[str, float]]:
    """Returns for each identity that is set aside the most similar one that is not, and how similar they are."""
    aside = [clip for clip in clips if identities[clip.name] in held]
    others = [clip for clip in clips if identities[clip.name] not in held]
    near: dict[str, tuple[str, float]] = {}
    if not aside or not others:
        return near
    for start, cosines in _similar(_matrix(aside), _matrix(others)):
        for clip, row in zip(aside[start:], cosines, strict=False):
            best = int(row.argmax())
            identity = identities[clip.name]
            if identity not in near or near[identity][1] < row[best]:
                near[identity] = (identities[others[best].name], float(row[best]))
    return near
