"""Numbers that a face's landmarks give for its expression and its turn. They do not change when the face moves or comes nearer.

Legend: N faces. Landmarks are those of the face mesh (`dagan.media.landmarks`); "right" is the person's right.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

# `expressions` gives these numbers, in this order.
EXPRESSIONS = ("mouth", "smile", "eyes", "gaze across", "gaze up", "turn", "nod")
# These are the movements of a face that are compared, each with the numbers of EXPRESSIONS that it consists of.
MOVEMENTS = {"mouth": ("mouth",), "eyes": ("eyes",), "gaze": ("gaze across", "gaze up"), "smile": ("smile",)}
_FEWEST = 10  # Slopes over fewer frames say nothing.
_STRONGEST = 0.9  # A movement above this quantile is among the strongest tenth.
# Mesh points of each iris and of the corners of its eye, from the viewer's left to right.
_GAZING = ((468, 33, 133), (473, 362, 263))

Points = NDArray[np.floating]


def expressions(at: Callable[[int], Points]) -> NDArray[np.float32]:
    """Returns N x 7 numbers, named by EXPRESSIONS. They are NaN where places are.

    `at` gives the places of one mesh point in N faces, N x 2, x to the right and y down, in any unit.
    - mouth is the gap between the inner lips, and smile is the width of the mouth.
    - turn says how much nearer the nose is to one cheek than to the other, and nod how much nearer to the forehead than to the chin.
    - These four are relative to the height from forehead to chin.
    - eyes is the mean gap between the lids, relative to the eye's width.
    - gaze is the mean offset of the irises from the middle between the corners of the eye, relative to the eye's width.
    """

    def length(a: int, b: int) -> Points:
        return np.linalg.norm(at(a) - at(b), axis=-1)

    height = length(10, 152)
    across, up = zip(*(_gaze(at(iris), at(left), at(right)) for iris, left, right in _GAZING), strict=True)
    lids = length(159, 145) / length(33, 133) + length(386, 374) / length(362, 263)
    numbers = [
        length(13, 14) / height,
        length(61, 291) / height,
        lids / 2,
        (across[0] + across[1]) / 2,
        (up[0] + up[1]) / 2,
        (length(1, 234) - length(1, 454)) / height,
        (length(1, 10) - length(1, 152)) / height,
    ]
    return np.stack(numbers, axis=-1).astype(np.float32)


def followed(driven: Points, drawn: Points) -> dict[str, float]:
    """Measures how one face follows another. The result has "mouth_slope", "mouth_correlation", "mouth_strongest" and so on.

    `driven` and `drawn` are N x E, the first E numbers (five or more) of `expressions` for driving frames and for results. From both the
    source's numbers are subtracted. For each of MOVEMENTS there are three figures:
    - The slope is fitted by least squares through zero; 1 means that the result moves as far as the driving frame.
    - The correlation is Pearson's.
    - The strongest is the slope over the tenth of the numbers that are driven farthest.
    A figure that cannot be told, for too few frames or because nothing moves, is left out.
    """
    found: dict[str, float] = {}
    if len(driven) < _FEWEST:
        return found
    for key, numbers in MOVEMENTS.items():
        places = [EXPRESSIONS.index(number) for number in numbers]
        x, y = driven[:, places].astype(np.float64).ravel(), drawn[:, places].astype(np.float64).ravel()
        if not x.any():
            continue
        strong = np.abs(x) >= np.quantile(np.abs(x), _STRONGEST)
        found[f"{key}_slope"] = float(x @ y / (x @ x))
        found[f"{key}_strongest"] = float(x[strong] @ y[strong] / (x[strong] @ x[strong]))
        if x.std() > 0 and y.std() > 0:
            found[f"{key}_correlation"] = float(np.corrcoef(x, y)[0, 1])
    return found


def _gaze(iris: Points, left: Points, right: Points) -> tuple[Points, Points]:
    """Returns the offset of the iris from the middle of its eye, along the line of the corners and at right angles to it, both N."""
    eye = right - left
    offset = iris - (left + right) / 2
    square = np.square(eye).sum(-1)
    return (offset * eye).sum(-1) / square, (offset[..., 0] * eye[..., 1] - offset[..., 1] * eye[..., 0]) / square
