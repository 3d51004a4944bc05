"""Training recipes: frozen dataclasses read from YAML, with dotted overrides such as `optimiser.lr=1e-4`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from annotated_types import Ge, Gt, Le

from dagan.checks import Channels, Checked, Few, Positive, Seed, Share, ShareBelowOne, Steps, Weight, dump, parse, read_mapping, require
from dagan.config import DepthConfig, ModelConfig, preset
from dagan.data.config import AugmentConfig, DataConfig, PairConfig, TripletConfig
from dagan.errors import InputError
from dagan.losses.features import FeatureName
from dagan.models.egomotion import EgomotionConfig
from dagan.names import printable

R = TypeVar("R", bound="Recipe")
# Feature networks halve pictures four times or more.
SMALLEST_SEEN = 32
# With fewer views of a frame its depth is not found from them.
LEAST_VIEWS = 4


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
class DepthLossConfig(Checked):
    """Terms of the objective; a weight of 0 leaves its term out.

    scales: how many of the four disparities are trained, full size first.
    levels: at how many picture sizes each is judged: full, half, quarter. A warped frame that is off by some pixels shows in
        which direction only where pictures are that coarse. The paper has the full size alone.
    smoothness: weight at scale 0; halved with every further scale.
    automask: ignore pixels that the unwarped frames explain as well.
    pivot: turn the head about the point in the middle of the frame at the head's own distance (`alignment.head_level`), and measure
        translation in that distance. A turn then leaves the head in place and shows as relief alone, and the loss does not depend
        on the depth's scale. False: turn about the camera's centre, where small turns and shifts look alike and only shifts show depth.
    intrinsics_prior: weight of the squared logarithm of focal length over its starting value. Consistency draws the focal length
        up, as flat heads agree: 0.1 holds it near the start against a consistency of 0.01, where 0.01 let it grow by two thirds.
    flip_consistency: weight of |disparity - unflipped disparity of the mirrored frame|.
    consistency: weight of the difference between the next frame's relief and this frame's, moved there (`losses.relief`). A head
        that turned must be seen turned: how far a face is tilted in a single picture shows little in the photometric error. The
        next frame's depth is then judged by the photometric error too, with this frame as its only source.
    level: weight of the squared distance of the mean disparity in the middle of the frame from 0.5 (scale is free otherwise).
    start_share, start_relief: over this share of training the disparity is drawn to a bulge of this relative height in the
        middle of the frame, less and less, while the photometric error comes in. Without it, small turns explain a hollow face
        as well as a face, and depth and turns wait for each other. A share of 0 leaves the start out.
    aligned_share: share of training in which the photometric error uses the motion found by aligning the frames directly on
        the depth (`train.depth.alignment`), which needs no learning, rather than the egomotion network's. After some 8 000
        samples the network still knew too little (measured): depth settled on one ridge for all faces. 0 is the paper's way.
    imitation: weight of the egomotion network's distance from the aligned motion, in the start and in the aligned share.
    """

    scales: Annotated[int, Ge(1), Le(4)] = 4
    levels: Annotated[int, Ge(1), Le(4)] = 1
    smoothness: Weight = 1e-3
    automask: bool = True
    pivot: bool = True
    intrinsics_prior: Weight = 0.01
    flip_consistency: Weight = 0.0
    consistency: Weight = 0.0
    level: Weight = 0.01
    start_share: Share = 0.2
    start_relief: ShareBelowOne = 0.2
    aligned_share: Share = 1.0
    imitation: Weight = 1.0


@dataclass(frozen=True, kw_only=True)
class ViewsConfig(Checked):
    """The second part of stage 1: learning from depth that many frames of a clip agree on.

    From its start on, that is all that is learnt, at full size: the other terms of the objective rest, and with them egomotion and camera.
    Where no clip turns enough, training goes on as before.

    rounds: how often it is found anew, with the averaged network of that moment; 0 leaves this part out.
    start: share of training after which the first round begins; the others follow evenly.
    frames: how many frames get depth in a round, in each process. More take longer, fewer are learnt by heart.
    step, reach: views are step, 2 step, ... reach step frames away, in both directions.
    """

    rounds: Annotated[int, Ge(0), Le(1024)] = 0
    start: ShareBelowOne = 0.4
    frames: Annotated[int, Ge(1), Le(1_000_000)] = 1000
    step: Few = 4
    reach: Few = 24

    def __post_init__(self) -> None:
        super().__post_init__()
        if 2 * self.reach < LEAST_VIEWS:
            raise InputError(f"views reach is {self.reach}: must be at least {LEAST_VIEWS // 2}, for {LEAST_VIEWS} views of a frame")

    @property
    def shortest(self) -> int:
        """Frames of the shortest clip in which a frame has enough views."""
        return LEAST_VIEWS * self.step + 1

    def round_of(self, step: int, max_steps: int) -> tuple[int, bool]:
        """Round to which a step belongs, from 0 up, -1 before the first; and whether it is the round's first step."""
        bounds = [round(max_steps * (self.start + (1 - self.start) * r / self.rounds)) for r in range(self.rounds)]
        current = sum(step >= bound for bound in bounds) - 1
        return current, step in bounds


@dataclass(frozen=True, kw_only=True)
class GanLossConfig(Checked):
    """Weights of docs/method.md#losses (defaults) and choices. A weight of 0 switches a loss off.

    perceptual_scales: levels of the image pyramid; perceptual_relative: see PerceptualLoss; l1, warped: L1 of the result and
    of the warped source image, extras for small models; adversarial_start: step of the first adversarial update.
    The others need data.landmarks. guide: weight of the distance of the keypoints that stand on landmarks (`keypoints.landmarks` of the
    model) from them; detail: of an L1 of the result close to eyelids and lips, within about 0.1 of the image; crops: of the perceptual
    loss and an L1 of mouth and eyes, cut out and enlarged (see `losses.features`). explicit: share of the samples that are drawn with
    landmarks in place of the keypoints that the detector found for them, which lie off by explicit_noise (a standard deviation).
    """

    perceptual: Weight = 10.0
    perceptual_features: FeatureName = "vgg19"
    perceptual_file: str | None = None
    perceptual_scales: Annotated[int, Ge(1), Le(6)] = 4
    perceptual_relative: bool = False
    l1: Weight = 0.0
    warped: Weight = 0.0
    guide: Weight = 0.0
    detail: Weight = 0.0
    crops: Weight = 0.0
    explicit: Share = 0.0
    explicit_noise: Annotated[float, Ge(0), Le(1)] = 0.004
    adversarial: Weight = 1.0
    adversarial_start: Annotated[int, Ge(0), Le(10**9)] = 0
    feature_matching: Weight = 10.0
    equivariance_value: Weight = 10.0
    equivariance_jacobian: Weight = 10.0
    keypoint_distance: Weight = 10.0
    keypoint_alpha: Annotated[float, Ge(0), Le(2)] = 0.2
    affine_sigma: Share = 0.05
    tps_sigma: Share = 0.005
    tps_points: Annotated[int, Ge(2), Le(64)] = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not any((self.perceptual, self.l1, self.warped, self.detail)):
            raise InputError("loss perceptual, l1, warped and detail are all 0: nothing would compare results with driving frames")

    @property
    def needs_landmarks(self) -> bool:
        """Whether any term looks at landmarks."""
        return any((self.guide, self.detail, self.crops, self.explicit))


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
