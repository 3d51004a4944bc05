"""What a face's landmarks say of its expression and turn, in numbers that stay when the face moves or comes nearer.

Legend: N faces; landmarks are those of the face mesh (`dagan.media.landmarks`), "right" is the person's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

# The numbers of `expressions`, in their order.
EXPRESSIONS = ("mouth", "smile", "eyes", "gaze across", "gaze up", "turn", "nod")
# Movements of a face, and which of EXPRESSIONS they are.
MOVEMENTS = {"mouth": ("mouth",), "eyes": ("eyes",), "gaze": ("gaze across", "gaze up"), "smile": ("smile",)}
_FEWEST = 10  # frames; of fewer, slopes say nothing
_STRONGEST = 0.9  # quantile above which a difference is among the strongest tenth
# Iris, and the corners of its eye from the viewer's left to right.
_GAZING = ((468, 33, 133), (473, 362, 263))

Points = NDArray[np.floating]


def expressions(at: Callable[[int], Points]) -> NDArray[np.float32]:
    """N x 7 numbers, see EXPRESSIONS; `at` gives the N x 2 places (x to the right, y down, any unit) of a mesh point.

    mouth: gap of the inner lips; smile: width of the mouth; turn, nod: how much nearer the nose is to one cheek than to the other, and
    to the forehead than to the chin; all relative to the height from forehead to chin. eyes: mean gap of the lids relative to the
    eye's width. gaze: mean offset of the irises from the middle between the corners, relative to the eye's width. NaN where places are.
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
    """How a face follows another one: "mouth_slope", "mouth_correlation", "mouth_strongest" and so on for each of MOVEMENTS.

    driven, drawn: N x E, the first E numbers of `expressions` (five or more) of driving frames and of results, both less the source's.
    Slope: least squares through zero; 1 is as far as driven. Correlation: Pearson's. Strongest: the slope over the tenth of the
    frames that are driven farthest. What cannot be told (too few frames, nothing that moves) is left out.
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
    """Offset of the iris from the middle of its eye, along the line of the corners and at right angles to it, both N."""
    eye = right - left
    offset = iris - (left + right) / 2
    square = np.square(eye).sum(-1)
    return (offset * eye).sum(-1) / square, (offset[..., 0] * eye[..., 1] - offset[..., 1] * eye[..., 0]) / square
