"""The frozen configurations of the models, with named presets. They are read strictly from plain mappings.

Every preset builds the system of docs/method.md#overview. Presets differ in widths, decoder and sampling convention.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from dagan.checks import Channels, Checked, Few, Kernel, Positive, Side, nearest, require
from dagan.errors import InputError

# These are the widths of the common ResNets. "resnet18" and "resnet50" always have them.
RESNET_WIDTHS = (64, 64, 128, 256, 512)
Widths = tuple[Channels, Channels, Channels, Channels, Channels]
# Attention uses an eighth of the channels, so there must be at least eight.
AttendedChannels = Annotated[int, Ge(8), Le(4096)]
# The face mesh has 468 points of the face, then five for each iris.
MeshPoint = Annotated[int, Ge(0), Le(477)]
Gain = Annotated[float, Gt(0), Le(5)]
Attention = Literal["none", "coarsest", "all"]


def require_encoder(what: str, encoder: str, widths: tuple[int, ...]) -> None:
    """Raises InputError for widths that the encoder does not have."""
    rule = f"must be {list(RESNET_WIDTHS)} with encoder {encoder}; encoder lite has widths of its own"
    require(encoder == "lite" or tuple(widths) == RESNET_WIDTHS, f"{what} encoder_widths", list(widths), rule)


@dataclass(frozen=True, kw_only=True)
class HourglassConfig(Checked):
    """A U-shaped network with widths min(max_width, width * 2^(i+1)) over `levels` halvings (docs/method.md#building-blocks)."""

    width: Channels = 32
    max_width: Channels = 1024
    levels: Annotated[int, Ge(1), Le(7)] = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.max_width >= self.width, "hourglass max_width", self.max_width, f"must be at least width {self.width}")


@dataclass(frozen=True, kw_only=True)
class DepthConfig(Checked):
    """The face depth network (docs/method.md#depth-network)."""

    encoder: Literal["resnet18", "resnet50", "lite"] = "resnet18"
    encoder_widths: Widths = RESNET_WIDTHS
    decoder_widths: Widths = (16, 32, 64, 128, 256)
    size: Side | None = None
    """The side to which images are resized first; None keeps their own."""
    min_depth: Positive = 0.1
    max_depth: Positive = 100.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.min_depth < self.max_depth, "min_depth", self.min_depth, f"must be below max_depth {self.max_depth}")
        require_encoder("depth", self.encoder, self.encoder_widths)


@dataclass(frozen=True, kw_only=True)
class Gains(Checked):
    """By how much driven keypoints are exaggerated, so that the drawn face opens, smiles and looks as far as the driving one.

    A model draws less of a movement than its keypoints say. Gains are calibrated on training clips once the model is trained; 1 takes
    keypoints as they are.
    """

    mouth: Gain = 1.0
    smile: Gain = 1.0
    eyes: Gain = 1.0
    gaze: Gain = 1.0


@dataclass(frozen=True, kw_only=True)
class KeypointConfig(Checked):
    """The keypoint detector (docs/method.md#keypoints)."""

    count: Few = 15
    landmarks: tuple[MeshPoint, ...] = ()
    """The points of the face mesh (`dagan.media.landmarks`) on which the first keypoints stand, one each.

    Training guides the detector to them, and can draw with landmarks in place of what the detector finds there.
    """
    gains: Gains = field(default_factory=Gains)
    """By how much those keypoints are exaggerated while driving."""
    depth: bool = True
    """Whether keypoints are found on colours and depth; False finds them on colours alone. It needs `use_depth` of the model."""
    hourglass: HourglassConfig = field(default_factory=lambda: HourglassConfig(width=32))
    geometry: HourglassConfig | None = None
    """The hourglass of a branch of its own for depth; None stacks depth onto colours. It needs `depth`."""
    kernel: Kernel = 7
    """The side of the kernels of the two last convolutions, which have no padding."""
    temperature: Positive = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        numbers = list(self.landmarks)
        require(len(set(numbers)) == len(numbers) <= self.count, "keypoints landmarks", numbers, f"at most {self.count} different ones")


@dataclass(frozen=True, kw_only=True)
class MotionConfig(Checked):
    """The dense motion network (docs/method.md#dense-motion)."""

    hourglass: HourglassConfig = field(default_factory=lambda: HourglassConfig(width=64))
    kernel: Kernel = 7
    """The side of the kernels of its two last convolutions, which are padded."""
    variance: Positive = 0.01
    """The variance of the keypoints' heatmaps."""
    landmark_variance: Positive | None = None
    """The variance of the heatmaps of keypoints that stand on landmarks; None takes the same.

    An eye is 0.2 wide and a blink 0.07 high, and heatmaps of the paper's variance show upper and lower lid as one.
    """


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig(Checked):
    """The warping generator (docs/method.md#generator)."""

    decoder: Literal["residual", "spade", "pyramid"] = "residual"
    """"residual" is the paper's and "spade" the more natural one; "pyramid" is that of the lite models.

    The pyramid has warped features at every scale and blends with the warped source image.
    """
    width: AttendedChannels = 64
    """The channels after the first convolution."""
    max_width: AttendedChannels = 256
    """The most channels that any scale has."""
    downs: Annotated[int, Ge(1), Le(5)] = 2
    blocks: Annotated[int, Ge(0), Le(64)] = 6
    attention: Attention = "coarsest"
    """Where depth features ask warped appearance for features. It needs `use_depth` of the model.

    "none" leaves attention out, "coarsest" is the paper's, and "all" has it at every scale that the decoder draws at.
    """
    attention_keys: Few = 16
    """At finer scales, appearance is averaged to a map of at most this side before it is asked, so that memory grows with the places."""
    align_depth: bool = False
    """Whether the source's depth features are warped too before attention (docs/method.md#cross-modal-attention)."""
    landmark_variance: Positive | None = None
    """The variance of heatmaps of driving keypoints on landmarks, which the pyramid decoder gets at each of its scales; None gives none.

    Warping cannot make what the source does not show, and these heatmaps tell where to draw it.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        narrow = self.landmark_variance
        require(narrow is None or self.decoder == "pyramid", "generator landmark_variance", narrow, 'is for decoder "pyramid" alone')
        require(self.max_width >= self.width, "generator max_width", self.max_width, f"must be at least width {self.width}")
        if self.decoder == "spade":
            require(self.downs == 2, "generator downs", self.downs, "must be 2, as decoder spade enlarges twice")


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Checked):
    """A whole model."""

    name: str = "custom"
    image_size: Side = 256
    motion_size: Annotated[int, Ge(2), Le(4096)] = 64
    """The side at which keypoints and dense motion are computed. It must divide the image's."""
    use_depth: bool = True
    """Whether there is a depth network. False gives the RGB-only twin, where `keypoints.depth` and `generator.attention` have no effect."""
    normalise_depth: bool = False
    """Whether each disparity map is brought to the same mean and contrast before keypoints and attention see it."""
    align_corners: bool = True
    """The sampling convention. True fits the grids of docs/method.md#sampling (identity motion is exact); False is released weights'."""
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

    @property
    def depth_in_keypoints(self) -> bool:
        """Whether keypoints are found on colours and depth."""
        return self.use_depth and self.keypoints.depth

    @property
    def attention(self) -> Attention:
        """Where the generator attends; "none" without a depth network."""
        return self.generator.attention if self.use_depth else "none"

    def rgb_only(self) -> ModelConfig:
        """Returns the twin without depth network and attention, for ablation."""
        return replace(self, name=f"{self.name}-rgb", use_depth=False)


_PAPER = ModelConfig(name="paper-256")
_SPADE = replace(_PAPER, name="paper-spade-256", generator=GeneratorConfig(decoder="spade"))
_LITE = ModelConfig(
    name="lite-256",
    depth=DepthConfig(encoder="lite", encoder_widths=(32, 32, 64, 128, 192), decoder_widths=(16, 24, 32, 64, 96), size=128),
    # These are corners of the mouth, inner lips, lids, irises, outer lips, brows and chin. Seven keypoints are free.
    keypoints=KeypointConfig(
        count=22, landmarks=(61, 291, 13, 14, 159, 145, 386, 374, 468, 473, 0, 17, 105, 334, 152),
        hourglass=HourglassConfig(width=16, max_width=256), kernel=3,
    ),
    # Narrow heatmaps distinguish upper and lower lid, and tell the decoder where to draw what warping cannot make.
    motion=MotionConfig(hourglass=HourglassConfig(width=24, max_width=192), kernel=3, landmark_variance=0.001),
    generator=GeneratorConfig(
        decoder="pyramid", width=16, max_width=128, downs=3, blocks=3, align_depth=True, landmark_variance=0.0005
    ),
)


def _plus(base: ModelConfig, name: str, geometry: HourglassConfig) -> ModelConfig:
    """Returns a model with what DaGAN++ adds: keypoints on two branches and attention at every scale, here with aligned depth."""
    keypoints, generator = replace(base.keypoints, geometry=geometry), replace(base.generator, attention="all", align_depth=True)
    return replace(base, name=name, keypoints=keypoints, generator=generator)


_PLUS = _plus(_PAPER, "plus-256", HourglassConfig(width=16, max_width=256))
_PLUS_LITE = _plus(_LITE, "plus-lite-256", HourglassConfig(width=8, max_width=128))
PRESETS: dict[str, ModelConfig] = {
    c.name: c for c in (*(c for base in (_PAPER, _SPADE, _LITE) for c in (base, base.rgb_only())), _PLUS, _PLUS_LITE)
}


def preset(name: str) -> ModelConfig:
    """Returns the named model configuration. Raises InputError, naming the nearest presets, when there is none."""
    if name not in PRESETS:
        raise InputError(f"no preset is called {name!r}: {nearest(name, PRESETS)}")
    return PRESETS[name]
