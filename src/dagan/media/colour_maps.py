"""Disparity maps made visible: a range that outliers do not stretch, and colour maps."""

from __future__ import annotations

import difflib

import numpy as np

from dagan.errors import InputError

DEFAULT_MAP = "inferno"
# The share of places left out at each end of the range: specks and the image's border must not set the contrast.
_OUTLIERS = 2.0
# Below this spread the map is flat: colouring it would only show rounding.
_LEAST_SPREAD = 1e-6


def robust_range(disparity: np.ndarray) -> tuple[float, float]:
    """(low, high): the 2nd and 98th percentile of disparities of any shape."""
    low, high = np.percentile(disparity, (_OUTLIERS, 100 - _OUTLIERS))
    return float(low), float(high)


def colour_table(name: str = DEFAULT_MAP) -> np.ndarray:
    """256 x 3 uint8 colours of a named colour map (inferno, turbo, ...). Raises InputError, with near names, for an unknown one."""
    from cmap import Colormap

    try:
        table = Colormap(name).lut(256)
    except (ValueError, TypeError):
        known = sorted(str(key) for key in Colormap.catalog().short_keys())
        near = difflib.get_close_matches(name, known, n=3)
        raise InputError(f"there is no colour map {name!r}: use {', '.join(near or ['inferno', 'turbo', 'viridis', 'gray'])}") from None
    return np.rint(np.asarray(table)[:, :3] * 255).astype(np.uint8)


def colourise(disparity: np.ndarray, low: float, high: float, table: np.ndarray) -> np.ndarray:
    """... x 3 uint8 from disparities of any shape: `low` gets the table's first colour, `high` its last."""
    scaled = (disparity - low) / max(high - low, _LEAST_SPREAD)
    return table[np.clip(np.rint(scaled * 255), 0, 255).astype(np.uint8)]
