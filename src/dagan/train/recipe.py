"""Training recipes: frozen dataclasses read from YAML, with dotted overrides such as `optimiser.lr=1e-4`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from dagan.config import STRICT, DepthConfig, ModelConfig, dump, parse, preset
from dagan.data.config import AugmentConfig, DataConfig, PairConfig, TripletConfig
from dagan.errors import InputError
from dagan.models.egomotion import EgomotionConfig
from dagan.train.depth import DepthLossConfig
from dagan.train.gan import GanLossConfig
from dagan.train.labels import ViewsConfig

R = TypeVar("R", bound="Recipe")


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """Adam (AdamW with weight_decay). warm_up: steps of linear growth from 0.

    schedule: "constant"; "cosine" (to 0 at max_steps); "step" (times drop_factor from the share drop_at of max_steps on).
    clip: largest norm of an objective's gradients; None does not clip.
    """

    __pydantic_config__ = STRICT
    lr: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    warm_up: int = 0
    schedule: Literal["constant", "cosine", "step"] = "constant"
    drop_at: float = 0.75
    drop_factor: float = 0.1
    clip: float | None = None

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise InputError(f"optimiser lr is {self.lr}: must be positive")
        if not all(0 <= b < 1 for b in self.betas):
            raise InputError(f"optimiser betas is {list(self.betas)}: both must be in [0, 1)")
        if self.weight_decay < 0 or self.warm_up < 0:
            raise InputError(f"optimiser weight_decay is {self.weight_decay} and warm_up {self.warm_up}: neither may be negative")
        if self.clip is not None and self.clip <= 0:
            raise InputError(f"optimiser clip is {self.clip}: must be positive, or null for none")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What both stages share.

    output: folder of checkpoints, logs and weights. batch_size: samples per device and forward; accumulate: forwards per step.
    max_minutes: budget of one call, which then ends with a checkpoint; None has no limit.
    threads: of one process on the CPU, None leaves the library's choice. ema: decay of the averaged weights that are exported.
    init_from: weights (.safetensors) or checkpoint (.ckpt) to start from, possibly trained at another size.
    sync_batch_norm: batch statistics over all accelerators.
    """

    __pydantic_config__ = STRICT
    output: Path
    data: DataConfig
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    batch_size: int = 16
    accumulate: int = 1
    max_steps: int = 100_000
    max_minutes: float | None = None
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int | Literal["auto"] = 1
    strategy: Literal["auto", "ddp"] = "auto"
    threads: int | None = None
    channels_last: bool = True
    sync_batch_norm: bool = False
    seed: int = 0
    ema: float = 0.999
    init_from: Path | None = None
    checkpoint_minutes: float = 10.0
    log_every: int = 50
    picture_every: int = 1000
    validate_every: int = 1000
    validation_samples: int = 64

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulate", "max_steps", "log_every", "picture_every", "validate_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: must be at least 1")
        if not 0 <= self.ema < 1:
            raise InputError(f"ema is {self.ema}: must be in [0, 1)")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}: must not be negative")


@dataclass(frozen=True, kw_only=True)
class DepthRecipe(Recipe):
    """Stage 1: the face depth network from plain videos (METHOD section 2), at last from what many frames agree on (`views`)."""

    model: DepthConfig = field(default_factory=DepthConfig)
    egomotion: EgomotionConfig = field(default_factory=EgomotionConfig)
    loss: DepthLossConfig = field(default_factory=DepthLossConfig)
    sampling: TripletConfig = field(default_factory=TripletConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)


@dataclass(frozen=True, kw_only=True)
class GanRecipe(Recipe):
    """Stage 2: keypoints, motion and generator (METHOD section 7).

    depth_weights: the depth network of stage 1 (or a whole model's); with init_from it takes the place of that one's.
    discriminator_optimiser: None is the same as `optimiser`.
    """

    model: ModelConfig
    loss: GanLossConfig = field(default_factory=GanLossConfig)
    sampling: PairConfig = field(default_factory=PairConfig)
    depth_weights: Path | None = None
    discriminator_optimiser: OptimiserConfig | None = None
    discriminator_width: int = 64
    discriminator_max_width: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data.size != self.model.image_size:
            raise InputError(f"data.size is {self.data.size}, but model.image_size is {self.model.image_size}: make them equal")
        if self.loss.needs_landmarks and not self.data.landmarks:
            raise InputError(
                "loss.guide, loss.detail, loss.crops and loss.explicit need landmarks: set data.landmarks to true, or all of them to 0"
            )
        if self.model.use_depth and self.depth_weights is None and self.init_from is None:
            raise InputError(
                "depth_weights is missing: train stage 1 first (`dagan train depth`) and name its depth.safetensors, or set init_from"
            )


def read_recipe(cls: type[R], path: Path, overrides: Iterable[str] = ()) -> R:
    """The recipe in a YAML file with `key=value` overrides applied.

    `model: {preset: lite-256, ...}` starts from a named preset. Raises InputError for anything unknown or out of range.
    """
    data = read_mapping(path, "recipe")
    for override in overrides:
        _apply(data, override)
    return build_recipe(cls, data, str(path))


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """The mapping in a YAML file; `what` it is, such as "recipe", for errors. Raises InputError where there is none."""
    if not path.is_file():
        raise InputError(f"{what} {path} does not exist: give the path of a .yaml file, such as those in recipes/")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise InputError(f"{path} must hold a mapping of keys to values, such as `batch_size: 16`")
    return data


def build_recipe(cls: type[R], data: Mapping[str, Any], where: str) -> R:
    """The recipe of a plain mapping; `where` names it in errors."""
    data = dict(data)
    model = data.get("model")
    if isinstance(model, Mapping) and "preset" in model:
        base = preset(str(model["preset"]))
        # Stage 1 trains only the depth network of the preset.
        start = dump(base.depth if cls is DepthRecipe else base)
        data["model"] = _merge(start, {k: v for k, v in model.items() if k != "preset"})
    return parse(cls, data, where)


def _apply(data: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise InputError(f"{override!r} is no setting: write key=value, such as optimiser.lr=1e-4")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"{override!r}: the value is not valid YAML") from None
    parts = key.split(".")
    place = data
    for part in parts[:-1]:
        if place.get(part) is None:
            place[part] = {}
        place = place[part]
        if not isinstance(place, dict):
            raise InputError(f"{override!r}: {part} is a single value and has no parts")
    place[parts[-1]] = value


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
