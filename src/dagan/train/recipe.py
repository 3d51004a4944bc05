"""Training recipes: frozen dataclasses that are read from YAML, with dotted overrides such as `optimiser.lr=1e-4`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from annotated_types import Ge, Gt, Le

from dagan.checks import (
    Channels,
    Checked,
    Few,
    Positive,
    Seed,
    Share,
    ShareBelowOne,
    Steps,
    Weight,
    dump,
    parse,
    printable,
    read_mapping,
    require,
)
from dagan.config import DepthConfig, ModelConfig, preset
from dagan.data.config import AugmentConfig, DataConfig, PairConfig, TripletConfig
from dagan.errors import InputError
from dagan.losses.gan import FeatureName, Pyramid
from dagan.models.depth import EgomotionConfig
from dagan.weights.files import read_config

R = TypeVar("R", bound="Recipe")
SMALLEST_SEEN = 32  # Pixels. Pictures must be no smaller, because feature networks halve them four times or more.
INIT_FROM = "init_from"  # In place of a preset's name: the configuration of the file that the recipe starts from.
LEAST_VIEWS = 4  # A frame's depth is found only from at least so many views.


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig(Checked):
    """The optimiser: Adam, or AdamW with weight_decay."""

    lr: Annotated[float, Gt(0), Le(10)] = 2e-4
    """The learning rate."""
    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.999)
    weight_decay: Annotated[float, Ge(0), Le(10)] = 0.0
    warm_up: Annotated[int, Ge(0), Le(10**9)] = 0
    """The number of steps in which the rate grows linearly from 0."""
    scale: Literal["none", "sqrt", "linear"] = "none"
    """The rate and the number of steps of warm-up are multiplied by the number of processes ("linear"), or by its square root ("sqrt")."""
    schedule: Literal["constant", "cosine", "step"] = "constant"
    """The rate stays ("constant"), falls to 0 at max_steps ("cosine"), or is multiplied by drop_factor from drop_at on ("step")."""
    drop_at: Share = 0.75
    """The share of max_steps after which the rate drops."""
    drop_factor: Annotated[float, Gt(0), Le(1)] = 0.1
    clip: Positive | None = None
    """The largest norm of an objective's gradients; None does not clip them."""



@dataclass(frozen=True, kw_only=True)
class Recipe(Checked):
    """The settings that both stages share."""

    output: Path
    """The folder of checkpoints, logs and weights."""
    data: DataConfig
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    batch_size: Annotated[int, Ge(1), Le(65_536)] = 16
    """The number of samples per device and forward pass."""
    accumulate: Annotated[int, Ge(1), Le(65_536)] = 1
    """The number of forward passes per step."""
    max_steps: Steps = 100_000
    max_minutes: Positive | None = None
    """After so many minutes a call ends with a checkpoint; None has no limit."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """"auto" is mixed with bfloat16 (float16 on older CUDA devices) where the device multiplies in it, else "32-true"."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: Few | Literal["auto"] | None = None
    """The number of processes on this machine, one accelerator each; None is one, or as many as torchrun started; "auto" is all."""
    strategy: Literal["auto", "ddp"] = "auto"
    threads: Few | None = None
    """The number of threads of one process on the CPU; None leaves the choice to PyTorch."""
    channels_last: bool = True
    compile: bool = False
    """Whether objectives are compiled with torch.compile, which takes minutes at the start; without a compiler they are not."""
    sync_batch_norm: bool = False
    """Whether batch statistics are taken over all accelerators."""
    seed: Seed = 0
    ema: ShareBelowOne = 0.999
    """The decay of the averaged weights, which are the ones that are exported."""
    init_from: Path | None = None
    """Weights (.safetensors) or a checkpoint (.ckpt) to start from. They may have been trained at another size."""
    checkpoint_minutes: Annotated[float, Ge(0), Le(1e6)] = 10.0
    keep_checkpoints: Annotated[int, Ge(2), Le(100)] = 2
    """So many of the newest checkpoints are kept."""
    log_every: Steps = 50
    picture_every: Steps = 1000
    validate_every: Steps = 1000
    validation_samples: Annotated[int, Ge(1), Le(1_000_000)] = 64



@dataclass(frozen=True, kw_only=True)
class DepthLossConfig(Checked):
    """The terms of stage 1's objective. A weight of 0 leaves its term out."""

    scales: Annotated[int, Ge(1), Le(4)] = 4
    """How many of the four disparities are trained, full size first."""
    levels: Annotated[int, Ge(1), Le(4)] = 1
    """At how many picture sizes each disparity is judged: full, half, quarter and so on. The paper has the full size alone.

    When a warped frame is off by some pixels, only coarse pictures show in which direction.
    """
    smoothness: Weight = 1e-3
    """The weight of smoothness at scale 0. It is halved with every further scale."""
    automask: bool = True
    """Whether pixels are ignored that the unwarped frames explain as well."""
    pivot: bool = True
    """Whether the head turns about the point in the middle of the frame at its own distance (`alignment.head_level`).

    Translation is then measured in that distance, a turn leaves the head in place and shows only as relief, and the loss does not depend
    on the scale of depth. Otherwise the head turns about the camera's centre, where small turns and shifts look alike and only shifts
    show depth.
    """
    intrinsics_prior: Weight = 0.01
    """The weight of the squared logarithm of the focal length over its starting value.

    Consistency makes the focal length grow, because flat heads agree. With a consistency of 0.01, a weight of 0.1 holds it near the
    start, and one of 0.01 let it grow by two thirds.
    """
    flip_consistency: Weight = 0.0
    """The weight of |disparity - disparity of the mirrored frame, mirrored back|."""
    consistency: Weight = 0.0
    """The weight of the difference between the next frame's relief and this frame's relief, moved there (see `losses.depth`).

    A head that turned must be seen turned: the photometric error shows little of how far the depth of a face is tilted in a single
    picture. With this term the next frame's depth is also judged by the photometric error, with this frame as its only source.
    """
    level: Weight = 0.01
    """The weight of the squared distance of the mean disparity in the middle of the frame from 0.5. Otherwise scale is free."""
    start_share: Share = 0.2
    """During this share of training the disparity is drawn, less and less, to a bulge in the middle of the frame; 0 leaves that out.

    Meanwhile the photometric error comes in. Without this start, small turns explain a hollow face as well as a face, and depth and
    turns wait for each other.
    """
    start_relief: ShareBelowOne = 0.2
    """The relative height of that bulge."""
    aligned_share: Share = 1.0
    """During this share of training the photometric error uses motions that are found by aligning frames (see `train.alignment`).

    Aligning on the depth needs no learning. After some 8 000 samples the egomotion network still knew too little (measured), and depth
    settled on one ridge for all faces. 0 is the paper's way, which uses that network's motions.
    """
    imitation: Weight = 1.0
    """The weight of the egomotion network's distance from the aligned motion, in the start and in the aligned share."""


@dataclass(frozen=True, kw_only=True)
class ViewsConfig(Checked):
    """The second part of stage 1: the depth network learns from depth on which many frames of a clip agree.

    From its start on, nothing else is learnt, and it is learnt at full size: the other terms of the objective rest, and so do egomotion
    and camera. Where no clip turns enough, training goes on as before.
    """

    rounds: Annotated[int, Ge(0), Le(1024)] = 0
    """How often such depth is found, each time with the averaged network of that moment; 0 leaves this part out."""
    start: ShareBelowOne = 0.4
    """The share of training after which the first round begins. The others follow evenly."""
    frames: Annotated[int, Ge(1), Le(1_000_000)] = 1000
    """How many frames get depth in a round, in each process. More take longer; fewer are learnt by heart."""
    step: Few = 4
    """Views are this many frames apart."""
    reach: Few = 24
    """There are this many views in either direction."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if 2 * self.reach < LEAST_VIEWS:
            raise InputError(f"views reach is {self.reach}: must be at least {LEAST_VIEWS // 2}, for {LEAST_VIEWS} views of a frame")

    @property
    def shortest(self) -> int:
        """The number of frames of the shortest clip in which a frame has enough views."""
        return LEAST_VIEWS * self.step + 1

    def round_of(self, step: int, max_steps: int) -> tuple[int, bool]:
        """Returns the round to which a step belongs, from 0 on (-1 before the first), and whether it is the round's first step."""
        bounds = [round(max_steps * (self.start + (1 - self.start) * r / self.rounds)) for r in range(self.rounds)]
        current = sum(step >= bound for bound in bounds) - 1
        return current, step in bounds


@dataclass(frozen=True, kw_only=True)
class GanLossConfig(Checked):
    """The losses of stage 2, whose defaults are those of docs/method.md#losses. A weight of 0 switches a loss off.

    `guide`, `detail`, `crops` and `explicit` need data.landmarks.
    """

    perceptual: Weight = 10.0
    perceptual_features: FeatureName = "vgg19"
    perceptual_file: str | None = None
    perceptual_scales: Annotated[int, Ge(1), Le(6)] = 4
    """The number of levels of the image pyramid."""
    perceptual_pyramid: Pyramid = "average"
    """How that pyramid is made: of means, or band-limited, which is the paper's way."""
    perceptual_relative: bool = False
    """See PerceptualLoss."""
    l1: Weight = 0.0
    """The weight of the L1 of the result, which helps small models."""
    warped: Weight = 0.0
    """The weight of the L1 of the warped source image, which helps small models."""
    guide: Weight = 0.0
    """The weight of the distance from landmarks of the keypoints that stand on them (`keypoints.landmarks` of the model)."""
    detail: Weight = 0.0
    """The weight of an L1 of the result close to eyelids and lips, within about 0.1 of the image."""
    crops: Weight = 0.0
    """The weight of the perceptual loss and an L1 of mouth and eyes, cut out and enlarged (see `losses.gan`)."""
    explicit: Share = 0.0
    """The share of samples that are drawn with landmarks in place of the keypoints that the detector found for them."""
    explicit_noise: Annotated[float, Ge(0), Le(1)] = 0.004
    """The standard deviation by which these landmarks are moved."""
    adversarial: Weight = 1.0
    adversarial_start: Annotated[int, Ge(0), Le(10**9)] = 0
    """The step of the first adversarial update."""
    feature_matching: Weight = 10.0
    equivariance_value: Weight = 10.0
    equivariance_jacobian: Weight = 10.0
    keypoint_distance: Weight = 10.0
    keypoint_alpha: Annotated[float, Ge(0), Le(2)] = 0.2
    detector_batches: Literal["pooled", "separate"] = "pooled"
    """Whether batch statistics of the keypoint detector are those of source, driving and transformed frames together, or of each alone.

    "separate" is the paper's way.
    """
    transformed_depth: Literal["moved", "estimated"] = "moved"
    """Whether the transformed frame's depth map is the driving frame's, moved, or the depth network's own, which is the paper's way."""
    affine_sigma: Share = 0.05
    tps_sigma: Share = 0.005
    tps_points: Annotated[int, Ge(2), Le(64)] = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not any((self.perceptual, self.l1, self.warped, self.detail)):
            raise InputError("loss perceptual, l1, warped and detail are all 0: nothing would compare results with driving frames")

    @property
    def needs_landmarks(self) -> bool:
        """Whether any term needs landmarks."""
        return any((self.guide, self.detail, self.crops, self.explicit))


@dataclass(frozen=True, kw_only=True)
class DepthRecipe(Recipe):
    """Stage 1 teaches the face depth network from plain videos (docs/method.md#stage-1), at last from many frames at once (`views`)."""

    model: DepthConfig = field(default_factory=DepthConfig)
    egomotion: EgomotionConfig = field(default_factory=EgomotionConfig)
    encoder_weights: Path | None = None
    """ImageNet weights from which the encoders of depth and egomotion start, as torchvision's state dict of the ResNet; None is random."""
    loss: DepthLossConfig = field(default_factory=DepthLossConfig)
    sampling: TripletConfig = field(default_factory=TripletConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.data.size >= 64, "data.size", self.data.size, "must be at least 64 for a network of five halvings")
        rule = "must be null with encoder lite, which has widths of its own"
        require(self.encoder_weights is None or self.model.encoder != "lite", "encoder_weights", str(self.encoder_weights), rule)


@dataclass(frozen=True, kw_only=True)
class GanRecipe(Recipe):
    """Stage 2 teaches keypoints, motion and generator (docs/method.md#stage-2)."""

    model: ModelConfig
    loss: GanLossConfig = field(default_factory=GanLossConfig)
    sampling: PairConfig = field(default_factory=PairConfig)
    depth_weights: Path | None = None
    """The depth network of stage 1, or a whole model's. It replaces the one in init_from."""
    discriminator_optimiser: OptimiserConfig | None = None
    """The discriminator's optimiser; None is the same as `optimiser`."""
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
    """Reads the recipe in a YAML file and applies `key=value` overrides.

    `model: {preset: lite-256, ...}` starts from a named preset, and `preset: init_from` from the model of that file. Raises InputError
    for anything unknown or out of range.
    """
    data = read_mapping(path, "recipe")
    for override in overrides:
        _apply(data, override)
    return build_recipe(cls, data, str(path))


def build_recipe(cls: type[R], data: Mapping[str, Any], where: str) -> R:
    """Makes the recipe of a plain mapping. `where` names it in errors."""
    data = dict(data)
    model = data.get("model")
    if isinstance(model, Mapping) and "preset" in model:
        base = _own_model(data.get("init_from")) if model["preset"] == INIT_FROM else preset(str(model["preset"]))
        # Stage 1 trains only the depth network of the preset.
        start = dump(base.depth if cls is DepthRecipe else base)
        data["model"] = _merge(start, {k: v for k, v in model.items() if k != "preset"})
    return parse(cls, data, where)


def _own_model(init_from: object) -> ModelConfig:
    """Returns the configuration of the model file that a recipe starts from. Raises InputError where it starts from none."""
    if not isinstance(init_from, str) or not init_from.endswith(".safetensors"):
        raise InputError(f"model.preset is {INIT_FROM}, but init_from is {init_from!r}: name a model file (.safetensors)")
    return read_config(Path(init_from))


def _apply(data: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise InputError(f"{override!r} is no setting: write key=value, such as optimiser.lr=1e-4")
    try:
        value = text if printable(text) != text else yaml.safe_load(text)  # A file name that is no valid text is not given to YAML.
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
