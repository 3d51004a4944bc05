"""Paints the colours of a synthetic head: skin with blotches, pores, freckles and beard, brows, lips, eyes, hair, cloth, and the wall.

Colours are painted in sRGB and handed out in linear light.

Legend: T side of the skin's tile in texels. Lengths in mm.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates, zoom

from dagan.synthetic.anatomy import Identity, Skull, bump, mouth_shape, smoothstep
from dagan.synthetic.mesh import Array
from dagan.synthetic.parts import hairline

Texture = NDArray[np.float32]
Noise = Callable[[Array, float], Array]

GAMMA = 2.2  # The exponent that turns sRGB values into linear light, nearly.
LASHES = np.array([0.07, 0.05, 0.05])  # The colour of lashes and nostrils.


def paint_tiles(skull: Skull, person: Identity, side: int, rng: np.random.Generator) -> dict[str, Texture]:
    """Paints all texture tiles, h x w x 3 colours in linear light, by their names. The skin's tile has the given side."""
    noise = _noise(rng)
    small = max(16, side // 4)
    tiles = {
        "skin": _skin(skull, person, side, rng, noise),
        "hair": _strands(np.array(person.hair_colour), side, rng),
        "eye": _eye(person, small, rng),
        "teeth": _teeth(small),
        "tongue": np.broadcast_to([0.55, 0.27, 0.27], (4, 4, 3)) * rng.uniform(0.9, 1.1, (4, 4, 1)),
        "lining": _lining(person),
        "ear": _ear(person, small, rng),
        "cloth": _cloth(person, side // 2, rng),
    }
    return {name: np.ascontiguousarray(np.clip(tile, 0.003, 1) ** GAMMA, np.float32) for name, tile in tiles.items()}


def paint_wall(height: int, width: int, rng: np.random.Generator) -> Texture:
    """Paints a room that does not move, height x width x 3 in linear light: a gradient, soft rectangles and lines, and grain."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    first, second = _muted(rng, 0.12, 0.85), _muted(rng, 0.12, 0.85)
    share = smoothstep(0, 1, 0.5 + rng.uniform(-0.6, 0.6) * (x - 0.5) + rng.uniform(-0.8, 0.8) * (y - 0.5))[..., None]
    wall = first * (1 - share) + (0.6 * first + 0.4 * second) * share
    for _ in range(rng.integers(5, 18)):
        cx, cy = rng.uniform(-0.1, 1.1, 2)
        sx, sy = rng.uniform(0.02, 0.3, 2)
        edge = rng.uniform(0.002, 0.02)
        inside = smoothstep(edge, -edge, np.abs(x - cx) - sx) * smoothstep(edge, -edge, np.abs(y - cy) - sy)
        colour = 0.4 * second + 0.6 * _muted(rng, 0.05, 0.95)
        wall = wall + (rng.uniform(0.3, 0.95) * inside)[..., None] * (colour - wall)
    layers = ((0.02, 0.004), (0.025, 0.03))
    grain = sum(a * _unit(gaussian_filter(rng.standard_normal((height, width)), s * width, mode="wrap")) for a, s in layers)
    wall = gaussian_filter(wall, (rng.uniform(0.0, 0.008) * width,) * 2 + (0,)) + np.asarray(grain)[..., None]
    return (np.clip(wall, 0.01, 1) ** GAMMA).astype(np.float32)


def _muted(rng: np.random.Generator, low: float, high: float) -> Array:
    """Draws a colour that is mostly grey, as rooms are."""
    return rng.uniform(low, high) + rng.uniform(0.05, 0.35) * rng.uniform(-0.5, 0.5, 3)


def _noise(rng: np.random.Generator) -> Noise:
    """Returns a function noise(points ... x 3, size) that gives smooth noise with features of `size` mm, equal at equal points.

    Its standard deviation is about 1.
    """
    volume = rng.standard_normal((32, 32, 32))

    def at(points: Array, size: float) -> Array:
        places = np.moveaxis(points / size, -1, 0).reshape(3, -1)
        # Linear interpolation lowers the standard deviation to about 0.6, which is undone.
        return map_coordinates(volume, places, order=1, mode="grid-wrap").reshape(points.shape[:-1]) / 0.6

    return at


def _unit(values: Array) -> Array:
    return (values - values.mean()) / values.std()


def _skin(skull: Skull, person: Identity, side: int, rng: np.random.Generator, noise: Noise) -> Array:
    rows, columns = skull.position.shape[:2]
    place = zoom(skull.position, (side / rows, side / columns, 1), order=1, grid_mode=False)
    angle = np.interp(np.linspace(0, columns - 1, side), np.arange(columns), skull.angle)[None].repeat(side, 0)
    x, y = place[..., 0], place[..., 1]
    ax = np.abs(x)
    front = smoothstep(1.6, 1.2, np.abs(angle))
    skin = np.array(person.skin)
    fair = skin.mean()
    colour = np.broadcast_to(skin, place.shape).copy()
    blotches = 0.5 * noise(place, 31) + 0.3 * noise(place, 13) + 0.2 * noise(place, 6)
    colour *= 1 + 0.035 * blotches[..., None] * [1.0, 1.25, 1.3]
    red = bump(ax, y, 43, 32, 13, 13) + 0.9 * bump(x, y, 0, skull.nose - 6, 11, 9)
    red += 0.4 * bump(x, y, 0, 98, 14, 8) + 0.5 * smoothstep(68, 78, ax)
    colour *= 1 - (0.10 * fair * front * red)[..., None] * [0.15, 1.0, 0.9]
    tired = bump(ax, y, person.eye_distance, 12, 13, 6) * (0.5 + person.age) + bump(ax, y, person.eye_distance, -9, 12, 5)
    colour *= 1 - 0.12 * (front * tired)[..., None] * [0.8, 1, 0.9]
    colour *= (1 + 0.022 * noise(place, 2.6) + 0.03 * noise(place, 1.3))[..., None]
    freckles = front * smoothstep(1.1, 1.9, noise(place + 99, 1.7)) * smoothstep(70, 20, y) * smoothstep(-45, -10, y)
    colour *= 1 - (0.25 * person.freckles * freckles)[..., None] * [0.7, 1, 1.2]
    for _ in range(rng.integers(2, 9)):
        spot = place[rng.integers(side // 6, side * 3 // 4), rng.integers(side // 4, side * 3 // 4)]
        colour *= 1 - (rng.uniform(0.3, 0.7) * smoothstep(rng.uniform(0.9, 2.0), 0.4, np.linalg.norm(place - spot, axis=-1)))[..., None]
    colour = _wrinkles(colour, x, y, skull, person, front)
    colour *= _cavities(skull, side)[..., None]
    colour = _lips(colour, place, x, y, skull, person, front, noise)
    colour = _hairs(colour, place, x, y, angle, skull, person, front, noise)
    nostril = front * bump(ax, y, 7.6 * person.nose_width, skull.nose + 1.6, 2.1, 1.2)
    colour = _mix(colour, LASHES, 0.8 * np.clip(1.4 * nostril, 0, 1))
    # The edges of the lids get their lashes.
    across = (ax - person.eye_distance) / person.eye_width
    lid = front * smoothstep(1.06, 0.98, np.abs(across))
    colour = _mix(colour, LASHES, lid * smoothstep(2.0, 0.9, np.abs(y - skull.eye + 0.4)) * np.where(y < skull.eye, 0.95, 0.45))
    # The neck lies in the shadow of the chin.
    return colour * (1 - 0.35 * smoothstep(104, 118, y) * smoothstep(1.9, 0.5, np.abs(angle)))[..., None]


def _wrinkles(colour: Array, x: Array, y: Array, skull: Skull, person: Identity, front: Array) -> Array:
    ax, age = np.abs(x), person.age
    wing = 15 * person.nose_width + 5
    fold = np.interp(y, [skull.nose - 4, skull.mouth + 6], [wing, person.mouth_width + 7])
    dark = (0.10 + 0.25 * age) * np.exp(-0.5 * ((ax - fold) / 1.6) ** 2) * bump(x, y, 0, (skull.nose + skull.mouth) / 2, 1e3, 11)
    for height in (-38, -46, -54):
        dark += 0.22 * age * np.exp(-0.5 * ((y - height - 2 * np.sin(x / 13)) / 0.8) ** 2) * smoothstep(48, 30, ax)
    dark += 0.2 * age * np.exp(-0.5 * ((ax - 4.5) / 0.8) ** 2) * bump(x, y, 0, -17, 1e3, 6)
    crease = np.exp(-0.5 * ((y - skull.eye + 9.5 + 0.02 * (ax - 31) ** 2) / 0.9) ** 2)
    dark += 0.16 * crease * smoothstep(15, 11, np.abs(ax - person.eye_distance))
    return colour * (1 - (front * dark)[..., None] * [0.8, 1, 1])


def _cavities(skull: Skull, side: int) -> Array:
    """Returns factors that darken the surface where it lies lower than its surroundings, because less light gets there."""
    out = -(skull.position - skull.base)[..., 2]
    low = sum(np.clip(gaussian_filter(out, s) - out, 0, 6) / 6 for s in (2.5, 6.0))
    rows, columns = out.shape
    return 1 - 0.33 * zoom(np.asarray(low), (side / rows, side / columns), order=1)


def _lips(colour: Array, place: Array, x: Array, y: Array, skull: Skull, person: Identity, front: Array, noise: Noise) -> Array:
    shape = mouth_shape(x, person)
    bow = 1 - 0.16 * np.exp(-((x / 3.5) ** 2))
    top, bottom = 7.6 * person.upper_lip * shape**1.15 * bow, 9.2 * person.lower_lip * shape**0.9
    above = skull.mouth - y
    lip = front * (shape > 0) * smoothstep(-1.0, 1.0, np.where(above > 0, top - above, bottom + above))
    tint = np.array(person.lips) * (1 + 0.05 * noise(place * [1, 0.25, 1], 1.6))[..., None] * np.where(above > 0, 0.9, 1.0)[..., None]
    colour = _mix(colour, tint, 0.85 * lip)
    within = smoothstep(1.08, 0.95, np.abs(x) / (person.mouth_width + 1)) ** 2
    return _mix(colour, np.array([0.16, 0.06, 0.06]), 0.75 * front * within * smoothstep(1.7, 0.5, np.abs(above)))


def _hairs(
    colour: Array, place: Array, x: Array, y: Array, angle: Array, skull: Skull, person: Identity, front: Array, noise: Noise
) -> Array:  # fmt: skip
    """Paints brows, beard and scalp."""
    ax = np.abs(x)
    hair = np.array(person.hair_colour)
    strands = np.clip(0.5 + 0.5 * noise(place * [1.0, 0.4, 0.4], 1.1), 0, 1)
    t = (ax - 11) / 37
    height = skull.eye - 16.5 - person.brow_height - person.brow_arch * np.clip(1 - ((t - 0.55) / 0.55) ** 2, -0.6, 1)
    thick = person.brow_thickness * np.interp(t, [0, 0.3, 0.7, 1], [0.8, 1, 0.85, 0.25])
    brow = front * smoothstep(thick + 0.8, thick - 1.2, np.abs(y - height)) * smoothstep(-0.04, 0.05, t) * smoothstep(1.05, 0.9, t)
    colour = _mix(colour, hair * 0.75, brow * (0.45 + 0.5 * strands))
    if person.beard:
        cheeks = smoothstep(skull.mouth - 18, skull.mouth + 4, y + 0.25 * (50 - ax)) * smoothstep(120, 108, y)
        lip = mouth_shape(x, person)
        bare = (lip > 0) & (y > skull.mouth - 8 * person.upper_lip * lip) & (y < skull.mouth + 9.5 * person.lower_lip * lip)
        moustache = bump(x, y, 0, skull.mouth - 10, 18, 4)
        area = front * np.clip(cheeks * smoothstep(20, 34, ax + np.clip(y - skull.mouth - 8, 0, 40)) + moustache, 0, 1) * ~bare
        colour = _mix(colour, hair * 0.8, gaussian_filter(area, 1.5) * person.beard * (0.35 + 0.6 * strands))
    scalp = smoothstep(-2, 5, hairline(angle, person) - y)
    return _mix(colour, hair * 0.8, scalp * (0.25 if person.hair == "bald" else 0.9) * (0.6 + 0.4 * strands))


def _mix(colour: Array, other: Array, share: Array) -> Array:
    return colour + share[..., None] * (other - colour)


def _strands(colour: Array, side: int, rng: np.random.Generator) -> Array:
    """Paints strands of hair as streaks along v, from the crown down."""
    layers = ((0.8, 0.5), (2.0, 0.6), (6.0, 0.5))
    waves = sum(_unit(gaussian_filter(rng.standard_normal((side, side)), (s * 14, s), mode="wrap")) * a for s, a in layers)
    return colour * np.clip(1 + 0.24 * np.asarray(waves), 0.3, 2.2)[..., None] + 0.012


def _eye(person: Identity, side: int, rng: np.random.Generator) -> Array:
    """Paints an eye. The pupil is in the tile's middle; u spans 3.8 radians of the eyeball and v spans 2.9 (see `parts`)."""
    u, v = np.meshgrid(np.linspace(-1.9, 1.9, side), np.linspace(-1.45, 1.45, side))
    away = np.hypot(u, v)
    rays = 1 + 0.18 * np.interp(np.arctan2(v, u), np.linspace(-np.pi, np.pi, 90), rng.standard_normal(90))
    veins = np.clip(gaussian_filter(rng.standard_normal((side, side)), 1.2) * 3, 0, 1)
    white = np.array([0.86, 0.83, 0.80]) * (1 - 0.2 * smoothstep(0.6, 1.3, away)[..., None] * [0.3, 1, 1] * (0.6 + 0.4 * veins[..., None]))
    iris = np.array(person.iris) * (rays * np.interp(away, [0.15, 0.3, 0.44], [0.75, 1.25, 0.6]))[..., None]
    soft = 3.8 / side
    colour = _mix(white, iris, smoothstep(0.455 + soft, 0.455 - soft, away))
    colour = _mix(colour, np.full(3, 0.02), smoothstep(0.19 + soft, 0.19 - soft, away))
    # The upper lid casts a shadow on the ball.
    return colour * (1 - 0.5 * smoothstep(-0.08, -0.4, v))[..., None]


def _teeth(side: int) -> Array:
    u = np.linspace(-4.5, 4.5, side)
    gap = np.exp(-(((np.abs(u - np.rint(u)) - 0.5) / 0.05) ** 2))
    shade = (1 - 0.45 * gap) * (1 - 0.08 * u**2 / 4)
    v = np.linspace(0, 1, side)[:, None]
    return (shade[None] * (1 - 0.12 * v))[..., None] * np.array([0.86, 0.82, 0.74])


def _lining(person: Identity) -> Array:
    lip, deep = np.array(person.lips) * 0.8, np.array([0.10, 0.03, 0.03])
    share = np.array([0.0, 0.45, 0.85, 1, 1, 1, 0.8, 0.4, 0.0])[:, None, None]
    return np.broadcast_to(lip * (1 - share) + deep * share, (len(share), 4, 3)).copy()


def _ear(person: Identity, side: int, rng: np.random.Generator) -> Array:
    """Paints an ear. The tile's rows are the ear's rings, from the hollow outwards."""
    ring = np.linspace(0.02, 1.12, side)[:, None]
    shade = np.interp(ring, [0, 0.3, 0.5, 0.6, 0.72, 0.86, 1.12], [0.45, 0.6, 0.85, 1.0, 0.72, 1.0, 0.85])
    grain = 1 + 0.03 * _unit(gaussian_filter(rng.standard_normal((side, side)), 2))
    return (shade * grain)[..., None] * np.array(person.skin) * [1.0, 0.92, 0.92]


def _cloth(person: Identity, side: int, rng: np.random.Generator) -> Array:
    u, v = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side))
    colour = np.broadcast_to(np.array(person.cloth), (side, side, 3)).copy()
    kind = rng.integers(4)
    count = rng.integers(12, 40)
    if kind == 1:
        colour *= (1 - 0.35 * (np.sin(2 * np.pi * count * u) > 0))[..., None]
    elif kind == 2:
        colour *= (1 - 0.25 * (np.sin(2 * np.pi * count * u) > 0.3) - 0.25 * (np.sin(np.pi * count * v) > 0.3))[..., None]
    folds = _unit(gaussian_filter(rng.standard_normal((side, side)), side / 40, mode="wrap"))
    weave = rng.standard_normal((side, side))
    return colour * np.clip(1 + 0.1 * folds + 0.05 * weave, 0.3, 1.6)[..., None]
