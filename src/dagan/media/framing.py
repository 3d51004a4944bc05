"""The square that the networks are trained on: it is found round a face, cut out, and pasted back.

Training clips have one fixed square. The face, from hairline to chin, takes about half of its height, with equal room above and below,
inside the picture where possible. The figures below were measured on such clips with the face mesh.

A face's box reaches from hairline to chin, as the face mesh does, and pictures are turned to make faces upright. Angles are in radians,
clockwise as seen; the angle of a face is by how much it leans. Positions are x, y in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dagan.errors import InputError
from dagan.media.face_detector import Roi, cut, patch
from dagan.media.landmarks import CHIN, FOREHEAD_TOP, LEFT_EYE_OUTER, OUTLINE, RIGHT_EYE_OUTER, FaceLandmarker
from dagan.progress import Warn, to_stderr

# People lean their heads by up to this angle, and models are trained on that. A face that leans more was filmed or stored turned.
_NATURAL = math.radians(22.5)
# A lean this close to a quarter turn comes from a camera held sideways. An exact quarter turn moves pixels without filtering them.
_NEAR_QUARTER = math.radians(10)


def lean(landmarks: np.ndarray) -> float:
    """Returns the angle, from -pi to pi, of a face with these mesh landmarks (478 x 2, or with more columns).

    The line through the eyes and the line from forehead to chin count by their lengths, because seen from the side the eyes' line is short.
    """
    across = landmarks[LEFT_EYE_OUTER, :2] - landmarks[RIGHT_EYE_OUTER, :2]
    down = landmarks[CHIN, :2] - landmarks[FOREHEAD_TOP, :2]
    return math.atan2(float(across[1] - down[0]), float(across[0] + down[1]))


def upright_angle(angle: float) -> float:
    """Returns the angle by which to turn for a face that leans by `angle`: 0 for a natural lean, and exact quarter turns near those."""
    angle = math.remainder(angle, math.tau)
    if abs(angle) <= _NATURAL:
        return 0.0
    quarter = round(angle / (math.pi / 2)) * (math.pi / 2)
    return quarter if abs(angle - quarter) <= _NEAR_QUARTER else angle


def quarters(angle: float) -> int | None:
    """Returns the number of quarter turns, 0 to 3, that the angle is, or None where it is not a whole number of them."""
    count = angle / (math.pi / 2)
    return round(count) % 4 if abs(count - round(count)) < 1e-9 else None


@dataclass(frozen=True)
class Turn:
    """Turns a width x height picture back by `angle`, onto the smallest upright canvas that holds it."""

    angle: float
    width: int
    height: int

    @cached_property
    def size(self) -> tuple[float, float]:
        """Width and height of the canvas."""
        cos, sin = abs(math.cos(self.angle)), abs(math.sin(self.angle))
        return self.width * cos + self.height * sin, self.width * sin + self.height * cos

    def forward(self, points: np.ndarray) -> np.ndarray:
        """Maps positions (... x 2) in the picture to positions on the canvas."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        moved = points - np.array([self.width / 2, self.height / 2])
        return moved @ np.array([[cos, -sin], [sin, cos]]) + np.array(self.size) / 2

    def back(self, points: np.ndarray) -> np.ndarray:
        """Maps positions (... x 2) on the canvas to positions in the picture."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        moved = points - np.array(self.size) / 2
        return moved @ np.array([[cos, sin], [-sin, cos]]) + np.array([self.width / 2, self.height / 2])


@dataclass(frozen=True, eq=False)
class FaceBox:
    """A face in an image."""

    box: tuple[float, float, float, float]
    """Left, top, right and bottom in pixels; it reaches from hairline to chin."""
    score: float
    """How sure the landmarker is that this is a face, from 0 to 1."""
    landmarks: np.ndarray
    """478 x 3 float32, as the landmarker gives them."""

    @cached_property
    def lean(self) -> float:
        """The angle by which the face leans clockwise, in radians, from -pi to pi."""
        return lean(self.landmarks)

    @property
    def outline(self) -> np.ndarray:
        """P x 2 positions on the rim of the face mesh and on the nose. Their bounds are those of the face, however it is turned."""
        return self.landmarks[list(OUTLINE), :2]

    @property
    def height(self) -> float:
        return self.box[3] - self.box[1]

    @property
    def area(self) -> float:
        return (self.box[2] - self.box[0]) * self.height


class FaceFinder:
    """Finds the faces of an image with the landmarker. A picture with one face takes about 20 ms on one core."""

    def __init__(self, landmarker: FaceLandmarker | None = None) -> None:
        self.landmarker = landmarker or FaceLandmarker()

    def find_faces(self, image: np.ndarray, *, thorough: bool = True) -> list[FaceBox]:
        """Finds all faces of an H x W x 3 uint8 image, largest first. `thorough` spends more time where none is seen at first."""
        return [FaceBox(face.box, face.score, face.landmarks) for face in self.landmarker.detect(image, thorough=thorough)]

    def follow_face(self, image: np.ndarray, previous: FaceBox) -> FaceBox | None:
        """Finds the face of an earlier image of the same size in this one, at a third of the cost. Returns None where it is gone."""
        face = self.landmarker.look_at(image, previous.landmarks)
        return None if face is None else FaceBox(face.box, face.score, face.landmarks)


def largest_face(faces: list[FaceBox], where: str) -> FaceBox:
    """Returns the first, which is the largest, of some faces. Raises InputError, naming `where` was searched, when there are none."""
    if not faces:
        raise InputError(f"no face found in {where}: give a picture with one visible face, not too small and not turned away")
    return faces[0]


FACE_SHARE = 0.52  # The face takes this share of the side, the median of the training clips.
SHARE_SPAN = (0.41, 0.69)  # The smallest and the largest share that occur in them.
_REACH_SHARE = 0.75  # The places where the face goes may take this share of the side.
_SQUARE = 0.02  # A picture whose sides differ by less than this share is square.
_CENTRAL = 0.13  # A face whose centre is off by less than this share of the side is centred.
_FEATHER = 0.06  # A pasted picture fades in over this share of the side.


@dataclass(frozen=True)
class Framing:
    """A square region of a picture. It may reach beyond the border, where pixels are repeated."""

    center_x: float
    """The centre's position from left to right, in pixels."""
    center_y: float
    """The centre's position from top to bottom, in pixels."""
    side: float
    """The side, in pixels."""
    angle: float = 0.0
    """Radians by which the square is turned clockwise round its centre, so that a face that leans stands upright in it."""

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom, before the square is turned."""
        half = self.side / 2
        return self.center_x - half, self.center_y - half, self.center_x + half, self.center_y + half


def frame_still(image: np.ndarray, finder: FaceFinder, where: str = "the image", warn: Warn = to_stderr) -> Framing:
    """Returns the square, as in training, round the largest face of an H x W x 3 uint8 image.

    `where` is what messages call the image. Raises InputError when no face is found. `warn` is told of several faces.
    """
    faces = finder.find_faces(image)
    face = largest_face(faces, where)
    if len(faces) > 1:
        warn(f"{len(faces)} faces in {where}: the largest is used")
    turn = Turn(upright_angle(face.lean), image.shape[1], image.shape[0])
    box = bounds_of(turn.forward(face.outline))
    return turned_back(fit_box(box, box[3] - box[1], *turn.size), turn)


def bounds_of(points: np.ndarray) -> tuple[float, float, float, float]:
    """Returns left, top, right and bottom of P x 2 positions."""
    (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return left, top, right, bottom


def turned_back(framing: Framing, turn: Turn) -> Framing:
    """Turns an upright framing on a turned picture's canvas into a turned framing in the picture itself."""
    x, y = turn.back(np.array([framing.center_x, framing.center_y])).tolist()
    return Framing(x, y, framing.side, turn.angle)


def fit_box(box: tuple[float, float, float, float], face_height: float, width: float, height: float) -> Framing:
    """Returns the square for a face, or for the union of a face's boxes over time, in a width x height picture.

    The face takes `FACE_SHARE` of the side, and the union fits into the square. Where the picture is too small for that, all of its
    shorter side is used, as long as the face's share stays within what occurs in training (0.69). Only beyond that the square reaches
    over the border. A square picture that is framed already is taken as it is.
    """
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    if _is_framed(face_height, x, y, width, height):
        return Framing(width / 2, height / 2, float(min(width, height)))
    side = fit_side(face_height, max(box[3] - box[1], box[2] - box[0]), width, height)
    return Framing(keep_inside(x, side, width), keep_inside(y, side, height), side)


def fit_side(face_height: float, span: float, width: float, height: float) -> float:
    """Returns the side of the square for a face of that height whose boxes span that much, as `fit_box` says."""
    least = max(face_height / SHARE_SPAN[1], span / _REACH_SHARE)
    return max(min(face_height / FACE_SHARE, min(width, height)), least)


def _is_framed(face_height: float, x: float, y: float, width: float, height: float) -> bool:
    side = min(width, height)
    square = abs(width - height) <= _SQUARE * side
    central = abs(x - width / 2) < _CENTRAL * side and abs(y - height / 2) < _CENTRAL * side
    return square and central and SHARE_SPAN[0] <= face_height / side <= SHARE_SPAN[1]


def keep_inside(centre: float, side: float, length: float) -> float:
    """Moves the centre such that the side stays within the length, or the length within the side where it is shorter."""
    if side >= length:
        return min(max(centre, length - side / 2), side / 2)
    return min(max(centre, side / 2), length - side / 2)


def crop(image: np.ndarray, framing: Framing, size: int) -> np.ndarray:
    """Cuts out the framed square of an H x W x 3 uint8 image, as size x size x 3 uint8, and turns it upright.

    It is well filtered, whether it shrinks or grows. A picture that is framed whole and has the size already is returned as it is.
    """
    from PIL import Image

    if image.shape[:2] == (size, size) and framing == middle(size, size):
        return image
    image, framing = _quarter_turned(image, framing)
    if framing.angle:
        return cut(image, Roi(framing.center_x, framing.center_y, framing.side, framing.angle), size, cubic=True)
    left, top, right, bottom = framing.bounds
    pixels, x, y = patch(image, left, top, right, bottom)
    box = (left - x, top - y, right - x, bottom - y)
    scaled = Image.fromarray(pixels).resize((size, size), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)
    return np.asarray(scaled)


def paste(image: np.ndarray, result: np.ndarray, framing: Framing) -> np.ndarray:
    """Returns a copy of `image` with `result` (size x size x 3 uint8) put back where `crop` with `framing` took it from.

    The result is turned as the framing is. It fades in over a narrow rim, except along borders of the picture that an upright framing
    reaches.
    """
    turns = quarters(framing.angle)
    if turns is None:
        return _paste_turned(image, result, framing)
    turned, upright = _quarter_turned(image, framing)
    return np.ascontiguousarray(np.rot90(_paste_upright(turned, result, upright), -turns))


def _quarter_turned(image: np.ndarray, framing: Framing) -> tuple[np.ndarray, Framing]:
    """Turns image and framing such that the framing is upright, where exact quarter turns do that. Else both stay as they are."""
    turns = quarters(framing.angle)
    if not turns:
        return image, framing
    turn = Turn(turns * math.pi / 2, image.shape[1], image.shape[0])
    x, y = turn.forward(np.array([framing.center_x, framing.center_y])).tolist()
    return np.rot90(image, turns), Framing(x, y, framing.side)


def _paste_turned(image: np.ndarray, result: np.ndarray, framing: Framing) -> np.ndarray:
    """Does what `paste` does, for any angle."""
    from PIL import Image

    height, width = image.shape[:2]
    cos, sin = math.cos(framing.angle), math.sin(framing.angle)
    reach = framing.side / 2 * (abs(cos) + abs(sin))
    x0, y0 = max(0, math.floor(framing.center_x - reach)), max(0, math.floor(framing.center_y - reach))
    x1, y1 = min(width, math.ceil(framing.center_x + reach)), min(height, math.ceil(framing.center_y + reach))
    if x0 >= x1 or y0 >= y1:
        return image.copy()
    size = len(result)
    source = Image.fromarray(result)
    shrink = int(size / framing.side)
    if shrink > 1:
        source = source.reduce(shrink)
        size = source.width
    step = size / framing.side
    x, y = x0 - framing.center_x, y0 - framing.center_y
    matrix = (
        cos * step, sin * step, size / 2 + step * (cos * x + sin * y),
        -sin * step, cos * step, size / 2 + step * (cos * y - sin * x),
    )  # fmt: skip
    rim = _ramp(0, size, 0.51, size - 0.51, size)
    mask = Image.fromarray(np.rint(255 * rim[:, None] * rim[None, :]).astype(np.uint8))
    scaled = np.asarray(source.transform((x1 - x0, y1 - y0), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC))
    weight = np.asarray(mask.transform((x1 - x0, y1 - y0), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR))
    return _blended(image, scaled, weight[..., None].astype(np.float32) / 255, x0, y0)


def _paste_upright(image: np.ndarray, result: np.ndarray, framing: Framing) -> np.ndarray:
    from PIL import Image

    height, width = image.shape[:2]
    left, top, right, bottom = framing.bounds
    x0, y0 = max(0, int(np.floor(left))), max(0, int(np.floor(top)))
    x1, y1 = min(width, int(np.ceil(right))), min(height, int(np.ceil(bottom)))
    if x0 >= x1 or y0 >= y1:
        return image.copy()
    scale = result.shape[0] / framing.side
    box = ((x0 - left) * scale, (y0 - top) * scale, (x1 - left) * scale, (y1 - top) * scale)
    pixels, x, y = patch(result, *box)
    inside = (box[0] - x, box[1] - y, box[2] - x, box[3] - y)
    scaled = np.asarray(Image.fromarray(pixels).resize((x1 - x0, y1 - y0), Image.Resampling.BICUBIC, box=inside, reducing_gap=3.0))
    weight = _ramp(y0, y1, top, bottom, height)[:, None, None] * _ramp(x0, x1, left, right, width)[None, :, None]
    return _blended(image, scaled, weight, x0, y0)


def _blended(image: np.ndarray, over: np.ndarray, weight: np.ndarray, x: int, y: int) -> np.ndarray:
    """Returns a copy of the image with `over`, h x w x 3, laid on it at (x, y) by weights, h x w x 1, from 0 to 1."""
    pasted = image.copy()
    place = pasted[y : y + over.shape[0], x : x + over.shape[1]]
    under = place.astype(np.float32)
    place[:] = np.rint(under + (over - under) * weight).astype(np.uint8)
    return pasted


def _ramp(start: int, stop: int, low: float, high: float, length: int) -> np.ndarray:
    """Returns weights of the pixels from start to stop along one axis. They are 0 outside low..high and rise smoothly to 1 inside.

    Where low or high reach the picture's border, weights do not fall there.
    """
    position = np.arange(start, stop, dtype=np.float32) + 0.5
    feather = max(1.0, _FEATHER * (high - low))
    rise = np.ones_like(position) if low <= 0.5 else np.clip((position - low) / feather, 0, 1)
    fall = np.ones_like(position) if high >= length - 0.5 else np.clip((high - position) / feather, 0, 1)
    weight = np.minimum(rise, fall)
    return weight * weight * (3 - 2 * weight)


def inner_sides(framing: Framing, width: int, height: int) -> tuple[bool, bool, bool, bool]:
    """Says which sides of the square lie inside of a width x height picture: left, top, right, bottom, as seen in the upright square.

    Along the other sides the square ends where the picture ends, or beyond, so there is no seam. A square that is turned by no whole
    number of quarters has all of its sides inside.
    """
    turns = quarters(framing.angle)
    if turns is None:
        return True, True, True, True
    left, top, right, bottom = framing.bounds
    inside = [left > 0.5, top > 0.5, right < width - 0.5, bottom < height - 0.5]
    return tuple(inside[(i + turns) % 4] for i in range(4))  # type: ignore[return-value]


def middle(width: int, height: int) -> Framing:
    """Returns the largest square in the middle, on whole pixels, so that a square picture stays as it is."""
    side = min(width, height)
    return Framing((width - side) // 2 + side / 2, (height - side) // 2 + side / 2, side)


def to_square(picture: np.ndarray, size: int) -> np.ndarray:
    """Returns the middle of a uint8 H x W x 3 picture as uint8 size x size x 3. A picture of that size is returned as it is."""
    return crop(picture, middle(picture.shape[1], picture.shape[0]), size)
