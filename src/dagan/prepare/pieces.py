"""Cuts tracks into pieces in which one fixed square holds the face as training wants it, and judges whether it can be learnt from.

The square is found as `dagan animate` finds it (`media.framing`), so that models are trained on what they will be given. A new piece
begins where the face has moved, or changed its size, too far for the square of what came before.

The face must be light, sharp and alive, and nothing may lie over it or pass in front of it. The limits were set on real clips that had been
looked at, and on the same clips with captions, logos and passing things laid over them, blurred, or replaced by a photo that pans;
`docs/prepare.md` gives the figures. What covers a face for the whole length of a piece, such as a mask or a microphone, is not noticed,
because nothing tells it from a part of the face.

Legend: N samples of one piece; a crop is what the clip shows; a grey crop is the same with `_SIDE` pixels.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import ceil

import numpy as np
from scipy.ndimage import uniform_filter
from skimage.measure import blur_effect
from skimage.transform import AffineTransform

from dagan.media.framing import SHARE_SPAN, Framing, Turn, bounds_of, fit_box, turned_back, upright_angle
from dagan.media.landmarks import EXPRESSIONS
from dagan.prepare.raws import PrepareOptions, Rejection
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


_SIDE = 128
_RIM = 36  # So many points of OUTLINE are the rim of the face, in their order round it.
_BLUR_EVERY = 4
# A photo that pans and zooms moves these numbers of `media.expression` by less than this (standard deviation), and a live face one of them
# by more.
_ALIVE = {"mouth": 0.008, "smile": 0.006, "turn": 0.012, "nod": 0.010}
_WINDOW = 8  # Samples, about a second.
_MOVED = 2.0  # Grey crop pixels. Only where the face moves so far within a window, its edges move too, and those of a caption do not.
_EDGE, _STANDS = 12.0, 0.25  # An edge has this slope in grey levels a pixel, and stands where it varies by less than this share.
_LEFT_BEHIND = 2.0  # The edges of what the face leaves behind vary at least so many times as much once the faces are brought to one place.
# Faces that differ less in these ways are turned alike, and look alike: degrees of yaw, and the numbers of `media.expression`.
_ALIKE = {"yaw": 8.0, "turn": 0.12, "nod": 0.06}
_FEWEST = 7  # So many samples must look alike to tell what one of them lacks.
_PATCH, _ODD = 15, 25.0  # A patch of so many pixels a side is odd where it is lighter or darker by so many grey levels on average.

# Each measure: the reason that it gives, whether it is too high or too low, and the limit.
LIMITS = {
    "light": ("dark", "low", 24.0), "life": ("still", "low", 1.05), "blur": ("blurred", "high", 0.70), "overlay": ("overlay", "high", 0.03),
    "occlusion": ("occluded", "high", 0.03),
}  # fmt: skip


def fault(measures: Mapping[str, float]) -> tuple[str, str] | None:
    """Returns the reason for which a piece with these measures is left out, and what was found; None where it is good."""
    for name, (reason, side, limit) in LIMITS.items():
        value = measures[name]
        if value < limit if side == "low" else value > limit:
            return reason, f"{name} is {value:.3f}, at {'least' if side == 'low' else 'most'} {limit:g}"
    return None


def figures(samples: Sequence[Sample]) -> dict[str, float]:
    """Returns what the table of clips tells of the face: turn, mouth, blink and gaze."""
    gaze = np.array([sample.gaze for sample in samples])
    span = np.percentile(gaze, 97, axis=0) - np.percentile(gaze, 3, axis=0)
    return {
        "max_yaw_deg": round(float(np.percentile([sample.yaw for sample in samples], 99)), 1),
        "mouth_open_max": round(float(np.percentile([sample.gap for sample in samples], 99)), 3),
        "blink": int(max(sample.blink for sample in samples) > 0.6), "gaze_range": round(float(np.hypot(*span)), 2),
    }  # fmt: skip


class Watch:
    """Is shown the crops of a piece's samples, and measures them at the end."""

    def __init__(self, piece: Piece) -> None:
        self._piece = piece
        self._greys: list[np.ndarray] = []
        self._points: list[np.ndarray] = []
        self._blurs: list[float] = []
        self._samples: list[Sample] = []

    def add(self, crop: np.ndarray, sample: Sample) -> None:
        """Takes the crop (S x S x 3 uint8) of the next sample."""
        from PIL import Image

        picture = Image.fromarray(crop).convert("L")
        self._greys.append(np.asarray(picture.resize((_SIDE, _SIDE), Image.Resampling.BOX)))
        self._points.append(self._piece.place(sample.outline, _SIDE))
        if len(self._samples) % _BLUR_EVERY == 0:
            left, top, right, bottom = _bounds(self._piece.place(sample.outline, len(crop)), len(crop))
            self._blurs.append(float(blur_effect(np.asarray(picture)[top:bottom, left:right])))
        self._samples.append(sample)

    def measures(self) -> dict[str, float]:
        """Returns the measures by the names of LIMITS, and forgets the crops, of which a long video has many."""
        greys, points = np.array(self._greys, np.float32), np.array(self._points)
        self._greys.clear()
        light = []
        for grey, place in zip(greys, points, strict=True):
            left, top, right, bottom = _bounds(place, _SIDE)
            light.append(float(grey[top:bottom, left:right].mean()))
        turn, nod = EXPRESSIONS.index("turn"), EXPRESSIONS.index("nod")
        poses = np.array([[sample.yaw, sample.expression[turn], sample.expression[nod]] for sample in self._samples])
        return {
            "light": float(np.median(light)), "life": life(self._samples), "blur": float(np.median(self._blurs)),
            "overlay": overlay(greys, points), "occlusion": occlusion(greys, points, poses),
        }  # fmt: skip


def _bounds(points: np.ndarray, side: int) -> tuple[int, int, int, int]:
    """Returns left, top, right and bottom of the points, inside a picture of that side, at least 16 pixels apart."""
    low = np.clip(np.floor(points.min(axis=0)), 0, side - 16).astype(int)
    high = np.clip(np.ceil(points.max(axis=0)), low + 16, side).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _face(points: np.ndarray) -> np.ndarray:
    """Returns which pixels of a grey crop lie in the face, from the places of OUTLINE."""
    from PIL import Image, ImageDraw

    mask = Image.new("1", (_SIDE, _SIDE))
    ImageDraw.Draw(mask).polygon([tuple(place) for place in points[:_RIM].tolist()], fill=1)
    return np.asarray(mask)


def life(samples: Sequence[Sample]) -> float:
    """Returns how far the parts of the face move against each other: 1 is the least of a live face, and a photo stays below."""
    numbers = np.array([sample.expression for sample in samples]).std(axis=0)
    return max(float(numbers[EXPRESSIONS.index(name)]) / least for name, least in _ALIVE.items())


def overlay(greys: np.ndarray, points: np.ndarray) -> float:
    """Returns the largest share of the face in which strong edges stand still in the picture while the face moves; 0 where it never moves.

    Edges of the face itself vary less once the faces are brought to the same place; those of a caption vary more. `greys` is N x _SIDE x
    _SIDE, and `points` the places of OUTLINE on them, N x P x 2.
    """
    most = 0.0
    for start in range(0, max(1, len(greys) - _WINDOW // 2), _WINDOW // 2):
        part = slice(start, start + _WINDOW)
        places = points[part]
        if len(places) < _WINDOW // 2 or np.linalg.norm(places - places[0], axis=-1).mean(axis=1).max() < _MOVED:
            continue
        usual = np.median(places, axis=0)
        strength, varies = _edges(greys[part])
        _, follows = _edges(np.array([_laid(grey, place, usual) for grey, place in zip(greys[part], places, strict=True)]))
        inside = np.mean([_face(place) for place in places], axis=0) >= 0.75
        stands = inside & (strength > _EDGE) & (varies < _STANDS * strength) & (follows > _LEFT_BEHIND * varies)
        most = max(most, float(stands.sum() / max(1, inside.sum())))
    return most


def _edges(greys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns how strong the mean edge is in every pixel of N pictures, and how much the edges vary about it."""
    slopes = np.array(np.gradient(greys, axis=(1, 2)))
    mean = slopes.mean(axis=1)
    return np.hypot(*mean), np.sqrt(((slopes - mean[:, None]) ** 2).sum(axis=0).mean(axis=0))


def _laid(grey: np.ndarray, place: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """Returns a grey crop moved such that the face at `place` comes to lie at `usual` (P x 2 each)."""
    from PIL import Image

    matrix = AffineTransform.from_estimate(usual, place).params
    return np.asarray(
        Image.fromarray(grey).transform((_SIDE, _SIDE), Image.Transform.AFFINE, (*matrix[0], *matrix[1]), Image.Resampling.BILINEAR)
    )


def occlusion(greys: np.ndarray, points: np.ndarray, poses: np.ndarray) -> float:
    """Returns the largest share of the face that is lighter or darker than in the second before and after, with the head turned alike.

    All faces are brought to the same place first. `poses` are N x 3, in the order of _ALIKE.
    """
    usual = np.median(points, axis=0)
    stack = np.array([_laid(grey, place, usual) for grey, place in zip(greys, points, strict=True)])
    inside = _face(usual)
    most = 0.0
    for i, face in enumerate(stack):
        near = slice(max(0, i - _WINDOW), i + _WINDOW + 1)
        alike = (np.abs(poses[near] - poses[i]) < tuple(_ALIKE.values())).all(axis=1)
        if alike.sum() < _FEWEST:
            continue
        differs = face - np.median(stack[near][alike], axis=0)
        differs -= np.median(differs[inside])  # Light may change.
        odd = inside & (np.abs(uniform_filter(differs, _PATCH)) > _ODD)
        most = max(most, float(odd.sum() / max(1, inside.sum())))
    return most
