"""Draws who a synthetic head is, and builds its surface at rest.

Measures of skull, face, hair and colours are drawn from ranges round those of adult heads. The surface is a loft: it is stretched over
profiles of skull, jaw and neck, and the features of a face are raised on it. It is a grid. Row r runs round the head, and rows go from the
crown down to the neck. Column c goes from the back (c = 0) over the person's right, the face (in the middle) and the left to the back
again. Eyes and mouth are closed here; `parts` slits the mesh along them.

Legend: R rows, C columns. Lengths in mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter1d

HairStyle = Literal["bald", "buzz", "short", "full", "long"]
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Identity:
    """The measures of a person. Lengths are in mm, factors are on the average head, and colours are sRGB in [0, 1]."""

    size: float
    """A factor that is drawn, but on which nothing depends."""
    width: float
    """A factor on the head's width."""
    length: float
    """A factor on the head's length from front to back."""
    jaw_width: float
    """A factor on the width of the jaw."""
    jaw_height: float
    """By how much the jaw is lower."""
    chin_forward: float
    """By how much the chin stands forward."""
    chin_width: float
    """A factor on the width of the chin."""
    forehead_slope: float
    """By how much the forehead leans back."""
    crown: float
    """By how much the crown is higher."""
    neck_width: float
    """A factor on the width of neck and shoulders."""
    cheekbone: float
    """By how much the cheekbones stand out."""
    cheek: float
    """By how much the cheeks stand out."""
    brow_ridge: float
    """By how much the ridge above the eyes stands out."""
    brow_height: float
    """By how much the brows are higher."""
    brow_thickness: float
    """Half the height of a brow."""
    brow_arch: float
    """By how much a brow rises in its middle."""
    eye_distance: float
    """The distance from the middle of the face to the middle of an eye."""
    eye_width: float
    """Half the width of an eye's opening."""
    eye_height: float
    """A factor on how far eyes open."""
    eye_depth: float
    """By how much the eyes lie deeper."""
    tilt: float
    """The rise of the outer eye corners. It is drawn, but nothing depends on it."""
    nose_length: float
    """By how much the nose is longer."""
    nose_height: float
    """A factor on how far the nose stands out."""
    nose_width: float
    """A factor on the width of the nose at its wings."""
    nose_bridge: float
    """A factor on the width of the nose along its bridge."""
    nose_hump: float
    """The strength of a hump on the nose's bridge; negative makes a hollow."""
    nose_tip: float
    """By how much the nose's tip hangs lower."""
    mouth_width: float
    """Half the width of the mouth."""
    mouth_height: float
    """By how much the mouth is lower."""
    upper_lip: float
    """A factor on the height of the upper lip."""
    lower_lip: float
    """A factor on the height of the lower lip."""
    lip_forward: float
    """A factor on how far the lips stand out."""
    ear_size: float
    """A factor on the size of the ears."""
    ear_angle: float
    """The degrees by which the ears stand off."""
    asymmetry: float
    """By how much the face bends to one side."""
    age: float
    """The strength of folds, wrinkles and hollows, in [0, 1]."""
    hair: HairStyle
    """The style of the hair."""
    hair_volume: float
    """A factor on the thickness of the hair."""
    hairline: float
    """The height of the hairline above the eyes."""
    hair_length: float
    """How far long hair reaches below the eyes."""
    beard: float
    """The density of the beard, in [0, 1]."""
    freckles: float
    """The strength of freckles, in [0, 1]."""
    skin: Colour
    lips: Colour
    iris: Colour
    hair_colour: Colour
    cloth: Colour


# Skin tones are drawn between these sRGB colours, which go from light to dark.
_SKIN = np.array([[0.93, 0.77, 0.69], [0.87, 0.68, 0.56], [0.78, 0.58, 0.44], [0.62, 0.43, 0.31], [0.43, 0.29, 0.21], [0.29, 0.20, 0.15]])
_HAIR = np.array([[0.07, 0.06, 0.06], [0.16, 0.10, 0.07], [0.30, 0.19, 0.11], [0.45, 0.29, 0.15], [0.72, 0.56, 0.34], [0.46, 0.21, 0.10],
                  [0.62, 0.61, 0.60]])  # fmt: skip
_IRIS = np.array([[0.24, 0.14, 0.08], [0.33, 0.22, 0.11], [0.30, 0.36, 0.20], [0.30, 0.45, 0.58], [0.42, 0.46, 0.48]])
_STYLES: tuple[HairStyle, ...] = ("bald", "buzz", "short", "full", "long")


def draw_identity(rng: np.random.Generator) -> Identity:
    """Draws a random person. Most measures are drawn from normal distributions and clamped to two standard deviations."""

    def about(mean: float, spread: float) -> float:
        return float(mean + spread * np.clip(rng.standard_normal(), -2, 2))

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    tone = between(0, len(_SKIN) - 1)
    skin = np.array([np.interp(tone, range(len(_SKIN)), _SKIN[:, c]) for c in range(3)]) * rng.uniform(0.94, 1.04, 3)
    redness = np.array([1.0, 0.66, 0.66]) * between(0.8, 1.0)
    dark = tone > 2.8
    hair = _HAIR[rng.integers(0, 2 if dark else len(_HAIR))] * rng.uniform(0.8, 1.2)
    iris = _IRIS[0 if dark else rng.integers(len(_IRIS))] * rng.uniform(0.85, 1.15, 3)
    style = _STYLES[rng.choice(len(_STYLES), p=[0.08, 0.14, 0.26, 0.26, 0.26])]
    return Identity(
        size=about(1, 0.03), width=about(1, 0.035), length=about(1, 0.03), jaw_width=about(1, 0.06), jaw_height=about(0, 2.5),
        chin_forward=about(0, 2.5), chin_width=about(1, 0.15), forehead_slope=about(0, 3.5), crown=about(0, 3.5),
        neck_width=about(1, 0.07), cheekbone=about(4, 1.5), cheek=about(0, 2.0), brow_ridge=about(2.5, 1.3),
        brow_height=about(0, 1.5), brow_thickness=about(3.3, 0.8), brow_arch=about(4, 1.5), eye_distance=about(31.5, 1.2),
        eye_width=about(13.2, 0.6), eye_height=about(1, 0.12), eye_depth=about(0, 1.2), tilt=about(1, 1), nose_length=about(0, 2),
        nose_height=about(1, 0.1), nose_width=about(1, 0.12), nose_bridge=about(1, 0.12), nose_hump=about(0, 0.9),
        nose_tip=about(0, 2), mouth_width=about(24.5, 1.8), mouth_height=about(0, 1.5), upper_lip=about(1, 0.22),
        lower_lip=about(1, 0.2), lip_forward=about(1, 0.25), ear_size=about(1, 0.08), ear_angle=about(26, 6),
        asymmetry=about(0, 0.8), age=between(0, 1) ** 1.5, hair=style, hair_volume=about(1, 0.3), hairline=about(66, 5),
        hair_length=between(90, 190), beard=float(rng.choice([0.0, between(0.1, 0.4), between(0.5, 1.0)], p=[0.65, 0.2, 0.15])),
        freckles=between(0, 1) ** 2, skin=_colour(skin), lips=_colour(skin * redness), iris=_colour(iris), hair_colour=_colour(hair),
        cloth=_colour(between(0.08, 0.85) + between(0.05, 0.5) * rng.uniform(-0.5, 0.5, 3)),
    )  # fmt: skip


def _colour(values: np.ndarray) -> Colour:
    red, green, blue = np.clip(values, 0.02, 0.98).tolist()
    return red, green, blue


Array = NDArray[np.float64]

COLUMNS = 129
# Each row is a profile of an average head: y and z in front, y and z at the back, half the width, and the number of grid rows up to it.
# fmt: off
_KEYS = np.array([
    # crown
    [-121.0,   4, -121,   6,  0.5,  0],
    [-115.0, -36, -112,  46, 39,    5],
    [ -98.0, -72,  -93,  75, 61.5,  6],
    [ -72.0, -92,  -64,  92, 74,   10],
    [ -44.0, -98,  -40,  98, 77.5, 12],
    # brow, eyes, cheekbones, base of the nose, mouth
    [ -20.0, -99,  -24,  98, 76.5, 13],
    [   0.0, -95.5, -8,  96, 73.5, 12],
    [  22.0, -93,    6,  90, 70.5, 13],
    [  47.0, -92.5, 20,  81, 66,   15],
    [  67.0, -93,   33,  70, 60.5, 13],
    # chin crease, chin, below the chin
    [  84.0, -90,   43,  62, 54.5, 11],
    [  99.0, -89,   51,  57, 48,   10],
    [ 110.5, -80,   57,  54, 44.5,  7],
    [ 114.0, -58,   63,  53, 46.5,  6],
    # throat, neck
    [ 110.0, -31,   73,  52, 52,    6],
    [ 134.0, -22,  102,  50, 54.5,  6],
    [ 170.0, -18,  142,  54, 58,    6],
    [ 215.0, -14,  190,  62, 66,    5],
])
# fmt: on
_BROW, _EYES, _NOSE, _MOUTH, _CHIN, _BELOW, _NECK = 5, 6, 8, 9, 11, 13, 15
ROW_OF_KEY = np.cumsum(_KEYS[:, 5]).astype(int)
ROWS = int(ROW_OF_KEY[-1]) + 1
EYE_ROW, MOUTH_ROW = int(ROW_OF_KEY[_EYES]), int(ROW_OF_KEY[_MOUTH])
CHIN_ROW, BELOW_CHIN_ROW, THROAT_ROW = int(ROW_OF_KEY[_CHIN]), int(ROW_OF_KEY[_BELOW]), int(ROW_OF_KEY[_BELOW + 1])
EYEBALL, LID = 13.4, 0.6


@dataclass(frozen=True)
class Skull:
    """The surface of a head at rest, before eyes and mouth are slit."""

    position: Array
    """R x C x 3, the surface."""
    base: Array
    """R x C x 3, the surface without the features of the face. Hair grows from it."""
    angle: Array
    """C radians round the head; 0 is in front, and positive is on the image's right."""
    eye: float
    """The y of the line of the eyes."""
    mouth: float
    """The y of the line of the mouth."""
    nose: float
    """The y of the base of the nose."""
    eyeballs: Array
    """2 x 3 centres of the eyeballs, the person's right one first."""


def bump(x: Array, y: Array, cx: float, cy: float, sx: float, sy: float) -> Array:
    """Returns a Gaussian of height 1 round (cx, cy) with standard deviations sx and sy."""
    return np.exp(-0.5 * (((x - cx) / sx) ** 2 + ((y - cy) / sy) ** 2))


def smoothstep(low: float | Array, high: float | Array, value: Array) -> Array:
    """Returns 0 below `low` and 1 above `high`, with a smooth rise between."""
    t = np.clip((value - low) / (np.asarray(high) - low), 0, 1)
    return t * t * (3 - 2 * t)


def mouth_shape(x: Array, person: Identity) -> Array:
    """Returns 1 in the middle of the mouth, less towards its corners, and 0 there and beyond."""
    return np.sqrt(np.clip(1 - (x / (person.mouth_width + 1)) ** 2, 0, 1))


def build_skull(person: Identity) -> Skull:
    """Builds the surface of a person's head at rest."""
    base, angle = _loft(person)
    middle = COLUMNS // 2
    eye, mouth, nose = (float(base[ROW_OF_KEY[k], middle, 1]) for k in (_EYES, _MOUTH, _NOSE))
    position = base.copy()
    x, y = base[..., 0], base[..., 1]
    front = smoothstep(1.75, 1.1, np.abs(angle))[None]
    position[..., 2] += front * _relief(x, y, person, eye, mouth, nose)
    outward = bump(np.abs(x), y, 51, 20, 15, 13) * person.cheekbone + bump(np.abs(x), y, 46, 54, 15, 18) * (person.cheek - 1.5 * person.age)
    position[..., 0] += front * outward * 0.6 * np.sign(x)
    position[..., 2] -= front * outward * 0.8
    tip = front * _nose_section(x, y, person, nose)
    position[..., 1] += tip * (2.0 + person.nose_tip)
    # Faces are not quite symmetric.
    position[..., 0] += front * person.asymmetry * np.sin(y / 40)
    eyeballs = np.array([[side * person.eye_distance, eye, -75.0 + person.eye_depth] for side in (-1, 1)])
    return Skull(position, base, angle, eye, mouth, nose, eyeballs)


def _loft(person: Identity) -> tuple[Array, Array]:
    keys = _KEYS.copy()
    keys[:4, [0, 2]] -= person.crown * np.array([1, 1, 0.8, 0.5])[:, None]
    keys[2:5, 1] += person.forehead_slope * np.array([1, 0.7, 0.3])
    keys[:, [1, 3]] *= person.length
    keys[:, 4] *= person.width
    keys[8:13, 4] *= np.interp(np.arange(8, 13), [8, 10, 12], [1, person.jaw_width, person.jaw_width])
    keys[11:13, 4] *= 0.5 + 0.5 * person.chin_width
    keys[10:14, 0] += person.jaw_height * np.array([0.6, 1, 1, 1])
    keys[10:13, 1] -= person.chin_forward * np.array([0.4, 1, 0.9])
    keys[8, 0] += person.nose_length
    keys[9, 0] += person.mouth_height + 0.5 * person.nose_length
    keys[14:, 4] *= person.neck_width
    rows = gaussian_filter1d(PchipInterpolator(ROW_OF_KEY, keys[:, :5])(np.arange(ROWS)), 1.5, axis=0, mode="nearest")
    rows[0, 4] = 0.5
    u = np.linspace(-1, 1, COLUMNS)
    angle = np.pi * (0.42 * u + 0.58 * u**3)
    turn = (1 - np.cos(angle)) / 2
    # Below the brow, a face is flatter in front than an ellipse.
    flat = 1 - 0.14 * bump(np.arange(ROWS, dtype=float), np.zeros(ROWS), ROW_OF_KEY[7], 0, 22, 1)
    sine = np.sign(np.sin(angle))[None] * np.abs(np.sin(angle))[None] ** flat[:, None]
    x = rows[:, 4:5] * sine
    y = rows[:, 0:1] + (rows[:, 2:3] - rows[:, 0:1]) * turn
    z = rows[:, 1:2] + (rows[:, 3:4] - rows[:, 1:2]) * turn
    return np.stack([x, y, z], -1), angle


def _nose_section(x: Array, y: Array, person: Identity, nose: float) -> Array:
    """Returns how far the nose stands out over the face, as a share of its tip's height."""
    keys = np.array([[-16, 0], [-6, 0.02], [2, 0.14], [12, 0.36], [24, 0.62], [34, 0.86], [40, 0.98], [44, 0.98], [48, 0.62], [52, 0.2],
                     [57, 0.02], [62, 0.0]])  # fmt: skip
    along = keys[:, 0] * (1 + (nose - 47) / 47)
    profile = PchipInterpolator(along, keys[:, 1])(np.clip(y, along[0], along[-1]))
    half = np.interp(y, along[[1, 2, 4, 6, 8]], np.array([8.5, 7.0, 8.5, 11.5, 13]) * person.nose_bridge * [1, 1, 1, 1, person.nose_width])
    return profile * np.exp(-np.abs(x / half) ** 2.4)


def _relief(x: Array, y: Array, person: Identity, eye: float, mouth: float, nose: float) -> Array:
    """Returns the displacement along z of all features but the cheeks. Negative stands out."""
    ax = np.abs(x)
    height = 21.5 * person.nose_height
    dz = -height * _nose_section(x, y, person, nose)
    dz -= person.nose_hump * 1.5 * bump(x, y, 0, eye + 17, 6, 8)
    wing = 15.0 * person.nose_width
    dz -= 9.0 * bump(ax, y, wing, nose - 3.5, 4.6, 5.2)
    dz += 3.5 * bump(ax, y, wing + 6.5, nose - 3, 3.5, 7)  # This is the groove beside the wing.
    dz += 4.0 * bump(ax, y, 7.0 * person.nose_width, nose + 2.2, 3.4, 2.2)  # This is a nostril.
    # Sockets and brow follow.
    d = person.eye_distance
    dz += (6.5 + person.brow_ridge) * bump(ax, y, d - 1, eye - 1, 14.5, 9.5) + 3.5 * bump(ax, y, 17, eye - 4, 5, 7)
    dz -= person.brow_ridge * (bump(ax, y, 27, eye - 17 - person.brow_height, 19, 6) + 0.5 * bump(x, y, 0, eye - 17, 10, 7))
    dz += 4 * bump(ax, y, 68, eye - 25, 12, 18)
    dz += (1.0 + 2.5 * person.age) * bump(ax, y, d - 4, eye + 17, 12, 4.5)  # This is the hollow below the eyes.
    # Muzzle, lips and chin follow.
    lip = mouth_shape(x, person)
    forward = person.lip_forward
    dz -= 5.5 * bump(x, y, 0, mouth - 2, 25, 17)
    dz -= forward * 3.4 * lip * bump(x, y, 0, mouth - 4.6 * person.upper_lip, 60, 2.9 * person.upper_lip)
    dz -= forward * 4.0 * lip * bump(x, y, 0, mouth + 5.0 * person.lower_lip, 60, 3.6 * person.lower_lip)
    dz += 4.5 * np.sqrt(lip) * bump(x, y, 0, mouth, 60, 1.5)
    dz += 2.0 * bump(ax, y, person.mouth_width + 2, mouth + 1, 3.5, 4.5)
    philtrum = (nose + 5 + mouth - 8) / 2
    dz += 1.0 * bump(x, y, 0, philtrum, 2.6, 5) - 0.8 * bump(ax, y, 5, philtrum, 2.2, 5)
    dz += 3.8 * bump(x, y, 0, mouth + 15.5, 20, 4.5) - 4.5 * bump(x, y, 0, mouth + 31, 13 * person.chin_width, 10)
    # The last term is the fold from the nose's wing to the mouth's corner.
    fold = np.interp(y, [nose - 4, mouth + 4], [wing + 5, person.mouth_width + 6])
    return dz + (0.6 + 2.2 * person.age) * np.exp(-0.5 * ((ax - fold) / 2.6) ** 2) * bump(x, y, 0, (nose + mouth) / 2, 1e3, 10)
