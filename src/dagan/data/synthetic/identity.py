"""Who a synthetic head is: measures of skull, face, hair and colours, drawn from ranges round those of adult heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

HairStyle = Literal["bald", "buzz", "short", "full", "long"]
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Identity:
    """Lengths in mm unless said otherwise; "scale" values are factors on the average head; colours are sRGB in [0, 1].

    hairline: height of the hairline above the eyes. beard: density in [0, 1]. tilt: rise of the outer eye corners.
    """

    size: float
    width: float
    length: float
    jaw_width: float
    jaw_height: float
    chin_forward: float
    chin_width: float
    forehead_slope: float
    crown: float
    neck_width: float
    cheekbone: float
    cheek: float
    brow_ridge: float
    brow_height: float
    brow_thickness: float
    brow_arch: float
    eye_distance: float
    eye_width: float
    eye_height: float
    eye_depth: float
    tilt: float
    nose_length: float
    nose_height: float
    nose_width: float
    nose_bridge: float
    nose_hump: float
    nose_tip: float
    mouth_width: float
    mouth_height: float
    upper_lip: float
    lower_lip: float
    lip_forward: float
    ear_size: float
    ear_angle: float
    asymmetry: float
    age: float
    hair: HairStyle
    hair_volume: float
    hairline: float
    hair_length: float
    beard: float
    freckles: float
    skin: Colour
    lips: Colour
    iris: Colour
    hair_colour: Colour
    cloth: Colour


# From light to dark: sRGB skin tones to draw between.
_SKIN = np.array([[0.93, 0.77, 0.69], [0.87, 0.68, 0.56], [0.78, 0.58, 0.44], [0.62, 0.43, 0.31], [0.43, 0.29, 0.21], [0.29, 0.20, 0.15]])
_HAIR = np.array([[0.07, 0.06, 0.06], [0.16, 0.10, 0.07], [0.30, 0.19, 0.11], [0.45, 0.29, 0.15], [0.72, 0.56, 0.34], [0.46, 0.21, 0.10],
                  [0.62, 0.61, 0.60]])  # fmt: skip
_IRIS = np.array([[0.24, 0.14, 0.08], [0.33, 0.22, 0.11], [0.30, 0.36, 0.20], [0.30, 0.45, 0.58], [0.42, 0.46, 0.48]])
_STYLES: tuple[HairStyle, ...] = ("bald", "buzz", "short", "full", "long")


def draw_identity(rng: np.random.Generator) -> Identity:
    """A random person. Measures are normal draws cut at two standard deviations."""

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
