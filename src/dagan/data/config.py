"""How training data are found, stored, drawn and augmented; the `data`, `sampling` and `augment` parts of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dagan.config import STRICT
from dagan.errors import InputError

Storage = Literal["memory", "device", "disk"]
Balance = Literal["identity", "clip", "seconds"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the clips are and how they are kept.

    train: folder of clips (video files, or folders of images, nested as you like); portraits: folder of still pictures.
    Relative paths start at the working directory. size: side in pixels of the square frames.
    storage: "memory" (decoded once, 3 size^2 bytes a frame), "device" (the same on the accelerator), "disk" (decoded
    when drawn, by `workers` threads; for data larger than memory).
    hold_out: share of the identities kept for validation; balance: what is drawn evenly.
    cache: folder in which decoded frames (and landmarks) are kept between runs; None decodes at every start.
    landmarks: find eyelids and lips in all frames, for stage 2's guided keypoints.
    """

    __pydantic_config__ = STRICT
    train: Path
    portraits: Path | None = None
    size: int = 256
    storage: Storage = "memory"
    hold_out: float = 0.1
    balance: Balance = "identity"
    cache: Path | None = None
    workers: int = 4
    landmarks: bool = False

    def __post_init__(self) -> None:
        if self.size < 32 or self.size % 32:
            raise InputError(f"data size is {self.size}: must be a positive multiple of 32")
        if not 0 <= self.hold_out < 1:
            raise InputError(f"data hold_out is {self.hold_out}: must be from 0 up to, not including, 1")
        if self.workers < 0:
            raise InputError(f"data workers is {self.workers}: must not be negative")


@dataclass(frozen=True, kw_only=True)
class TripletConfig:
    """Stage 1: frames (t - g, t, t + g). gap: smallest and largest g, in frames; clips too short for g take what fits.

    min_motion: mean absolute difference (0 to 1) that the middle of neighbouring frames should reach; 0 takes any.
    """

    __pydantic_config__ = STRICT
    gap: tuple[int, int] = (1, 1)
    min_motion: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.gap[0] <= self.gap[1]:
            raise InputError(f"sampling gap is {list(self.gap)}: must be [smallest, largest], from 1 up")
        if not 0 <= self.min_motion < 1:
            raise InputError(f"sampling min_motion is {self.min_motion}: must be in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class PairConfig:
    """Stage 2: (source, driving) frames of one clip.

    still: probability of a still pair instead: one picture under two independent random motions, so that identities
    known from a single portrait are trained on too. portrait: share of still pairs taken from the portraits, if there are any.
    affine_sigma, tps_sigma: size of those motions (see ThinPlateTransform).
    """

    __pydantic_config__ = STRICT
    still: float = 0.0
    portrait: float = 0.5
    affine_sigma: float = 0.06
    tps_sigma: float = 0.008

    def __post_init__(self) -> None:
        for name in ("still", "portrait"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"sampling {name} is {getattr(self, name)}: must be in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes, drawn once per sample and applied to all its frames. Zeros (and zoom [1, 1]) leave frames as they are.

    flip: probability of mirroring. brightness, contrast, saturation: factors from 1 - x to 1 + x; hue: up to x turns.
    zoom: smallest and largest enlargement; shift: up to this share of the side; rotate: up to this many degrees.
    """

    __pydantic_config__ = STRICT
    flip: float = 0.5
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)
    shift: float = 0.0
    rotate: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip", "brightness", "contrast", "saturation", "shift"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"augment {name} is {getattr(self, name)}: must be in [0, 1]")
        if not 0 <= self.hue <= 0.5:
            raise InputError(f"augment hue is {self.hue}: must be in [0, 0.5]")
        if not 0 < self.zoom[0] <= self.zoom[1]:
            raise InputError(f"augment zoom is {list(self.zoom)}: must be [smallest, largest], above 0")
        if not 0 <= self.rotate <= 180:
            raise InputError(f"augment rotate is {self.rotate}: must be in [0, 180]")

    @property
    def jitters(self) -> bool:
        """Whether colours change."""
        return any((self.brightness, self.contrast, self.saturation, self.hue))

    @property
    def moves(self) -> bool:
        """Whether the framing changes (mirroring aside)."""
        return self.zoom != (1.0, 1.0) or self.shift > 0 or self.rotate > 0


NO_AUGMENT = AugmentConfig(flip=0.0)
