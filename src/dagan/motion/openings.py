"""Keypoints that stand on facial landmarks. They are put there while driving, and their openings are carried from face to face.

Lips and lids have other places and other distances in other people. If an eye that is half as high as the driving one moved by the same
way, its upper lid would end below its lower one. So pairs of keypoints are carried as openings. Lids close by the same share. Lips part
and mouths widen by the same way, relative to the face. Irises move by the same way within the eye. Gains exaggerate each of these by as
much as a model draws too little of it (see `dagan.config.Gains`).

Legend: B frames, K keypoints, L of them on landmarks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dagan.config import Gains
from dagan.errors import InputError
from dagan.media.landmarks import Face
from dagan.models.keypoints import Keypoints, on_landmarks

# These are mesh points; "right" is the person's right. The lower lip opens from the upper one, and its outer edge goes along with it. There
# follow the corners of the mouth, upper and lower lids, and irises with their lids.
_UPPER_LIP, _LOWER_LIP, _LOWER_OUTER = 13, 14, 17
_CORNERS = (61, 291)
_LIDS = ((159, 145), (386, 374))
_IRISES = ((468, 159, 145), (473, 386, 374))
# Expressions move these points, and not only the head does.
_EXPRESSIVE = frozenset((61, 291, 13, 14, 159, 145, 386, 374, 468, 473, 0, 17, 152))
# An opening smaller than this (the picture is 2 wide) has no direction of its own, so it is taken to open upwards.
_SMALLEST = 1e-3
_UP = -1j  # Places are complex numbers x + iy with y down, so this is upwards.


Numbers = NDArray[np.float64]
Places = NDArray[np.complex128]
KeypointChoice = Literal["auto", "landmarks", "learnt"]


@dataclass(frozen=True)
class FaceKeypoints:
    """Which keypoints of a model stand on landmarks, and how they are exaggerated."""

    landmarks: tuple[int, ...] = ()
    """The mesh points on which the first L keypoints stand; a model may have none."""
    gains: Gains = field(default_factory=Gains)
    """See `dagan.config.Gains`."""

    def explicit(self, choice: str, model: str) -> bool:
        """Says whether landmarks drive: as chosen, or with auto where this model's keypoints stand on some.

        Raises InputError for another choice, and for landmarks with a model whose keypoints stand on none.
        """
        if choice not in get_args(KeypointChoice):
            raise InputError(f"--keypoints is {choice!r}: must be {', '.join(get_args(KeypointChoice))}")
        if choice == "landmarks" and not self.landmarks:
            raise InputError(f"--keypoints landmarks: the keypoints of model {model!r} stand on no landmarks: use learnt, or another model")
        return choice != "learnt" and bool(self.landmarks)

    def places(self, face: Face | None, side: int) -> np.ndarray:
        """Returns where the landmarks are in a picture of that side, L x 2 float32 in [-1, 1]; NaN without a face."""
        if face is None:
            return np.full((len(self.landmarks), 2), np.nan, np.float32)
        return face.places(self.landmarks, side)

    def put(self, keypoints: Keypoints, places: list[np.ndarray]) -> Keypoints:
        """Moves the first L keypoints of B pictures to B places, each as `places` gives them, where those are known."""
        return on_landmarks(keypoints, torch.from_numpy(np.stack(places))) if self.landmarks else keypoints

    def rigid(self, count: int) -> list[int]:
        """Returns which of `count` keypoints expressions do not move, or all of them where fewer than three are of that kind."""
        found = [i for i in range(count) if i >= len(self.landmarks) or self.landmarks[i] not in _EXPRESSIVE]
        return found if len(found) > 2 else list(range(count))

    def carried(self, source: Keypoints, driving: Keypoints, initial: Keypoints | None, moved: Keypoints, scale: float) -> Keypoints:
        """Returns `moved`, the driving keypoints brought to the source (B), with its openings as this face makes them.

        `source` has batch 1. `initial` is the reference, of batch 1, from which movements count; None takes the driving face as it is.
        `scale` is that of movements from the driving face to the source's.
        """
        if not self.landmarks or (initial is None and self.gains == Gains()):
            return moved
        with np.errstate(all="ignore"):  # Keypoints on one place have no layout, which `similarity` deals with.
            carry = _Carry(self, source, driving, initial, moved, scale)
            carry.lids()
            carry.lips()
            carry.corners()
            carry.irises()
        value = np.stack([carry.result.real, carry.result.imag], axis=-1)
        return Keypoints(torch.from_numpy(value).to(moved.value), moved.jacobian)


class _Carry:
    """One call of `FaceKeypoints.carried`. Places are complex numbers, so that a complex factor turns and sizes them.

    It counts in numpy, which needs a third of PyTorch's time for so few numbers.
    """

    def __init__(
        self, face: FaceKeypoints, source: Keypoints, driving: Keypoints, initial: Keypoints | None, moved: Keypoints, scale: float
    ) -> None:
        self.gains, self.relative, self.scale = face.gains, initial is not None, scale
        self.index = {point: i for i, point in enumerate(face.landmarks)}
        self.source, self.result = complex_places(source.value), complex_places(moved.value)
        reference = self.source if initial is None else complex_places(initial.value)
        rigid = face.rigid(self.source.shape[1])
        self.pose = similarity(self.source[:, rigid], self.result[:, rigid])
        # Driving places are brought to the axes and the size of what they are compared with.
        driven = complex_places(driving.value)
        self.told = driven / similarity(reference[:, rigid], driven[:, rigid])[:, None]
        self.reference = reference

    def known(self, *points: int) -> bool:
        return all(point in self.index for point in points)

    def lids(self) -> None:
        """Moves upper lids. An eye closes by the driving eye's share, and opens wider by its way or its share, whichever is less."""
        for upper, lower in _LIDS:
            if not self.known(upper, lower):
                continue
            own, then, now = self._gaps(upper, lower)
            target = now
            if self.relative:
                share = now / np.maximum(then, _SMALLEST)
                target = np.where(share < 1, own * share, np.minimum(own * share, own + self.scale * (now - then)))
            self._set(upper, lower, own, target, self.gains.eyes, {upper: 1.0})

    def lips(self) -> None:
        """Moves the lower lip, and its outer edge with it. Lips part by the driving lips' way."""
        if self.known(_UPPER_LIP, _LOWER_LIP):
            own, then, now = self._gaps(_UPPER_LIP, _LOWER_LIP)
            target = own + self.scale * (now - then) if self.relative else now
            self._set(_UPPER_LIP, _LOWER_LIP, own, target, self.gains.mouth, {_LOWER_LIP: -1.0, _LOWER_OUTER: -1.0})

    def corners(self) -> None:
        """Moves both corners of the mouth. A mouth widens by the driving mouth's way."""
        right, left = _CORNERS
        if self.known(right, left):
            own, then, now = self._gaps(right, left)
            target = own + self.scale * (now - then) if self.relative else now
            self._set(right, left, own, target, self.gains.smile, {right: 0.5, left: -0.5})

    def irises(self) -> None:
        """Moves the result's iris keypoints sideways, along the line from one iris to the other.

        Each goes as far from the middle of its eye as the driving face's iris goes from the middle of its own.
        """
        (right, *_), (left, *_) = _IRISES
        if not self.known(*(point for eye in _IRISES for point in eye)):
            return
        axis = _direction(self._offset(self.source, left, right))
        for iris, upper, lower in _IRISES:
            own, then, now = (self._across(places, axis, iris, upper, lower) for places in (self.source, self.reference, self.told))
            target = own + self.scale * (now - then) if self.relative else now
            present = self._across(self.result / self.pose[:, None], axis, iris, upper, lower)
            self.result[:, self.index[iris]] += self.pose * axis * (own + self.gains.gaze * (target - own) - present)

    def _across(self, places: Places, axis: Places, iris: int, upper: int, lower: int) -> Numbers:
        """Returns how far an iris is from the middle between its lids, along the axis."""
        middle = (places[:, self.index[upper]] + places[:, self.index[lower]]) / 2
        return _along(places[:, self.index[iris]] - middle, axis)

    def _gaps(self, a: int, b: int) -> tuple[Numbers, Numbers, Numbers]:
        """Returns how far a is from b in the source (1), the reference (1) and the driving frames (B), along the direction at rest."""
        own, then = self._offset(self.source, a, b), self._offset(self.reference, a, b)
        return np.abs(own), np.abs(then), _along(self._offset(self.told, a, b), _direction(then))

    def _set(self, a: int, b: int, own: Numbers, target: Numbers, gain: float, moving: Mapping[int, float]) -> None:
        """Moves points so that a is `own` + gain (target - own) from b, and at least 0. `moving` gives each point's part of the way.

        Where a also moves sideways beside b, it does so as in the driving face.
        """
        axis = _direction(self._offset(self.source, a, b))
        present = self._offset(self.result, a, b) / self.pose * axis.conj()
        aside = present.imag
        if self.relative:
            aside = self.scale * (self._offset(self.told, a, b) * _direction(self._offset(self.reference, a, b)).conj()).imag
        change = self.pose * axis * (np.maximum(own + gain * (target - own), 0) + 1j * aside - present)
        for point, share in moving.items():
            if point in self.index:
                self.result[:, self.index[point]] += share * change

    def _offset(self, places: Places, a: int, b: int) -> Places:
        return places[:, self.index[a]] - places[:, self.index[b]]


def complex_places(value: Tensor) -> Places:
    """Returns B x K positions as complex numbers in double precision, of B x K x 2 keypoints."""
    x, y = np.moveaxis(value.detach().double().cpu().numpy(), -1, 0)
    return x + 1j * y


def similarity(home: Places, there: Places) -> Places:
    """Returns B complex factors that turn and size the layout `home` (1 x K) to be nearest to `there` (B x K), by least squares.

    A factor is 1 where the places shrink to a point, or where home is one.
    """
    factor = turn_and_size(home - home.mean(1, keepdims=True), there - there.mean(1, keepdims=True))
    return np.where(np.abs(factor) > _SMALLEST, factor, 1)


def turn_and_size(centred: Places, moved: Places) -> Places:
    """Returns B complex factors that bring a layout (1 x K) nearest to others (B x K), by least squares. All are centred on 0."""
    return (moved * centred.conj()).sum(1) / np.square(np.abs(centred)).sum(1)


def _direction(offset: Places) -> Places:
    length = np.abs(offset)
    return np.where(length > _SMALLEST, offset / np.maximum(length, _SMALLEST), _UP)


def _along(offset: Places, axis: Places) -> Numbers:
    return (offset * axis.conj()).real
