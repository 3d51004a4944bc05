"""What raw videos are made into clips by: every setting of `dagan prepare`, and every reason for which a piece of video is left out."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Gt, Le

from dagan.checks import Checked, Share, ShareBelowOne, Side, require

# Each reason for which something is left out, with what it means. The report lists them in this order.
REASONS = {
    "missing": "the list names a video that is not there",
    "duplicate": "another raw video has the same contents",
    "unreadable": "the file is no video that can be decoded",
    "black": "the shot is black",
    "no face": "no face is seen",
    "too short": "the face is in place for less time than --shortest",
    "too small": "the face is lower than --min-face pixels, from hairline to chin",
    "edge": "no square that lies inside the picture holds the face as training wants it",
    "second face": "another face reaches into the square",
    "dark": "the face is too dark to be seen",
    "still": "it is a photo or a slide: the face's parts do not move against each other",
    "blurred": "the face is blurred",
    "overlay": "a caption or a logo lies over the face: edges stand still there while the face moves",
    "occluded": "something passes in front of the face",
    "failed": "an error that was not foreseen stopped it; the next run tries again",
}
_FACE_SHARE = 98 / 256  # The lowest face of the data that models were trained on, as a share of the clips' side.
Seconds = Annotated[float, Gt(0), Le(3600)]


@dataclass(frozen=True, kw_only=True)
class PrepareOptions(Checked):
    """How clips are made. Two runs with equal options give equal clips."""

    size: Side = 256
    """The side of the clips in pixels."""
    rate: Fraction | None = None
    """The frames a second of the clips; None keeps the frames and times of the raw video."""
    shortest: Seconds = 1.2
    """Shorter clips are left out."""
    longest: Seconds = 12.0
    """Longer pieces are divided into clips of at most so many seconds."""
    min_face: Annotated[float, Gt(0), Le(4096)] | None = None
    """A face must be so many pixels high in the raw video, from hairline to chin. None is 98 for clips of 256, and in proportion."""
    filters: bool = True
    """Whether blurred, dark, still, covered and occluded faces are left out. Size, place and length are always judged."""
    identity: Path | None = None
    """A face recognition network (ONNX) that tells people apart; None takes each raw video for one person."""
    hold_out: ShareBelowOne = 0.0
    """The share of identities that is set aside for testing."""
    same: Share = 0.6
    """Clips whose faces are at least so similar (cosine of embeddings) show one person."""
    leak: Share = 0.45
    """Nobody set aside for testing may be so similar to anybody trained on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.shortest < self.longest, "longest", self.longest, f"must be above shortest, {self.shortest}")
        require(self.leak <= self.same, "leak", self.leak, f"must be at most same, {self.same}")

    @property
    def least_face(self) -> float:
        """The lowest face in pixels of the raw video."""
        return _FACE_SHARE * self.size if self.min_face is None else self.min_face

    def of_clips(self) -> dict[str, Any]:
        """Returns what the clips themselves depend on, as plain values. Split and thresholds between people may change without them."""
        return {
            "size": self.size, "rate": None if self.rate is None else str(self.rate), "shortest": self.shortest, "longest": self.longest,
            "min_face": self.least_face, "filters": self.filters,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """A piece of a raw video that became no clip."""

    reason: str
    """One of REASONS."""
    start: float = 0.0
    """The second at which it begins."""
    end: float = 0.0
    """The second at which it ends."""
    found: str = ""
    """What was measured, and what it had to be, in words."""
    picture: str = ""
    """The file of four frames of it; empty where there is none."""
