"""Training recipes: frozen dataclasses read from YAML, with dotted overrides such as `optimiser.lr=1e-4`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from annotated_types import Ge, Gt, Le

from dagan.checks import Channels, Checked, Few, Positive, Seed, Share, ShareBelowOne, Steps, dump, parse, require
from dagan.config import DepthConfig, ModelConfig, preset
from dagan.data.config import AugmentConfig, DataConfig, PairConfig, TripletConfig
from dagan.errors import InputError
from dagan.models.egomotion import EgomotionConfig
from dagan.names import printable
from dagan.train.depth import DepthLossConfig
from dagan.train.gan import GanLossConfig
from dagan.train.labels import ViewsConfig

R = TypeVar("R", bound="Recipe")
# Feature networks halve pictures four times or more.
SMALLEST_SEEN = 32


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig(Checked):
    """Adam (AdamW with weight_decay). warm_up: steps of linear growth from 0.

    schedule: "constant"; "cosine" (to 0 at max_steps); "step" (times drop_factor from the share drop_at of max_steps on).
    clip: largest norm of an objective's gradients; None does not clip.
    """

    lr: Annotated[float, Gt(0), Le(10)] = 2e-4
    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.999)
    weight_decay: Annotated[float, Ge(0), Le(10)] = 0.0
    warm_up: Annotated[int, Ge(0), Le(10**9)] = 0
    schedule: Literal["constant", "cosine", "step"] = "constant"
    drop_at: Share = 0.75
    drop_factor: Annotated[float, Gt(0), Le(1)] = 0.1
    clip: Positive | None = None



@dataclass(frozen=True, kw_only=True)
class Recipe(Checked):
    """What both stages share.

    output: folder of checkpoints, logs and weights. batch_size: samples per device and forward; accumulate: forwards per step.
    max_minutes: budget of one call, which then ends with a checkpoint; None has no limit.
    devices: processes on this machine, one accelerator each; None is one, or as many as torchrun started; "auto" is all there are.
    threads: of one process on the CPU, None leaves the library's choice. ema: decay of the averaged weights that are exported.
    precision: "auto" is mixed with bfloat16 (on older CUDA devices float16) where the device multiplies in it, else "32-true".
    init_from: weights (.safetensors) or checkpoint (.ckpt) to start from, possibly trained at another size.
    sync_batch_norm: batch statistics over all accelerators.
    """

    output: Path
    data: DataConfig
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    batch_size: Annotated[int, Ge(1), Le(65_536)] = 16
    accumulate: Annotated[int, Ge(1), Le(65_536)] = 1
    max_steps: Steps = 100_000
    max_minutes: Positive | None = None
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: Few | Literal["auto"] | None = None
    strategy: Literal["auto", "ddp"] = "auto"
    threads: Few | None = None
    channels_last: bool = True
    sync_batch_norm: bool = False
    seed: Seed = 0
    ema: ShareBelowOne = 0.999
    init_from: Path | None = None
    checkpoint_minutes: Annotated[float, Ge(0), Le(1e6)] = 10.0
    log_every: Steps = 50
    picture_every: Steps = 1000
    validate_every: Steps = 1000
    validation_samples: Annotated[int, Ge(1), Le(1_000_000)] = 64



@dataclass(frozen=True, kw_only=True)
class DepthRecipe(Recipe):
    """Stage 1: the face depth network from plain videos (docs/method.md#stage-1), at last from what many frames agree on (`views`)."""

    model: DepthConfig = field(default_factory=DepthConfig)
    egomotion: EgomotionConfig = field(default_factory=EgomotionConfig)
    loss: DepthLossConfig = field(default_factory=DepthLossConfig)
    sampling: TripletConfig = field(default_factory=TripletConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.data.size >= 64, "data.size", self.data.size, "must be at least 64 for a network of five halvings")


@dataclass(frozen=True, kw_only=True)
class GanRecipe(Recipe):
    """Stage 2: keypoints, motion and generator (docs/method.md#stage-2).

    depth_weights: the depth network of stage 1 (or a whole model's); with init_from it takes the place of that one's.
    discriminator_optimiser: None is the same as `optimiser`.
    """

    model: ModelConfig
    loss: GanLossConfig = field(default_factory=GanLossConfig)
    sampling: PairConfig = field(default_factory=PairConfig)
    depth_weights: Path | None = None
    discriminator_optimiser: OptimiserConfig | None = None
    discriminator_width: Channels = 64
    discriminator_max_width: Channels = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        width, most = self.discriminator_width, self.discriminator_max_width
        require(most >= width, "discriminator_max_width", most, f"must be at least discriminator_width {width}")
        smallest = self.model.image_size >> (self.loss.perceptual_scales - 1)
        if self.loss.perceptual > 0 and smallest < SMALLEST_SEEN:
            raise InputError(
                f"loss.perceptual_scales is {self.loss.perceptual_scales}: its smallest pictures would be {smallest} pixels wide, "
                f"less than the {SMALLEST_SEEN} that feature networks need"
            )
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
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())[:300]}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): give the path of a .yaml file") from None
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
        value = text if printable(text) != text else yaml.safe_load(text)  # YAML has no file names that are no text
    except (yaml.YAMLError, ValueError, RecursionError):
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
