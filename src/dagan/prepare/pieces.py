"""Cuts tracks into pieces in which one fixed square holds the face as training wants it.

The square is found as `dagan animate` finds it (`media.framing`), so that models are trained on what they will be given. A new piece
begins where the face has moved, or changed its size, too far for the square of what came before.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import ceil

import numpy as np

from dagan.media.framing import SHARE_SPAN, Framing, Turn, bounds_of, fit_box, turned_back, upright_angle
from dagan.prepare.options import PrepareOptions, Rejection
from dagan.prepare.tracks import Sample, Shot, Track

# The face takes SHARE_SPAN of the side in the middle of its heights. Single heights may go a little beyond.
_LOOSE = 0.06
_OFF_CENTRE = 0.22  # The middle of the places of the face is at most so far from the square's middle, as a share of its side.
_PADDED = 1.04  # The square may be so many times as large as the picture's shorter side, and pixels are repeated beside it.
# Another face counts from this share of the height of the followed one, where so much of its outline lies in the square, for so many
# samples (half a second) in which the landmarker is so sure. Folds of clothes are taken for faces for a moment, with up to 0.9994 once.
_SECOND_HEIGHT, _SECOND_INSIDE, _SECOND_SAMPLES, _SECOND_SURE = 0.2, 0.1, 4, 0.999

Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Piece:
    """A piece of a raw video that can become a clip."""

    first: int
    """The number of its first frame."""
    stop: int
    """The number of the frame after its last one."""
    start: Fraction
    """The second at which it begins."""
    end: Fraction
    """About the second at which it ends."""
    samples: Sequence[Sample]
    """The samples in it."""
    turn: Turn
    """What turns the raw picture upright."""
    square: Framing
    """The square on the upright picture."""
    face_height: float
    """The usual height of the face in pixels of the raw video, from hairline to chin."""
    union: Box
    """Where the face goes, on the upright picture."""

    @property
    def framing(self) -> Framing:
        """The square in the raw picture."""
        return turned_back(self.square, self.turn)

    def place(self, points: np.ndarray, side: int) -> np.ndarray:
        """Maps positions (P x 2) in the raw picture to pixels of the clip, which has this side."""
        left, top, _, _ = self.square.bounds
        return (self.turn.forward(points) - np.array([left, top])) * (side / self.square.side)


def pieces(shot: Shot, tracks: Sequence[Track], width: int, height: int, options: PrepareOptions) -> Iterator[Piece]:
    """Yields the pieces of these tracks of a shot of a width x height video. None is longer than `longest`."""
    for track in tracks:
        angles = np.unwrap([sample.lean for sample in track.samples])
        turn = Turn(upright_angle(float(np.median(angles))), width, height)
        boxes = [bounds_of(turn.forward(sample.outline)) for sample in track.samples]
        for begin, stop in _runs(boxes, turn):
            yield from _divided(shot, track, boxes, turn, begin, stop, options)


def _runs(boxes: Sequence[Box], turn: Turn) -> Iterator[tuple[int, int]]:
    """Yields the first and the last + 1 of samples that one square holds, as many as it can."""
    begin, heights, union = 0, [boxes[0][3] - boxes[0][1]], boxes[0]
    for i, box in enumerate(boxes[1:], 1):
        joined = _union(union, box)
        insort(heights, box[3] - box[1])
        if _holds(fit_box(joined, heights[len(heights) // 2], *turn.size).side, heights, min(turn.size)):
            union = joined
        else:
            yield begin, i
            begin, heights, union = i, [box[3] - box[1]], box
    yield begin, len(boxes)


def _holds(side: float, heights: Sequence[float], room: float) -> bool:
    """Says whether faces of these heights, which are sorted, fill a square of that side as in training, and it fits into the picture.

    A face that is too large for the picture by itself is no reason to divide it.
    """
    least, most = SHARE_SPAN
    usual = heights[len(heights) // 2] / side
    fits = side <= _PADDED * room or heights[len(heights) // 2] / most > _PADDED * room
    return fits and least <= usual and heights[0] / side >= least - _LOOSE and heights[-1] / side <= most + _LOOSE


def _union(a: Box, b: Box) -> Box:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _divided(
    shot: Shot, track: Track, boxes: Sequence[Box], turn: Turn, begin: int, stop: int, options: PrepareOptions
) -> Iterator[Piece]:
    """Divides a run of samples evenly, so that no piece is too long and none is a mere rest."""
    samples = track.samples
    # The face was there until the cut, or until it was seen in the wrong place or not at all.
    last, end = (shot.stop, shot.end) if track.last is not None else (samples[-1].index + 1, samples[-1].time)
    if stop < len(samples):
        last, end = samples[stop].index, samples[stop].time
    count = max(1, ceil((end - samples[begin].time) / Fraction(options.longest).limit_denominator(1000)))
    bounds = [begin + (stop - begin) * k // count for k in range(count + 1)]
    for a, b in pairwise(bounds):
        if a == b:
            continue
        union = boxes[a]
        for box in boxes[a + 1 : b]:
            union = _union(union, box)
        usual = float(np.median([box[3] - box[1] for box in boxes[a:b]]))
        yield Piece(
            first=samples[a].index, stop=last if b == stop else samples[b].index, start=samples[a].time,
            end=end if b == stop else samples[b].time, samples=samples[a:b], turn=turn,
            square=fit_box(union, usual, *turn.size), face_height=usual, union=union,
        )  # fmt: skip


def refused(piece: Piece, shot: Shot, options: PrepareOptions) -> Rejection | None:
    """Says why the place, size or length of a piece forbids a clip, or returns None."""
    start, end = float(piece.start), float(piece.end)

    def because(reason: str, found: str) -> Rejection:
        return Rejection(reason=reason, start=start, end=end, found=found)

    if piece.end - piece.start < options.shortest:
        return because("too short", f"{end - start:.2f} s of {options.shortest:g} s")
    if piece.face_height < options.least_face:
        return because("too small", f"{piece.face_height:.0f} of {options.least_face:.0f} pixels")
    fault = _edge(piece)
    if fault is not None:
        return because("edge", fault)
    seconds = _second_face(piece, shot)
    if seconds >= _SECOND_SAMPLES:
        return because("second face", f"in {seconds} of {len(piece.samples)} samples")
    return None


def _edge(piece: Piece) -> str | None:
    square, (left, top, right, bottom) = piece.square, piece.union
    if square.side > _PADDED * min(piece.turn.size):
        return f"the square has {square.side:.0f} pixels, the picture {min(piece.turn.size):.0f}"
    off = max(abs((left + right) / 2 - square.center_x), abs((top + bottom) / 2 - square.center_y)) / square.side
    if off > _OFF_CENTRE:
        return f"the face is {off:.2f} of the side off the square's middle, at most {_OFF_CENTRE}"
    return None


def _second_face(piece: Piece, shot: Shot) -> int:
    """Counts the samples in which another track's face reaches into the square."""
    x0, y0, x1, y1 = piece.square.bounds
    count = 0
    for track in shot.tracks:
        if track.samples and any(sample is piece.samples[0] for sample in track.samples):
            continue
        for sample in track.samples:
            if sample.score < _SECOND_SURE or not piece.first <= sample.index < piece.stop:
                continue
            outline = piece.turn.forward(sample.outline)
            inside = (outline >= (x0, y0)).all(1) & (outline <= (x1, y1)).all(1)
            tall = float(np.ptp(outline[:, 1])) >= _SECOND_HEIGHT * piece.face_height
            count += tall and bool(inside.mean() >= _SECOND_INSIDE)
    return count
