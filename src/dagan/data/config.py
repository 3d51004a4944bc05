"""How training data are found, stored, drawn and augmented: the `data`, `sampling` and `augment` parts of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, MultipleOf
from pydantic import AfterValidator

from dagan.checks import Checked, Share, ShareBelowOne, require
from dagan.data.clips import LayoutChoice

Storage = Literal["memory", "device", "disk"]
Balance = Literal["identity", "clip", "seconds"]


def _address(value: str) -> str:
    if "://" not in value:
        raise ValueError("is no address")
    return value


Address = Annotated[str, AfterValidator(_address)]
# No clip has so many frames. Larger gaps would only be cut to what fits.
Gap = Annotated[int, Ge(1), Le(100_000)]
Zoom = Annotated[float, Gt(0), Le(100)]


@dataclass(frozen=True, kw_only=True)
class DataConfig(Checked):
    """Where the clips are and how they are kept."""

    train: Address | Path
    """The folder of clips: video files, or folders of images, nested in any way. Relative paths start at the working directory.

    It may also be a folder of shards, or their address in object storage, such as s3://bucket/shards (see docs/shards.md).
    """
    portraits: Path | None = None
    """A folder of still pictures."""
    size: Annotated[int, Ge(32), Le(4096), MultipleOf(32)] = 256
    """The side of the square frames in pixels."""
    storage: Storage = "memory"
    """Where frames are: "memory" (decoded once, 3 size^2 bytes a frame), "device" (the same on the accelerator), or "disk".

    With "disk" frames are decoded when they are drawn, by `workers` threads; it is for data larger than memory.
    """
    layout: LayoutChoice = "auto"
    """How names tell whom clips show: "voxceleb1", "voxceleb2", "hdtf", "celebv", "plain", or "auto", which recognises one of them."""
    hold_out: ShareBelowOne = 0.1
    """The share of identities that is kept for validation."""
    balance: Balance = "identity"
    """What is drawn evenly."""
    order: Literal["random", "epochs"] = "random"
    """Clips are drawn again and again ("random"), or each once before any is drawn again ("epochs", with balance "clip")."""
    cache: Path | None = None
    """The folder in which decoded frames (and landmarks) are kept between runs; None decodes at every start."""
    workers: Annotated[int, Ge(0), Le(1024)] = 4
    landmarks: bool = False
    """Whether eyelids and lips are found in all frames, for stage 2's guided keypoints."""

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = "with data.order epochs it must be clip, because an epoch has every clip once"
        require(self.order == "random" or self.balance == "clip", "data.balance", self.balance, rule)


@dataclass(frozen=True, kw_only=True)
class TripletConfig(Checked):
    """How stage 1 draws frames (t - g, t, t + g) of one clip."""

    gap: tuple[Gap, Gap] = (1, 1)
    """The smallest and the largest g, in frames. Clips that are too short for g take what fits."""
    min_motion: ShareBelowOne = 0.0
    """The mean absolute difference (0 to 1) that the middle of neighbouring frames should reach; 0 takes any."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.gap[0] <= self.gap[1], "sampling gap", list(self.gap), "must be [smallest, largest]")


@dataclass(frozen=True, kw_only=True)
class PairConfig(Checked):
    """How stage 2 draws (source, driving) frames of one clip."""

    still: Share = 0.0
    """The share of still pairs: one picture under two independent random motions, so that identities with one portrait are used too."""
    portrait: Share = 0.5
    """The share of still pairs that are taken from the portraits, if there are any."""
    affine_sigma: Share = 0.06
    """The size of the affine part of those motions (see ThinPlateTransform)."""
    tps_sigma: Share = 0.008
    """The size of their thin-plate part."""
    expressive: Share = 0.0
    """The share of the other pairs whose driving frame differs most from the source, of several, in a measure that is drawn at random.

    Measures are mouth, smile, eyes, gaze, turn and nod; they need data.landmarks. Two random frames seldom differ much.
    """
    lively: Share = 0.0
    """The share of pairs whose clip is drawn by how much its face moves in the same measures, besides the balance of data.balance."""



@dataclass(frozen=True, kw_only=True)
class AugmentConfig(Checked):
    """Random changes, drawn once per sample and applied to all its frames. Zeros (and zoom [1, 1]) leave frames as they are."""

    flip: Share = 0.5
    """The probability of mirroring."""
    brightness: Share = 0.0
    """Factors are drawn from 1 - x to 1 + x."""
    contrast: Share = 0.0
    """Factors are drawn likewise."""
    saturation: Share = 0.0
    """Factors are drawn likewise."""
    hue: Annotated[float, Ge(0), Le(0.5)] = 0.0
    """Hues change by up to so many turns."""
    zoom: tuple[Zoom, Zoom] = (1.0, 1.0)
    """The smallest and the largest enlargement."""
    shift: Share = 0.0
    """Pictures shift by up to this share of the side."""
    rotate: Annotated[float, Ge(0), Le(180)] = 0.0
    """Pictures rotate by up to so many degrees."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.zoom[0] <= self.zoom[1], "augment zoom", list(self.zoom), "must be [smallest, largest]")

    @property
    def jitters(self) -> bool:
        """Whether colours change."""
        return any((self.brightness, self.contrast, self.saturation, self.hue))

    @property
    def moves(self) -> bool:
        """Whether the framing changes, apart from mirroring."""
        return self.zoom != (1.0, 1.0) or self.shift > 0 or self.rotate > 0


NO_AUGMENT = AugmentConfig(flip=0.0)
