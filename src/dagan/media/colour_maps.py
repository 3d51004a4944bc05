"""Makes disparity maps visible: it finds a range that outliers do not stretch, and applies a colour map."""

from __future__ import annotations

import difflib

import numpy as np

from dagan.errors import InputError

DEFAULT_MAP = "inferno"
# This percentage of places is left out at each end of the range, so that specks and the image's border do not set the contrast.
_OUTLIERS = 2.0
# A map with a smaller spread is flat. Stretching its colours would only show rounding.
_LEAST_SPREAD = 1e-6


def robust_range(disparity: np.ndarray) -> tuple[float, float]:
    """Returns (low, high), the 2nd and the 98th percentile of disparities of any shape."""
    low, high = np.percentile(disparity, (_OUTLIERS, 100 - _OUTLIERS))
    return float(low), float(high)


def colour_table(name: str = DEFAULT_MAP) -> np.ndarray:
    """Returns 256 x 3 uint8 colours of a named colour map, such as inferno or turbo.

    Raises InputError for an unknown one, and names similar ones.
    """
    from cmap import Colormap

    try:
        table = Colormap(name).lut(256)
    except (ValueError, TypeError):
        known = sorted(str(key) for key in Colormap.catalog().short_keys())
        near = difflib.get_close_matches(name, known, n=3)
        raise InputError(f"there is no colour map {name!r}: use {', '.join(near or ['inferno', 'turbo', 'viridis', 'gray'])}") from None
    return np.rint(np.asarray(table)[:, :3] * 255).astype(np.uint8)


def colourise(disparity: np.ndarray, low: float, high: float, table: np.ndarray) -> np.ndarray:
    """Colours disparities of any shape as ... x 3 uint8: `low` gets the table's first colour and `high` its last."""
    scaled = (disparity - low) / max(high - low, _LEAST_SPREAD)
    return table[np.clip(np.rint(scaled * 255), 0, 255).astype(np.uint8)]
