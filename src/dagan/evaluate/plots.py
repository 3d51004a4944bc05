"""Draws the plots of the evaluation report as inline SVG.

They are not drawn with matplotlib, because two kinds of plot do not justify so large a dependency, and because only inline SVG takes its
colours and fonts from the page (light, dark, print). Lengths are in user units, and the page scales the picture. Each method has a class
m0, m1, ... whose colour the page's style sheet sets, and a marker shape of its own, so that nothing depends on colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from dagan.evaluate.statistics import Bin, Interval

WIDTH = 380
LABELS = 92  # The names of the methods have this much room.
RIGHT = 14
ROW = 34
MOST_DOTS = 200  # More pairs are thinned to so many quantiles, because a page must stay small.
_JITTER = (0.0, 0.62, -0.48, 0.25, -0.86, 0.88, -0.2, 0.45, -0.65)
# These are the points of the markers on a unit circle. The first method has a disc.
_SHAPES: tuple[Sequence[tuple[float, float]], ...] = (
    (),
    ((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)),
    ((0, -1.1), (1.05, 0.8), (-1.05, 0.8)),
    ((0, -1.2), (1.2, 0), (0, 1.2), (-1.2, 0)),
    ((0, 1.1), (1.05, -0.8), (-1.05, -0.8)),
    ((-0.4, -1.1), (0.4, -1.1), (0.4, -0.4), (1.1, -0.4), (1.1, 0.4), (0.4, 0.4), (0.4, 1.1), (-0.4, 1.1), (-0.4, 0.4), (-1.1, 0.4),
     (-1.1, -0.4), (-0.4, -0.4)),
)  # fmt: skip


@dataclass(frozen=True)
class Axis:
    """Maps numbers from low to high to user units from start to end."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)

    def ticks(self, most: int = 6) -> list[float]:
        """Returns round numbers within the axis, in steps of 1, 2 or 5 times a power of ten."""
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * (1 - 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        return [k * step for k in range(first, math.floor(self.high / step + 1e-9) + 1)]


def axis_of(values: Sequence[float], start: float, end: float) -> Axis:
    """Returns an axis for all values with a little room at its ends. It is one unit wide where there is only one value."""
    low, high = min(values), max(values)
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = (0.0, 1.0) if low == 0 else (low - 0.5, high + 0.5)
    air = 0.04 * (high - low)
    # The axis of an error does not go below 0 just to make room.
    return Axis(0.0 if low >= 0 > low - air else low - air, high + air, start, end)


def distribution(values: Mapping[str, Sequence[float]], intervals: Mapping[str, Interval | None], alt: str) -> Markup:
    """Draws one row for each method: a dot for each pair's value, a box for their middle half, and the mean with its interval.

    `values` are those of each method's pairs, in the order of rows and colours. A method may have none. The plot is empty where no method
    has any.
    """
    every = [v for row in values.values() for v in row]
    if not every:
        return Markup("")
    x = axis_of(every + [end for i in intervals.values() if i for end in (i.low, i.high)], LABELS, WIDTH - RIGHT)
    bottom = ROW * len(values) + 4
    parts = [_x_axis(x, bottom, 4)]
    for index, (method, row) in enumerate(values.items()):
        y = 4 + ROW * (index + 0.5)
        parts.append(_text(LABELS - 8, y + 4, _short(method), "end", "label"))
        if len(row):
            parts.append(Markup('<g class="m{}">{}</g>').format(index, _row(x, y, np.sort(row), intervals.get(method), index)))
    return _svg(bottom + 20, alt, parts)


def over_rotation(curves: Mapping[str, Sequence[Bin]], alt: str) -> Markup:
    """Draws the mean value over the head's rotation in degrees, a line for each method. Bars are intervals; hollow marks have none."""
    bins = [b for curve in curves.values() for b in curve]
    if not bins:
        return Markup("")
    height, left, top = 190, 52, 8
    ends = [v for b in bins for v in ((b.interval.low, b.interval.high, b.mean) if b.interval else (b.mean,))]
    x = Axis(0, max(b.rotation for b in bins) * 1.06 + 1, left, WIDTH - RIGHT)
    y = axis_of(ends, height, top)
    parts = [_x_axis(x, height, height, "head rotation from the source, degrees")]
    labels = _labels(y.ticks())
    for value, label in zip(y.ticks(), labels, strict=True):
        parts.append(Markup('<path class="grid" d="M{} {}H{}"/>').format(left, y(value), WIDTH - RIGHT))
        parts.append(_text(left - 6, y(value) + 4, label, "end", "tick"))
    middle = (len(curves) - 1) / 2
    for index, curve in enumerate(curves.values()):
        # Bars of methods with the same bins are drawn side by side.
        points = [(x(b.rotation) + 2.6 * (index - middle), y(b.mean), b) for b in curve]
        line = Markup('<path class="line" d="M{}"/>').format("L".join(f"{px:.1f} {py}" for px, py, _ in points)) if points else Markup("")
        bars = [
            Markup('<path class="bar" d="M{:.1f} {}V{}"/>').format(px, y(b.interval.low), y(b.interval.high))
            for px, _, b in points
            if b.interval
        ]
        marks = [marker(index, px, py, 3.6, hollow=b.interval is None) for px, py, b in points]
        parts.append(Markup('<g class="m{}">{}</g>').format(index, Markup("").join([line, *bars, *marks])))
    return _svg(height + 34, alt, parts)


def marker(index: int, x: float, y: float, radius: float, hollow: bool = False) -> Markup:
    """Draws the mark of method number `index`, centred at (x, y)."""
    kind = "mark hollow" if hollow else "mark"
    shape = _SHAPES[index % len(_SHAPES)]
    if not shape:
        return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}"/>').format(kind, x, y, radius)
    points = " ".join(f"{x + radius * px:.1f},{y + radius * py:.1f}" for px, py in shape)
    return Markup('<polygon class="{}" points="{}"/>').format(kind, points)


def key(index: int) -> Markup:
    """Draws a method's mark for a legend, where its name stands beside it as text."""
    return Markup('<svg class="key m{}" viewBox="0 0 14 14" width="14" height="14" aria-hidden="true">{}</svg>').format(
        index, marker(index, 7, 7, 5)
    )


def _row(x: Axis, y: float, row: np.ndarray, interval: Interval | None, index: int) -> Markup:
    low, middle, high = np.percentile(row, (25, 50, 75))
    mean = float(row.mean())
    if len(row) > MOST_DOTS:
        row = np.quantile(row, np.linspace(0, 1, MOST_DOTS))
    parts = [Markup('<rect class="box" x="{}" y="{}" width="{:.1f}" height="20"/>').format(x(low), y - 10, x(high) - x(low))]
    parts += [
        Markup('<circle class="dot" cx="{}" cy="{:.1f}" r="2"/>').format(x(v), y + 8 * _JITTER[i % len(_JITTER)]) for i, v in enumerate(row)
    ]
    parts.append(Markup('<path class="median" d="M{} {}v20"/>').format(x(middle), y - 10))
    if interval:
        parts.append(Markup('<path class="bar" d="M{} {}H{}"/>').format(x(interval.low), y, x(interval.high)))
    parts.append(marker(index, x(mean), y, 4.2))
    return Markup("").join(parts)


def _x_axis(x: Axis, bottom: float, grid_to: float, title: str = "") -> Markup:
    ticks = x.ticks()
    parts = [Markup('<path class="axis" d="M{} {}H{}"/>').format(x.start, bottom, x.end)]
    for value, label in zip(ticks, _labels(ticks), strict=True):
        parts.append(Markup('<path class="grid" d="M{} {}V{}"/>').format(x(value), grid_to, bottom + 4))
        parts.append(_text(x(value), bottom + 16, label, "middle", "tick"))
    if title:
        parts.append(_text((x.start + x.end) / 2, bottom + 30, title, "middle", "tick"))
    return Markup("").join(parts)


def _labels(ticks: Sequence[float]) -> list[str]:
    """Writes the ticks with as many digits as their step needs."""
    step = ticks[1] - ticks[0] if len(ticks) > 1 else abs(ticks[0]) if ticks and ticks[0] else 1.0
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}") for value in ticks]


def _text(x: float, y: float, text: str, anchor: str, kind: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(kind, x, y, anchor, text)


def _short(name: str, most: int = 14) -> str:
    return name if len(name) <= most else name[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _svg(height: float, alt: str, parts: Sequence[Markup]) -> Markup:
    start = Markup('<svg class="plot" viewBox="0 0 {} {:.0f}" role="img" aria-label="{}">').format(WIDTH, height, alt)
    return start + Markup("").join(parts) + Markup("</svg>")
