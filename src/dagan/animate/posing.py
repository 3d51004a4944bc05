"""Draws one source in poses that are set by hand, and sees to it that the drawn head turns as far as was asked.

Models turn some faces less than their keypoints say, and others more. So the face in a few turned results is looked at once, and turns
are exaggerated by what was missing (docs/method.md#poses-by-hand). Where the landmarker finds no face, turns are taken as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from dagan.animate.relief import measure_relief
from dagan.engine.base import EncodedSource, Engine
from dagan.media.landmarks import Face, FaceLandmarker
from dagan.models.keypoints import Keypoints
from dagan.motion.file import RIGID, rotation_between
from dagan.motion.head import Relief, angles_of
from dagan.motion.pose import RANGES, Pose, check_pose, posed
from dagan.motion.transfer import Soft, transfer

# The response is measured at these turns, in degrees, in two steps.
_YAW, _PITCH, _STEPS = 20.0, 14.0, 2
# A turn is exaggerated by at most so much, and never drawn by less than so much.
_MOST, _LEAST = 1.6, 0.6
# What keypoints are turned by, in degrees, passes unchanged up to the first of each pair, and stays below the second.
YAW, PITCH, ROLL = Soft(32, 42), Soft(24, 32), Soft(60, 75)


@dataclass(frozen=True)
class Response:
    """By how much turns are exaggerated, one number for either direction."""

    right: float = 1.0
    left: float = 1.0
    up: float = 1.0
    down: float = 1.0

    def asked(self, pose: Pose) -> Pose:
        """Returns the pose to which keypoints are brought, so that the drawn head has `pose` as far as that can be drawn."""
        yaw = pose.yaw * (self.right if pose.yaw > 0 else self.left)
        pitch = pose.pitch * (self.up if pose.pitch > 0 else self.down)
        return replace(pose, yaw=_held(yaw, YAW), pitch=_held(pitch, PITCH), roll=_held(pose.roll, ROLL))


class PosedSource:
    """One encoded source that is posed by hand.

    Args:
        picture: This is what was encoded, S x S x 3 uint8.
        face: This is the face in it, or None where there is none.
        landmarker: It looks at the face in results; None leaves turns as they are.
    """

    def __init__(
        self, engine: Engine, source: EncodedSource, picture: np.ndarray, face: Face | None, landmarker: FaceLandmarker | None
    ) -> None:  # fmt: skip
        self._engine, self._source, self._picture, self._face, self._landmarker = engine, source, picture, face, landmarker

    @cached_property
    def relief(self) -> Relief:
        """How the source's keypoints lie in depth."""
        return measure_relief(self._engine, self._picture, self._face, self._source.keypoints)

    @cached_property
    def response(self) -> Response:
        """By how much turns are exaggerated. It takes eight results, once."""
        if self._face is None or self._landmarker is None:
            return Response()
        factors = np.ones(4)
        wanted = np.array([_YAW, -_YAW, _PITCH, -_PITCH])
        for _ in range(_STEPS):
            turns = factors * wanted
            poses = [Pose(yaw=yaw) for yaw in turns[:2]] + [Pose(pitch=pitch) for pitch in turns[2:]]
            turned = posed(self._source.keypoints, self.relief, self._engine.face, poses)
            drawn = self._engine.render(self._source, self.transferred(turned))
            for i, picture in enumerate(drawn):
                seen = self._turn(picture)
                if seen is not None:
                    share = seen[i // 2] / wanted[i]
                    factors[i] = np.clip(factors[i] / max(share, 0.1), _LEAST, _MOST)
        return Response(*factors.tolist())

    def keypoints(self, poses: Sequence[Pose]) -> Keypoints:
        """Returns the keypoints of B poses, before transfer. They count from the source's own.

        Raises InputError where a pose moves something on which the model has no keypoints.
        """
        check_pose(poses, self._engine.face, self._engine.name)
        turned = any(pose.yaw or pose.pitch for pose in poses)
        response = self.response if turned else Response()
        asked = [response.asked(pose) for pose in poses]
        return posed(self._source.keypoints, self.relief, self._engine.face, asked)

    def transferred(self, keypoints: Keypoints) -> Keypoints:
        """Returns the keypoints that draw what `keypoints` gave: with the model's gains, and without the motion limit.

        A pose by hand is one that a head can have, and it is held within what can be drawn before its keypoints are made.
        """
        own = self._source.keypoints
        return transfer(own, keypoints, own, limit_motion=False, face=self._engine.face)

    def damped(self, pose: Pose) -> list[str]:
        """Returns a sentence for each turn that goes beyond what the model can draw, and is held back."""
        response = self.response if pose.yaw or pose.pitch else Response()
        held = response.asked(pose)
        found = []
        for name, before, factor in (
            ("yaw", pose.yaw, response.right if pose.yaw > 0 else response.left),
            ("pitch", pose.pitch, response.up if pose.pitch > 0 else response.down),
            ("roll", pose.roll, 1.0),
        ):
            after = getattr(held, name) / factor
            if abs(before - after) > 1:
                found.append(f"{name} {before:g} goes beyond what the model can draw of this face: it is held at about {after:.0f} degrees")
        return found

    def _turn(self, picture: np.ndarray) -> np.ndarray | None:
        """Returns yaw and pitch, in degrees, of a result's face relative to the source's, or None where no face is found."""
        assert self._face is not None
        assert self._landmarker is not None
        seen = self._landmarker.track(picture, self._face)
        if seen is None:
            return None
        before, after = (face.landmarks[list(RIGID)].astype(np.float64) for face in (self._face, seen))
        return angles_of(rotation_between(before, after).T)[:2]


def _held(angle: float, soft: Soft) -> float:
    import torch

    held = float(soft(torch.tensor(abs(angle), dtype=torch.float64)))
    return float(np.clip(np.copysign(held, angle), *RANGES["roll"]))
