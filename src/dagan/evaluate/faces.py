"""Faces for measuring: every picture on its own, because a face that is lost in one must be counted there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dagan.evaluate.identity import IdentityNetwork
from dagan.inference.reference import HeadPose, head_pose
from dagan.media.landmarks import Face, FaceLandmarker

Image = NDArray[np.uint8]


class Landmarker(Protocol):
    """Finds the largest face's mesh landmarks, 478 x 3 pixels, or None."""

    def __call__(self, image: Image) -> NDArray[np.floating] | None: ...


class FaceDetector(Protocol):
    """Finds the largest face, or None."""

    def face(self, image: Image) -> Face | None:
        """In a uint8 H x W x 3 picture."""


class Landmarks:
    """uint8 H x W x 3 -> the largest face, its mesh landmarks (478 x 3 pixels) when called, or None."""

    def __init__(self) -> None:
        self.landmarker = FaceLandmarker()

    def face(self, image: Image) -> Face | None:
        """The largest face."""
        faces = self.landmarker.detect(image, thorough=False)
        return faces[0] if faces else None

    def __call__(self, image: Image) -> NDArray[np.floating] | None:
        face = self.face(image)
        return face.landmarks if face is not None else None


@dataclass(frozen=True, eq=False)
class Seen:
    """A face as the rulers see it. landmarks: 478 x 3 pixels of the picture measured; pose: its rigid points and 51 expression
    strengths; identity: unit vector, None without an identity network."""

    landmarks: NDArray[np.floating]
    pose: HeadPose
    identity: NDArray[np.float32] | None


class Watcher:
    """Looks at pictures; the latest answer is kept, because the copy baseline shows one picture over and over."""

    def __init__(self, detector: FaceDetector, identity: IdentityNetwork | None) -> None:
        self.detector, self.identity = detector, identity
        self._latest: tuple[Image, Seen | None] | None = None

    def see(self, image: Image) -> Seen | None:
        """The largest face of a uint8 H x W x 3 picture, which must not be changed later; None where none is found."""
        if self._latest is None or self._latest[0] is not image:
            self._latest = (image, self._look(image))
        return self._latest[1]

    def _look(self, image: Image) -> Seen | None:
        face = self.detector.face(image)
        if face is None:
            return None
        identity = self.identity.embed(image, face.landmarks) if self.identity is not None else None
        return Seen(face.landmarks, head_pose(face), identity)
