"""Frozen configurations of the model family, the named presets, and strict reading from plain mappings.

Every preset builds the system of METHOD sections 2-5; they differ in widths, decoder and sampling convention.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from dagan.errors import InputError

STRICT = ConfigDict(extra="forbid")
T = TypeVar("T")
# Points of the face mesh that landmarks come from: 468 of the face, then five for each iris.
MESH_POINTS = 478


def _require(condition: bool, field_name: str, value: object, rule: str) -> None:
    if not condition:
        raise InputError(f"{field_name} is {value!r}: {rule}")


@dataclass(frozen=True, kw_only=True)
class HourglassConfig:
    """U-shaped network: widths min(max_width, width * 2^(i+1)) over `levels` halvings (METHOD section 1)."""

    __pydantic_config__ = STRICT
    width: int = 32
    max_width: int = 1024
    levels: int = 5

    def __post_init__(self) -> None:
        _require(self.width > 0, "hourglass width", self.width, "must be positive")
        _require(self.max_width >= self.width, "hourglass max_width", self.max_width, f"must be at least width {self.width}")
        _require(1 <= self.levels <= 7, "hourglass levels", self.levels, "must be 1 to 7")


@dataclass(frozen=True, kw_only=True)
class DepthConfig:
    """Face depth network (METHOD section 2). `size`: side the image is resized to first; None keeps the image's own."""

    __pydantic_config__ = STRICT
    encoder: Literal["resnet18", "resnet50", "lite"] = "resnet18"
    encoder_widths: tuple[int, int, int, int, int] = (64, 64, 128, 256, 512)
    decoder_widths: tuple[int, int, int, int, int] = (16, 32, 64, 128, 256)
    size: int | None = None
    min_depth: float = 0.1
    max_depth: float = 100.0

    def __post_init__(self) -> None:
        _require(0 < self.min_depth < self.max_depth, "min_depth", self.min_depth, f"must be in (0, max_depth {self.max_depth})")
        _require(self.size is None or self.size % 32 == 0, "depth size", self.size, "must be a multiple of 32")


@dataclass(frozen=True, kw_only=True)
class KeypointConfig:
    """Keypoint detector (METHOD section 3). `kernel`: side of the two head convolutions, which have no padding.

    landmarks: the points of the face mesh (`dagan.media.mesh_points`) that the first keypoints stand on, one each. Training guides
    the detector to them, and landmarks found in a frame can take the place of what the detector finds there.
    """

    __pydantic_config__ = STRICT
    count: int = 15
    landmarks: tuple[int, ...] = ()
    hourglass: HourglassConfig = field(default_factory=lambda: HourglassConfig(width=32))
    kernel: int = 7
    temperature: float = 0.1

    def __post_init__(self) -> None:
        _require(self.count >= 1, "keypoints count", self.count, "must be at least 1")
        _require(self.kernel % 2 == 1, "keypoints kernel", self.kernel, "must be odd")
        _require(self.temperature > 0, "keypoints temperature", self.temperature, "must be positive")
        numbers = list(self.landmarks)
        _require(len(set(numbers)) == len(numbers) <= self.count, "keypoints landmarks", numbers, f"at most {self.count} different ones")
        _require(all(0 <= n < MESH_POINTS for n in numbers), "keypoints landmarks", numbers, f"must be from 0 to {MESH_POINTS - 1}")


@dataclass(frozen=True, kw_only=True)
class MotionConfig:
    """Dense motion network (METHOD section 4). `kernel`: side of its two head convolutions, padded.

    variance: of the keypoints' heatmaps; landmark_variance: of those of keypoints that stand on landmarks, None takes the same. An
    eye is 0.2 wide and a blink 0.07 high: heatmaps of the paper's variance show upper and lower lid as one.
    """

    __pydantic_config__ = STRICT
    hourglass: HourglassConfig = field(default_factory=lambda: HourglassConfig(width=64))
    kernel: int = 7
    variance: float = 0.01
    landmark_variance: float | None = None

    def __post_init__(self) -> None:
        _require(self.kernel % 2 == 1, "motion kernel", self.kernel, "must be odd")
        _require(self.variance > 0, "motion variance", self.variance, "must be positive")
        narrow = self.landmark_variance
        _require(narrow is None or narrow > 0, "motion landmark_variance", narrow, "must be positive, or null for the same as variance")


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """Warping generator (METHOD section 5).

    decoder: "residual" (the paper's), "spade" (the more natural one), or "pyramid" (the lite design: warped features at
    every scale and a blend with the warped source image). width: channels after the first convolution; max_width: cap.
    align_depth: warp the source depth features too before attention (METHOD section 10, misalignment).
    landmark_variance: of the heatmaps of the driving keypoints that stand on landmarks, which the pyramid decoder then gets at each
    of its scales: warping cannot make what the source does not show, and these tell where to draw it. None gives it none.
    """

    __pydantic_config__ = STRICT
    decoder: Literal["residual", "spade", "pyramid"] = "residual"
    width: int = 64
    max_width: int = 256
    downs: int = 2
    blocks: int = 6
    align_depth: bool = False
    landmark_variance: float | None = None

    def __post_init__(self) -> None:
        narrow = self.landmark_variance
        _require(narrow is None or narrow > 0, "generator landmark_variance", narrow, "must be positive, or null for no heatmaps")
        _require(narrow is None or self.decoder == "pyramid", "generator landmark_variance", narrow, 'is for decoder "pyramid" alone')
        _require(self.width >= 8, "generator width", self.width, "must be at least 8")
        _require(self.downs >= 1, "generator downs", self.downs, "must be at least 1")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A whole model. `motion_size`: side at which keypoints and dense motion are computed (a divisor of the image's).

    use_depth: False gives the RGB-only twin (no depth network, no attention). align_corners: the sampling convention;
    True pairs with the grids of METHOD section 1 (identity motion is exact), False reproduces released weights.
    """

    __pydantic_config__ = STRICT
    name: str = "custom"
    image_size: int = 256
    motion_size: int = 64
    use_depth: bool = True
    align_corners: bool = True
    depth: DepthConfig = field(default_factory=DepthConfig)
    keypoints: KeypointConfig = field(default_factory=KeypointConfig)
    motion: MotionConfig = field(default_factory=MotionConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)

    def __post_init__(self) -> None:
        _require(self.image_size % 32 == 0 and self.image_size > 0, "image_size", self.image_size, "must be a multiple of 32")
        _require(
            self.motion_size > 0 and self.image_size % self.motion_size == 0,
            "motion_size", self.motion_size, f"must divide image_size {self.image_size}",
        )  # fmt: skip
        smallest = 2 ** max(self.keypoints.hourglass.levels, self.motion.hourglass.levels)
        _require(
            self.motion_size % smallest == 0,
            "motion_size", self.motion_size, f"must be a multiple of {smallest}, for the hourglass levels",
        )  # fmt: skip

        drawn = self.generator.landmark_variance
        _require(
            drawn is None or bool(self.keypoints.landmarks),
            "generator landmark_variance", drawn, "needs keypoints.landmarks, whose heatmaps the decoder is to get",
        )  # fmt: skip

    def rgb_only(self) -> ModelConfig:
        """The twin without depth network and attention, for ablation."""
        return replace(self, name=f"{self.name}-rgb", use_depth=False)


_PAPER = ModelConfig(name="paper-256")
_SPADE = replace(_PAPER, name="paper-spade-256", generator=GeneratorConfig(decoder="spade"))
# Corners of the mouth, inner lips, lids, irises, outer lips, brows and chin: what speech, blinks and looks move.
_LITE_LANDMARKS = (61, 291, 13, 14, 159, 145, 386, 374, 468, 473, 0, 17, 105, 334, 152)
_LITE = ModelConfig(
    name="lite-256",
    depth=DepthConfig(encoder="lite", encoder_widths=(32, 32, 64, 128, 192), decoder_widths=(16, 24, 32, 64, 96), size=128),
    keypoints=KeypointConfig(count=22, landmarks=_LITE_LANDMARKS, hourglass=HourglassConfig(width=16, max_width=256), kernel=3),
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


def nearest(word: str, choices: Mapping[str, Any] | list[str]) -> str:
    """"nearest: a, b (all: ...)" for error messages."""
    names = list(choices)
    close = difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    return (f"nearest: {', '.join(close)}; " if close else "") + f"there is {', '.join(names)}"


def parse(cls: type[T], data: Any, where: str) -> T:
    """Reads a plain mapping into the dataclass `cls`; `where` names the file or argument in errors.

    Raises InputError for unknown keys (with the nearest known ones), wrong types and values out of range.
    """
    try:
        return TypeAdapter(cls).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        path = [str(part) for part in first["loc"]]
        key = ".".join(path)
        if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            known = _fields_at(cls, path[:-1])
            raise InputError(f"{where}: unknown key {key!r}: {nearest(path[-1], known)}") from None
        # What a configuration itself refuses is a whole sentence, which pydantic puts its own words before.
        raise InputError(f"{where}: {key or cls.__name__}: {first['msg'].removeprefix('Value error, ')}") from None


def dump(config: Any) -> dict[str, Any]:
    """The configuration as a plain mapping that `parse` reads back to an equal object."""
    return TypeAdapter(type(config)).dump_python(config, mode="json")


def _fields_at(cls: Any, path: list[str]) -> list[str]:
    import typing

    for name in path:
        hints = typing.get_type_hints(cls)
        candidates = typing.get_args(hints.get(name)) or (hints.get(name),)
        cls = next((c for c in candidates if dataclasses.is_dataclass(c)), cls)
    return [f.name for f in dataclasses.fields(cls)]
