"""How training data are found, stored, drawn and augmented; the `data`, `sampling` and `augment` parts of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, MultipleOf

from dagan.checks import Checked, Share, ShareBelowOne, require

Storage = Literal["memory", "device", "disk"]
Balance = Literal["identity", "clip", "seconds"]
# A gap of more frames than any clip has would only ever be cut to what fits.
Gap = Annotated[int, Ge(1), Le(100_000)]
Zoom = Annotated[float, Gt(0), Le(100)]


@dataclass(frozen=True, kw_only=True)
class DataConfig(Checked):
    """Where the clips are and how they are kept.

    train: folder of clips (video files, or folders of images, nested as you like); portraits: folder of still pictures.
    Relative paths start at the working directory. size: side in pixels of the square frames.
    storage: "memory" (decoded once, 3 size^2 bytes a frame), "device" (the same on the accelerator), "disk" (decoded
    when drawn, by `workers` threads; for data larger than memory).
    hold_out: share of the identities kept for validation; balance: what is drawn evenly.
    cache: folder in which decoded frames (and landmarks) are kept between runs; None decodes at every start.
    landmarks: find eyelids and lips in all frames, for stage 2's guided keypoints.
    """

    train: Path
    portraits: Path | None = None
    size: Annotated[int, Ge(32), Le(4096), MultipleOf(32)] = 256
    storage: Storage = "memory"
    hold_out: ShareBelowOne = 0.1
    balance: Balance = "identity"
    cache: Path | None = None
    workers: Annotated[int, Ge(0), Le(1024)] = 4
    landmarks: bool = False



@dataclass(frozen=True, kw_only=True)
class TripletConfig(Checked):
    """Stage 1: frames (t - g, t, t + g). gap: smallest and largest g, in frames; clips too short for g take what fits.

    min_motion: mean absolute difference (0 to 1) that the middle of neighbouring frames should reach; 0 takes any.
    """

    gap: tuple[Gap, Gap] = (1, 1)
    min_motion: ShareBelowOne = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.gap[0] <= self.gap[1], "sampling gap", list(self.gap), "must be [smallest, largest]")


@dataclass(frozen=True, kw_only=True)
class PairConfig(Checked):
    """Stage 2: (source, driving) frames of one clip.

    still: probability of a still pair instead: one picture under two independent random motions, so that identities
    known from a single portrait are trained on too. portrait: share of still pairs taken from the portraits, if there are any.
    affine_sigma, tps_sigma: size of those motions (see ThinPlateTransform).
    expressive: share of the other pairs whose driving frame is the one of several that differs most from the source in a measure
    drawn at random (mouth, smile, eyes, gaze, turn, nod; needs data.landmarks): two random frames seldom do.
    lively: share of the pairs whose clip is drawn by how much its face moves in the same measures, beside the balance of data.balance.
    """

    still: Share = 0.0
    portrait: Share = 0.5
    affine_sigma: Share = 0.06
    tps_sigma: Share = 0.008
    expressive: Share = 0.0
    lively: Share = 0.0



@dataclass(frozen=True, kw_only=True)
class AugmentConfig(Checked):
    """Random changes, drawn once per sample and applied to all its frames. Zeros (and zoom [1, 1]) leave frames as they are.

    flip: probability of mirroring. brightness, contrast, saturation: factors from 1 - x to 1 + x; hue: up to x turns.
    zoom: smallest and largest enlargement; shift: up to this share of the side; rotate: up to this many degrees.
    """

    flip: Share = 0.5
    brightness: Share = 0.0
    contrast: Share = 0.0
    saturation: Share = 0.0
    hue: Annotated[float, Ge(0), Le(0.5)] = 0.0
    zoom: tuple[Zoom, Zoom] = (1.0, 1.0)
    shift: Share = 0.0
    rotate: Annotated[float, Ge(0), Le(180)] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.zoom[0] <= self.zoom[1], "augment zoom", list(self.zoom), "must be [smallest, largest]")

    @property
    def jitters(self) -> bool:
        """Whether colours change."""
        return any((self.brightness, self.contrast, self.saturation, self.hue))

    @property
    def moves(self) -> bool:
        """Whether the framing changes (mirroring aside)."""
        return self.zoom != (1.0, 1.0) or self.shift > 0 or self.rotate > 0


NO_AUGMENT = AugmentConfig(flip=0.0)
