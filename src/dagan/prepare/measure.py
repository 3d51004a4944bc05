"""Judges whether a face can be learnt from: it must be light, sharp and alive, and nothing may lie over it or pass in front of it.

The limits were set on real clips that had been looked at, and on the same clips with captions, logos and passing things laid over them,
blurred, or replaced by a photo that pans; `docs/prepare.md` gives the figures. What covers a face for the whole length of a piece, such as
a mask or a microphone, is not noticed, because nothing tells it from a part of the face.

Legend: N samples of one piece; a crop is what the clip shows; a grey crop is the same with `_SIDE` pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.ndimage import uniform_filter
from skimage.measure import blur_effect
from skimage.transform import AffineTransform

from dagan.media.landmarks import EXPRESSIONS
from dagan.prepare.pieces import Piece
from dagan.prepare.tracks import Sample

_SIDE = 128
_RIM = 36  # So many points of OUTLINE are the rim of the face, in their order round it.
_BLUR_EVERY = 4
# A photo that pans and zooms moves these numbers of `media.landmarks` by less than this (standard deviation), and a live face one of them
# by more.
_ALIVE = {"mouth": 0.008, "smile": 0.006, "turn": 0.012, "nod": 0.010}
_WINDOW = 8  # Samples, about a second.
_MOVED = 2.0  # Grey crop pixels. Only where the face moves so far within a window, its edges move too, and those of a caption do not.
_EDGE, _STANDS = 12.0, 0.25  # An edge has this slope in grey levels a pixel, and stands where it varies by less than this share.
_LEFT_BEHIND = 2.0  # The edges of what the face leaves behind vary at least so many times as much once the faces are brought to one place.
# Faces that differ less in these ways are turned alike, and look alike: degrees of yaw, and the numbers of `media.landmarks`.
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
