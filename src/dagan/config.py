"""Frozen configurations of the model family, the named presets, and strict reading from plain mappings.

Every preset builds the system of docs/method.md#overview; they differ in widths, decoder and sampling convention.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from dagan.checks import Channels, Checked, Few, Kernel, Positive, Side, nearest, require
from dagan.errors import InputError

# The five widths of the common ResNets, which "resnet18" and "resnet50" have whatever else is asked for.
RESNET_WIDTHS = (64, 64, 128, 256, 512)
Widths = tuple[Channels, Channels, Channels, Channels, Channels]
# Attention asks with an eighth of the channels.
AttendedChannels = Annotated[int, Ge(8), Le(4096)]
# The face mesh that landmarks come from has 468 points of the face, then five for each iris.
MeshPoint = Annotated[int, Ge(0), Le(477)]
Gain = Annotated[float, Gt(0), Le(5)]


def require_encoder(what: str, encoder: str, widths: tuple[int, ...]) -> None:
    """Raises InputError for widths that the encoder would not have."""
    rule = f"must be {list(RESNET_WIDTHS)} with encoder {encoder}; encoder lite has widths of its own"
    require(encoder == "lite" or tuple(widths) == RESNET_WIDTHS, f"{what} encoder_widths", list(widths), rule)


@dataclass(frozen=True, kw_only=True)
class HourglassConfig(Checked):
    """U-shaped network: widths min(max_width, width * 2^(i+1)) over `levels` halvings (docs/method.md#building-blocks)."""

    width: Channels = 32
    max_width: Channels = 1024
    levels: Annotated[int, Ge(1), Le(7)] = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.max_width >= self.width, "hourglass max_width", self.max_width, f"must be at least width {self.width}")


@dataclass(frozen=True, kw_only=True)
class DepthConfig(Checked):
    """Face depth network (docs/method.md#depth-network). `size`: side the image is resized to first; None keeps the image's own."""

    encoder: Literal["resnet18", "resnet50", "lite"] = "resnet18"
    encoder_widths: Widths = RESNET_WIDTHS
    decoder_widths: Widths = (16, 32, 64, 128, 256)
    size: Side | None = None
    min_depth: Positive = 0.1
    max_depth: Positive = 100.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.min_depth < self.max_depth, "min_depth", self.min_depth, f"must be below max_depth {self.max_depth}")
        require_encoder("depth", self.encoder, self.encoder_widths)


@dataclass(frozen=True, kw_only=True)
class Gains(Checked):
    """By how much driven keypoints go beyond what they are told, so that the drawn face opens, smiles and looks as far as the driving one.

    A model draws less of a movement than its keypoints say; gains are calibrated on training clips once it is trained, and 1 takes
    keypoints as they are.
    """

    mouth: Gain = 1.0
    smile: Gain = 1.0
    eyes: Gain = 1.0
    gaze: Gain = 1.0


@dataclass(frozen=True, kw_only=True)
class KeypointConfig(Checked):
    """Keypoint detector (docs/method.md#keypoints). `kernel`: side of the two head convolutions, which have no padding.

    landmarks: the points of the face mesh (`dagan.media.landmarks`) that the first keypoints stand on, one each. Training guides
    the detector to them, and can draw with landmarks in place of what the detector finds there. gains: for those while driving.
    """

    count: Few = 15
    landmarks: tuple[MeshPoint, ...] = ()
    gains: Gains = field(default_factory=Gains)
    hourglass: HourglassConfig = field(default_factory=lambda: HourglassConfig(width=32))
    kernel: Kernel = 7
    temperature: Positive = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        numbers = list(self.landmarks)
        require(len(set(numbers)) == len(numbers) <= self.count, "keypoints landmarks", numbers, f"at most {self.count} different ones")


@dataclass(frozen=True, kw_only=True)
class MotionConfig(Checked):
    """Dense motion network (docs/method.md#dense-motion). `kernel`: side of its two head convolutions, padded.

    variance: of the keypoints' heatmaps; landmark_variance: of those of keypoints that stand on landmarks, None takes the same. An
    eye is 0.2 wide and a blink 0.07 high: heatmaps of the paper's variance show upper and lower lid as one.
    """

    hourglass: HourglassConfig = field(default_factory=lambda: HourglassConfig(width=64))
    kernel: Kernel = 7
    variance: Positive = 0.01
    landmark_variance: Positive | None = None


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig(Checked):
    """Warping generator (docs/method.md#generator).

    decoder: "residual" (the paper's), "spade" (the more natural one), or "pyramid" (the lite design: warped features at
    every scale and a blend with the warped source image). width: channels after the first convolution; max_width: cap.
    align_depth: warp the source depth features too before attention (docs/method.md#cross-modal-attention).
    landmark_variance: of the heatmaps of the driving keypoints that stand on landmarks, which the pyramid decoder then gets at each
    of its scales: warping cannot make what the source does not show, and these tell where to draw it. None gives it none.
    """

    decoder: Literal["residual", "spade", "pyramid"] = "residual"
    width: AttendedChannels = 64
    max_width: AttendedChannels = 256
    downs: Annotated[int, Ge(1), Le(5)] = 2
    blocks: Annotated[int, Ge(0), Le(64)] = 6
    align_depth: bool = False
    landmark_variance: Positive | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        narrow = self.landmark_variance
        require(narrow is None or self.decoder == "pyramid", "generator landmark_variance", narrow, 'is for decoder "pyramid" alone')
        require(self.max_width >= self.width, "generator max_width", self.max_width, f"must be at least width {self.width}")
        if self.decoder == "spade":
            require(self.downs == 2, "generator downs", self.downs, "must be 2, as decoder spade enlarges twice")


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Checked):
    """A whole model. `motion_size`: side at which keypoints and dense motion are computed (a divisor of the image's).

    use_depth: False gives the RGB-only twin (no depth network, no attention). align_corners: the sampling convention;
    True pairs with the grids of docs/method.md#sampling (identity motion is exact), False reproduces released weights.
    """

    name: str = "custom"
    image_size: Side = 256
    motion_size: Annotated[int, Ge(2), Le(4096)] = 64
    use_depth: bool = True
    align_corners: bool = True
    depth: DepthConfig = field(default_factory=DepthConfig)
    keypoints: KeypointConfig = field(default_factory=KeypointConfig)
    motion: MotionConfig = field(default_factory=MotionConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.image_size % self.motion_size == 0, "motion_size", self.motion_size, f"must divide image_size {self.image_size}")
        smallest = 2 ** max(self.keypoints.hourglass.levels, self.motion.hourglass.levels)
        require(
            self.motion_size % smallest == 0,
            "motion_size", self.motion_size, f"must be a multiple of {smallest}, for the hourglass levels",
        )  # fmt: skip
        kernel = self.keypoints.kernel
        rule = f"must be above keypoints kernel {kernel}, which has no padding"
        require(self.motion_size > kernel, "motion_size", self.motion_size, rule)

        drawn = self.generator.landmark_variance
        require(
            drawn is None or bool(self.keypoints.landmarks),
            "generator landmark_variance", drawn, "needs keypoints.landmarks, whose heatmaps the decoder is to get",
        )  # fmt: skip

    def rgb_only(self) -> ModelConfig:
        """The twin without depth network and attention, for ablation."""
        return replace(self, name=f"{self.name}-rgb", use_depth=False)


_PAPER = ModelConfig(name="paper-256")
_SPADE = replace(_PAPER, name="paper-spade-256", generator=GeneratorConfig(decoder="spade"))
_LITE = ModelConfig(
    name="lite-256",
    depth=DepthConfig(encoder="lite", encoder_widths=(32, 32, 64, 128, 192), decoder_widths=(16, 24, 32, 64, 96), size=128),
    # Corners of the mouth, inner lips, lids, irises, outer lips, brows and chin; seven keypoints are free.
    keypoints=KeypointConfig(
        count=22, landmarks=(61, 291, 13, 14, 159, 145, 386, 374, 468, 473, 0, 17, 105, 334, 152),
        hourglass=HourglassConfig(width=16, max_width=256), kernel=3,
    ),
    # Narrow heatmaps tell upper from lower lid, and tell the decoder where to draw what warping cannot make.
    motion=MotionConfig(hourglass=HourglassConfig(width=24, max_width=192), kernel=3, landmark_variance=0.001),
    generator=GeneratorConfig(
        decoder="pyramid", width=16, max_width=128, downs=3, blocks=3, align_depth=True, landmark_variance=0.0005
    ),
)
PRESETS: dict[str, ModelConfig] = {c.name: c for base in (_PAPER, _SPADE, _LITE) for c in (base, base.rgb_only())}


def preset(name: str) -> ModelConfig:
    """The named model configuration. Raises InputError, naming the nearest presets, when there is none."""
    if name not in PRESETS:
        raise InputError(f"no preset is called {name!r}: {nearest(name, PRESETS)}")
    return PRESETS[name]
