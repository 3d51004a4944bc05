"""How drawings become pictures of the output: in the source picture's own detail, with still borders and backgrounds, or cut out.

A model draws small pictures. What it drew by moving the source can be had in any size, because the motion says where each place of the
result looks in the source, and the source picture may be larger than what the model sees. So the large source is moved along the motion.
Its fine detail is added where the moved source, made small, agrees with what the model drew; elsewhere (inside a mouth, behind a turned
head) the drawing itself is enlarged. This needs no weights of its own and serves every model and runtime.

Measured on 32 frames of 512 x 512 of synthetic heads that move a lot, LPIPS to the true frames is 0.53 of that of enlarged drawings.

A soft matte tells the person in the source picture from what is behind. The learnt depth shows the head as a near, blurred blob, and the
landmarks show the face and where the neck must be. Both give places that surely belong to the person, and places that surely do not.
Between them a random walk over similar colours decides, so that the matte's edge follows the picture's.

Legend: N frames, S side of the model's images, T side of the output's pictures, h w motion size.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dagan.engine.base import Drawing, EncodedSource, Engine, to_images
from dagan.errors import InputError
from dagan.geometry import sample
from dagan.media.framing import Framing, inner_sides
from dagan.media.landmarks import OUTLINE, Face

LARGEST_SIDE = 4096  # Pixels. No video player shows larger squares.
_DISAGREEING = 0.1  # Where drawing and moved source differ by this much of the range, 1 / e of the detail is left.
_NEARBY = 5  # Pixels of the model's images. Agreement is judged over squares of this side.
_STILL, _MOVING = 0.01, 0.17  # Shares of the side. At held borders motion sets in between these distances from the border.
_UNDRAWN, _DRAWN = 0.12, 0.2  # Shares of the side. Nearer than the first the source itself is moved, and nothing is drawn.
# Shares of the side. What stays still keeps these distances from the head and, below the chin, from the body, or else outlines stay behind.
_SPREAD, _BODY_SPREAD = 0.012, 0.04
_LEAST_FIT = 0.01  # Where colours are right within this share, they are left alone.


@dataclass(frozen=True)
class Matte:
    """Where the person is in the source's square."""

    person: np.ndarray
    """S x S float32 in [0, 1], 1 where the person is."""
    chin: float
    """The row in which the face ends, in pixels. Below it the edge is uncertain, because collars can look like walls."""


@dataclass(frozen=True, kw_only=True)
class Finish:
    """How drawings become pictures of the output."""

    size: int | Literal["photo"] | None = None
    """The side of the pictures in pixels, at least the model's. photo is that of the source picture's own detail; None is the model's."""
    longest: int = 1920
    """With photo, the side is at most so many pixels."""
    hold_border: bool = False
    """Whether pictures equal the source picture along their border, as far as that lies inside of the whole photo."""
    still_background: bool = False
    """Whether what is behind the head is the source picture's own and does not move."""
    cutout: bool = False
    """Whether pictures have a fourth channel that says where the person is: 255 where opaque, 0 where nothing is."""

    @property
    def is_plain(self) -> bool:
        """Says whether pictures are those that the model draws."""
        return self == replace(Finish(), longest=self.longest)

    @property
    def needs_matte(self) -> bool:
        """Says whether it must be known where the person is in the source picture."""
        return self.still_background or self.cutout

    def side(self, framing: Framing, model_size: int) -> int:
        """Returns the side T for a source that was framed so. Raises InputError for a side below the model's or above 4096 pixels."""
        if self.size is None:
            return model_size
        if self.size == "photo":
            return max(model_size, 2 * round(min(framing.side, self.longest) / 2))
        if not model_size <= self.size <= LARGEST_SIDE:
            raise InputError(f"--size is {self.size} pixels: must be from {model_size}, which the model draws, to {LARGEST_SIDE}, or photo")
        return self.size


def parse_size(text: str | None) -> int | Literal["photo"] | None:
    """Reads a size such as 512 or photo. Raises InputError for anything else; odd sides are refused, because videos have none."""
    if text is None or text == "photo":
        return text  # type: ignore[return-value]
    if not text.isascii() or not text.isdigit() or int(text) % 2:
        raise InputError(f"--size is {text!r}: must be an even number of pixels, such as 512 or 1024, or photo")
    return int(text)


class Finisher:
    """Turns drawings of one source into pictures of the output (docs/method.md#size-and-seams).

    Args:
        picture: This is the source's square in the wanted size, T x T x 3 uint8.
        framing: This says where in the whole photo, which is `whole` = (width, height) pixels, the square lies.
        matte: This says where the person is in the square. It is needed for still backgrounds and cutouts.
    """

    def __init__(
        self, engine: Engine, source: EncodedSource, picture: np.ndarray, finish: Finish, framing: Framing, whole: tuple[int, int],
        matte: Matte | None = None,
    ) -> None:  # fmt: skip
        self._align, self._size, self._side, self._finish = engine.align_corners, engine.size, len(picture), finish
        rest = engine.draw(source, source.keypoints)
        device = rest.images.device
        self._source = to_images(torch.from_numpy(picture[None].copy())).contiguous().to(device)
        theta = torch.eye(2, 3, device=device)[None]
        grid = F.affine_grid(theta, [1, 1, self._side, self._side], align_corners=self._align)
        self._identity = grid.permute(0, 3, 1, 2).contiguous()
        self._colours = _fit(rest.images, self._reduced(self._source))
        self._moving: Tensor | None = None
        self._drawn: Tensor | None = None
        if finish.hold_border and any(inner := inner_sides(framing, *whole)):
            self._moving = _rise(self._side, inner, _STILL, _MOVING).to(device)
            self._drawn = _rise(self._size, inner, _UNDRAWN, _DRAWN).to(device)
        self._matte: Tensor | None = None
        self._spread: Tensor | None = None
        if finish.needs_matte:
            assert matte is not None
            self._matte = torch.from_numpy(matte.person)[None, None].to(device)
            self._spread = _spread(self._matte, matte.chin)

    def __call__(self, drawing: Drawing) -> np.ndarray:
        """Returns N x T x T x 3 uint8, or N x T x T x 4 for cutouts. Frames are made one by one, so that memory stays small."""
        frames = [self._one(image[None], motion[None]) for image, motion in zip(drawing.images, drawing.deformation, strict=True)]
        return torch.stack(frames).cpu().numpy()

    def _one(self, result: Tensor, deformation: Tensor) -> Tensor:
        planes = self._enlarged(deformation.permute(0, 3, 1, 2))
        if self._moving is not None:
            planes = torch.lerp(self._identity, planes, self._moving)
        grid = planes.permute(0, 2, 3, 1)
        moved = sample(self._source, grid, align_corners=self._align, padding_mode="border")
        low = self._reduced(moved)
        if self._colours is not None:
            result = torch.addcmul(self._colours[1], result, self._colours[0])
        weight = _agreement(result, low)
        drawn = result - weight * low
        if self._drawn is not None:
            drawn, weight = drawn * self._drawn, 1 - self._drawn * (1 - weight)
        still: Tensor | None = None
        if self._finish.still_background and self._spread is not None:
            shown = torch.maximum(self._spread, self._seen(self._spread, deformation))
            drawn, weight, still = drawn * shown, weight * shown, 1 - shown
        picture = torch.addcmul(self._enlarged(drawn, "bicubic"), self._enlarged(weight), moved)
        if still is not None:
            picture = torch.addcmul(picture, self._enlarged(still), self._source)
        if self._finish.cutout and self._matte is not None:
            picture = torch.cat([picture, sample(self._matte, grid, align_corners=self._align)], dim=1)
        return torch.add(0.5, picture, alpha=255).clamp_(0, 255).to(torch.uint8)[0].permute(1, 2, 0).contiguous()

    def _seen(self, matte: Tensor, deformation: Tensor) -> Tensor:
        """Returns the matte, 1 x 1 x S x S, moved along the motion."""
        planes = F.interpolate(deformation.permute(0, 3, 1, 2), size=matte.shape[-2:], mode="bilinear", align_corners=self._align)
        return sample(matte, planes.permute(0, 2, 3, 1), align_corners=self._align, padding_mode="border")

    def _enlarged(self, maps: Tensor, mode: str = "bilinear") -> Tensor:
        """Enlarges maps or a motion, 1 x C x h x w, to T x T. A motion's corners are those of the model's grid."""
        if maps.shape[-1] == self._side:
            return maps
        aligned = self._align and maps.shape[1] == 2
        # PyTorch's bicubic filter with antialiasing is slightly softer where a map grows, and on CPUs it takes less than half of the time.
        quicker = mode == "bicubic" and maps.device.type == "cpu"
        return F.interpolate(maps, size=(self._side, self._side), mode=mode, align_corners=aligned, antialias=quicker)

    def _reduced(self, picture: Tensor) -> Tensor:
        """Makes a picture, 1 x 3 x T x T, as small as the model's, well filtered."""
        if self._side == self._size:
            return picture
        if self._side % self._size == 0:
            return F.avg_pool2d(picture, self._side // self._size)
        return F.interpolate(picture, size=(self._size, self._size), mode="bilinear", antialias=True, align_corners=False)


def _agreement(result: Tensor, low: Tensor) -> Tensor:
    """Says where a drawing, 1 x 3 x S x S, agrees with the moved source: 1 x 1 x S x S in (0, 1]."""
    difference = (result - low).abs().mean(1, keepdim=True)
    nearby = F.avg_pool2d(difference, _NEARBY, stride=1, padding=_NEARBY // 2, count_include_pad=False)
    return torch.exp(-(nearby / _DISAGREEING).square())


def _fit(rest: Tensor, source: Tensor) -> tuple[Tensor, Tensor] | None:
    """Returns factors and offsets, 1 x 3 x 1 x 1, that give a drawing of the source at rest the source's own colours.

    Models may tint what they draw. In a whole photo that would show as a square. Returns None where colours are right already.
    """
    x, y = rest.flatten(2)[0], source.flatten(2)[0]
    middle = x.mean(1, keepdim=True)
    spread = ((x - middle) ** 2).mean(1, keepdim=True)
    factor = (((x - middle) * (y - y.mean(1, keepdim=True))).mean(1, keepdim=True) / spread.clamp(min=1e-6)).clamp(0.8, 1.25)
    offset = y.mean(1, keepdim=True) - factor * middle
    if bool(((factor - 1).abs() < _LEAST_FIT).all() and (offset.abs() < _LEAST_FIT).all()):
        return None
    return factor.view(1, 3, 1, 1), offset.view(1, 3, 1, 1)


def _rise(side: int, inner: tuple[bool, bool, bool, bool], start: float, stop: float) -> Tensor:
    """Returns side x side weights that rise from 0 at `start` to 1 at `stop`, shares of the side, from borders that are held.

    `inner` names these borders: left, top, right, bottom.
    """
    left, top, right, bottom = inner
    place = (torch.arange(side) + 0.5) / side

    def line(first: bool, last: bool) -> Tensor:
        distance = torch.minimum(place if first else torch.ones(side), 1 - place if last else torch.ones(side))
        share = ((distance - start) / (stop - start)).clamp(0, 1)
        return share * share * (3 - 2 * share)

    return line(top, bottom)[:, None] * line(left, right)[None, :]


def _spread(matte: Tensor, chin: float) -> Tensor:
    """Widens a matte, 1 x 1 x S x S, and softens its edge, so that moved hair has room in it. Below the row `chin` it widens more."""

    def widened(share: float) -> Tensor:
        reach = max(1, round(share * matte.shape[-1] / 2))
        wide = F.max_pool2d(matte, 4 * reach + 1, stride=1, padding=2 * reach)  # The softening below takes back half of this.
        return F.avg_pool2d(wide, 2 * reach + 1, stride=1, padding=reach, count_include_pad=False)

    rows = torch.arange(matte.shape[-1], device=matte.device)[:, None]
    # The wider margin sets in over as many rows as it is wide, so that there is no step in it.
    below = (0.5 + (rows - chin) / (_BODY_SPREAD * matte.shape[-1])).clamp(0, 1)
    return torch.lerp(widened(_SPREAD), widened(_BODY_SPREAD), below)


_WALK_SIDE = 128  # The walk works at this size, where it takes a quarter of a second; four times as many places take ten times as long.
_EDGES = 300.0  # So strongly differences of colour keep the walk from crossing.
# Nearness is 0 at the far depth and 1 at the face's.
_HEAD = 0.72  # What is nearer than this is head, up to a face's width beside the face's middle.
_BEHIND = 0.25  # What is less near than this is background, wherever it is.
_ASIDE = 0.6  # What is less near than this is background at a whole face's width beside the head.
_SKULL = (1.3, 1.25)  # The skull with its hair is so much wider and higher than the face.
_EDGE = 0.45  # Inside of the skull, what is nearer than this is head.
_TEMPLES = (234, 454)  # The ears begin at these mesh points.
_EAR = (0.15, 0.2)  # An ear reaches around its mesh point by these shares of the face's width and height.
_FACE_POINTS = len(OUTLINE) - 2  # The last two points of the outline are on the nose.
_PERSON, _BACKGROUND = 1, 2


def find_matte(picture: np.ndarray, disparity: np.ndarray | None, face: Face | None) -> Matte:
    """Tells the person from what is behind in the source's square, S x S x 3 uint8.

    `disparity` is its S x S depth map, None for models without one. Raises InputError without a face, because then it is not known where
    the person is.
    """
    from PIL import Image
    from skimage.color import rgb2lab
    from skimage.segmentation import random_walker

    if face is None:
        raise InputError("no face found in the source picture, so the person cannot be told from the background: leave that option out")
    size, chin = len(picture), float(face.landmarks[:, 1].max())
    small = np.asarray(Image.fromarray(picture).resize((_WALK_SIDE, _WALK_SIDE), Image.Resampling.BOX))
    near = None if disparity is None else np.asarray(Image.fromarray(disparity).resize((_WALK_SIDE, _WALK_SIDE), Image.Resampling.BOX))
    seeds = _seeds(face.landmarks[:, :2] * (_WALK_SIDE / size), near)
    if _BACKGROUND not in seeds:  # The person fills the picture.
        return Matte(np.ones((size, size), np.float32), chin)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Without further libraries the solver is not the fastest, and says so.
        shares = random_walker(rgb2lab(small) / 50, seeds, beta=_EDGES, mode="cg_j", channel_axis=-1, return_full_prob=True, prob_tol=1)
    # Half a chance is the edge. A steeper rise there leaves no veil over what the walk is unsure of.
    edge = np.clip((shares[0].astype(np.float32) - 0.25) / 0.5, 0, 1)
    edge = edge * edge * (3 - 2 * edge)
    return Matte(np.clip(np.asarray(Image.fromarray(edge).resize((size, size), Image.Resampling.BICUBIC)), 0, 1), chin)


def _seeds(points: np.ndarray, near: np.ndarray | None) -> np.ndarray:
    """Returns _WALK_SIDE x _WALK_SIDE integers that mark sure places. `points` are the face's landmarks in pixels of that size."""
    from PIL import Image, ImageDraw
    from scipy.ndimage import binary_erosion, distance_transform_edt

    (left, top), (right, chin) = points.min(axis=0), points.max(axis=0)
    width, middle = right - left, (left + right) / 2
    outline = points[list(OUTLINE[:_FACE_POINTS])]

    def filled(corners: np.ndarray) -> np.ndarray:
        drawn = Image.new("L", (_WALK_SIDE, _WALK_SIDE))
        ImageDraw.Draw(drawn).polygon([tuple(point) for point in corners.tolist()], fill=1)
        return np.asarray(drawn) > 0

    face, skull = filled(outline), filled((outline - (middle, chin)) * _SKULL + (middle, chin))
    y, x = np.mgrid[:_WALK_SIDE, :_WALK_SIDE] + 0.5
    ears = np.zeros_like(face)
    for temple in points[list(_TEMPLES)]:
        ears |= np.hypot((x - temple[0]) / (_EAR[0] * width), (y - temple[1]) / (_EAR[1] * (chin - top))) < 1
    if near is None or not face.any():
        nearness = np.where(face, 1.0, 0.0)
    else:
        far = np.percentile(near, 5)
        nearness = (near - far) / max(float(np.median(near[face]) - far), 1e-6)
    head = face | ears | (skull & (nearness > _EDGE)) | ((nearness > _HEAD) & (y < chin) & (np.abs(x - middle) < width))
    below = y - chin
    # The neck is under the chin, and shoulders spread from a third of a face's width below it.
    body = (below > -0.05 * (chin - top)) & (np.abs(x - middle) < 0.28 * width + 2 * np.maximum(below - 0.3 * width, 0))
    away = distance_transform_edt(~(head | body)) / max(width, 1.0)
    least = 0.25 if near is not None else 0.45  # Without depth nobody knows how far the hair goes.
    behind = (away > least) & (below < -0.1 * (chin - top)) & (nearness < _BEHIND + (_ASIDE - _BEHIND) * np.clip(away, 0, 1))
    seeds = np.zeros((_WALK_SIDE, _WALK_SIDE), np.int64)
    seeds[behind] = _BACKGROUND
    seeds[binary_erosion(head) | body] = _PERSON
    return seeds
