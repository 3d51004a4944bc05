"""Draws one source in poses that are set by hand, and sees to it that the drawn head turns as far as was asked.

Models turn some faces less than their keypoints say, and others more. So the face in a few turned results is looked at once, and turns
are exaggerated by what was missing (docs/method.md#poses-by-hand). Where the landmarker finds no face, turns are taken as they are.

To turn a head one must know how its keypoints lie in depth. That is found from the learnt depth of the source's picture
(docs/method.md#turning-a-head). Keypoints that a network has learnt are no places of the skin: the one that the bundled model finds at the
nose goes along with the middle of the head. So depth is not read off at a keypoint. The picture is turned a little by its depth map
instead, and the detector is asked where its keypoints have gone and how their neighbourhoods have changed. Keypoints on landmarks have the
depth of the face mesh. Depth maps are flat where hair is, and say little of necks. There the head is taken to be round.

Legend: K keypoints, S side of the model's pictures, V views.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from dagan.engine.base import EncodedSource, Engine, to_bytes, to_images
from dagan.geometry import coordinate_grid, inverse_2x2, sample
from dagan.media.landmarks import CHIN, FOREHEAD_TOP, RIGID, Face, FaceLandmarker, rotation_between
from dagan.models.keypoints import Keypoints
from dagan.motion.head import Relief, angles_of, rotations, turn_of
from dagan.motion.pose import RANGES, Pose, check_pose, posed
from dagan.motion.transfer import Soft, layout_radius, transfer

# These turns, yaw and pitch in degrees, are shown to the detector.
_VIEWS = ((12.0, 0.0), (-12.0, 0.0), (0.0, 10.0), (0.0, -10.0))
# Pictures that are turned by their depth map still have the light of the photo and no newly seen cheek, so the detector tells less of the
# turn. On ten portraits its answer was 1.6 times flatter than what 60 clips of turning heads show of the same keypoints.
_UNDERSEEN = 1.6
_STEEPEST = 0.8  # A neighbourhood that is steeper than this would turn over within some 50 degrees.
# The following lengths are in heights of the face. The round head is as wide, high and deep as this; its middle lies above the face's.
_HEAD_WIDTH, _HEAD_HEIGHT, _HEAD_DEPTH, _HEAD_FRONT, _HEAD_ABOVE = 0.55, 0.7, 0.55, -0.12, 0.15
_FACE_WIDTH, _FACE_HEIGHT = 0.42, 0.52  # Inside this ellipse the depth map is trusted.
_NEAREST, _FARTHEST = -0.3, 0.45  # Depth is kept between these.
_NECK, _NECK_DEPTH = 0.4, 0.35  # Below this, the neck begins, which is so deep.
_REACH_X, _REACH_Y, _FADE = 0.85, 1.0, 0.08  # What lies outside this ellipse stays where it is.
_PIVOT = 0.3  # Heads turn about their neck, so far behind the face's plane. Real ones do so 0.4 (yaw) and 0.6 (pitch) behind it.
_PLAIN_HEIGHT = 1.7  # Without a face, its height is taken as so many radii of the keypoints' layout.
_PLAIN_RELIEF = 0.09  # Its depth map is then given this standard deviation, that of face meshes.


def measure_relief(engine: Engine, picture: np.ndarray, face: Face | None, source: Keypoints) -> Relief:
    """Returns the relief of a source.

    Args:
        picture: This is what was encoded, S x S x 3 uint8.
        face: This is the face in it, or None where the landmarker finds none. Proportions are then guessed from the keypoints' layout.
        source: These are the keypoints of the encoded source, batch 1.
    """
    places = source.value[0].double()
    if face is None:
        height = _PLAIN_HEIGHT * (layout_radius(source.value[0]) or 0.5)
        middle = places.mean(0)
    else:
        points = _coordinates(face, engine.size)
        height = float((points[FOREHEAD_TOP] - points[CHIN]).norm())
        middle = points[list(RIGID)].mean(0)[:2]
    views, turns = _turned(picture, _surface(engine, picture, face, middle, height), middle, height)
    depth, slope = _told(engine.keypoints([picture]), engine.keypoints(views), turns, middle)
    depth = _UNDERSEEN * depth
    count = len(engine.face.landmarks)
    if face is not None and count:
        known = points[list(engine.face.landmarks), 2] - points[list(RIGID), 2].mean()
        depth = depth - depth[:count].mean() + known.mean()
        depth[:count] = known
    slope = (_UNDERSEEN * slope).clamp(-_STEEPEST, _STEEPEST)
    return Relief(depth, slope, torch.cat([middle, torch.tensor([_PIVOT * height], dtype=torch.float64)]), height)


def _coordinates(face: Face, side: int) -> Tensor:
    """Returns the mesh in the model's coordinates, 478 x 3 float64, with depth in the same unit."""
    points = torch.from_numpy(face.landmarks.astype(np.float64))
    return torch.cat([2 * (points[:, :2] - 0.5) / (side - 1) - 1, 2 * points[:, 2:] / (side - 1)], dim=1)


def _surface(engine: Engine, picture: np.ndarray, face: Face | None, middle: Tensor, height: float) -> Tensor:
    """Returns how far behind the face's plane each pixel is, S x S float64 in heights of the face, fit for a head that turns."""
    grid = coordinate_grid(engine.size, engine.size, dtype=torch.float64)
    x, y = ((grid - middle) / height).unbind(-1)
    outward = ((x / _HEAD_WIDTH).square() + ((y + _HEAD_ABOVE) / _HEAD_HEIGHT).square()).clamp(max=1)
    round_head = torch.where(y > _NECK, _NECK_DEPTH, _HEAD_FRONT + _HEAD_DEPTH * (1 - (1 - outward).sqrt()))
    surface = round_head
    if engine.has_depth:
        nearest, farthest = engine.depth_range
        disparity = torch.from_numpy(engine.disparity([picture])[0]).double()
        learnt = 1 / (1 / farthest + (1 / nearest - 1 / farthest) * disparity)
        surface = _scaled(learnt, face, height, grid, middle)
        beside = torch.sigmoid((torch.hypot(x / _FACE_WIDTH, y / _FACE_HEIGHT) - 1) / _FADE)
        surface = surface + beside * (round_head - surface).clamp(min=0)
    return torch.from_numpy(gaussian_filter(surface.clamp(_NEAREST, _FARTHEST).numpy(), 3 * engine.size / 256))


def _scaled(learnt: Tensor, face: Face | None, height: float, grid: Tensor, middle: Tensor) -> Tensor:
    """Returns the learnt depth, whose scale is arbitrary, with the spread and the mean that the face mesh has, in heights of the face."""
    if face is None:
        near = learnt[(grid - middle).norm(dim=-1) < 0.4 * height]
        return (learnt - near.mean()) / near.std().clamp(min=1e-6) * _PLAIN_RELIEF
    points = _coordinates(face, len(learnt))
    told = sample(learnt[None, None], points[None, None, :, :2], align_corners=True, padding_mode="border")[0, 0, 0].double()
    mesh = (points[:, 2] - points[list(RIGID), 2].mean()) / height
    return (learnt - told.mean()) / told.std().clamp(min=1e-6) * mesh.std() + mesh.mean()


def _turned(picture: np.ndarray, surface: Tensor, middle: Tensor, height: float) -> tuple[list[np.ndarray], Tensor]:
    """Turns the head in the picture by its surface. Returns V pictures and their V x 3 x 3 rotations."""
    side = len(surface)
    turns = rotations(torch.from_numpy(np.stack([turn_of(yaw, pitch, 0) for yaw, pitch in _VIEWS])))
    grid = coordinate_grid(side, side, dtype=torch.float64)
    solid = torch.cat([grid - middle, height * surface[..., None]], dim=-1)
    way = torch.einsum("vij,hwj->vhwi", turns[:, :2], solid) - solid[..., :2]
    offset = (grid - middle) / torch.tensor([_REACH_X * height, _REACH_Y * height], dtype=torch.float64)
    way = way * torch.sigmoid((1 - offset.norm(dim=-1)) / _FADE)[..., None]
    field = way.permute(0, 3, 1, 2).float()
    place = grid.float().expand(len(turns), -1, -1, -1)
    for _ in range(8):  # The way leads from the photo to the view. A view's pixel comes from where the way leads to it.
        place = grid.float() - sample(field, place, align_corners=True, padding_mode="border").permute(0, 2, 3, 1)
    image = to_images(torch.from_numpy(picture.copy())[None])
    views = F.grid_sample(image.expand(len(turns), -1, -1, -1), place, mode="bilinear", padding_mode="border", align_corners=True)
    return list(to_bytes(views).numpy()), turns


def _told(home: Keypoints, seen: Keypoints, turns: Tensor, middle: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the depth, K, and the slope, K x 2, that explain best, by least squares, what became of keypoints in V turned views."""
    flat, deep = turns[:, None, :2, :2], turns[:, None, :2, 2]  # V 1 2 2 and V 1 2
    places = home.value[0].double() - middle
    off = seen.value.double() - middle - (flat @ places[:, :, None])[..., 0]
    change = seen.jacobian.double() @ inverse_2x2(home.jacobian.double()) - flat
    power = deep.square().sum()
    return (off * deep).sum((0, 2)) / power, (deep[..., None] * change).sum((0, 2)) / power


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
    return float(np.clip(np.copysign(soft(np.array(abs(angle))), angle), *RANGES["roll"]))
