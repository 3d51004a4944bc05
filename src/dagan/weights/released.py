"""The released layout: how the keys of the authors' published state dicts map to ours, both ways (docs/method.md#released-weights).

Only names differ: every tensor is stored as it is. Some tensors have no name of ours, because the networks here have no use for them
(`is_aside`). They are the blur kernels, which are constants here, and the depth encoder's classifier.

The configuration of a released checkpoint is found from the names and shapes of its tensors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from torch import Tensor

from dagan.checks import Checked, parse
from dagan.config import DepthConfig, GeneratorConfig, HourglassConfig, KeypointConfig, ModelConfig, MotionConfig
from dagan.errors import InputError

Part = Literal["depth_encoder", "depth_decoder", "kp_detector", "generator", "discriminator"]
Decoder = Literal["residual", "spade"]
PARTS: tuple[Part, ...] = get_args(Part)
# The depth network has one file for each part. All other parts are entries of one checkpoint.
DEPTH_FILES: dict[Part, str] = {"depth_encoder": "encoder.pth", "depth_decoder": "depth.pth"}
NOTE = "released"  # A model file's card holds its `ReleasedNote` under this key.

_HOURGLASS = (("encoder.down_blocks.", "downs."), ("decoder.up_blocks.", "ups."))
# For each part these are pairs of a released prefix and ours. The first that fits is taken, so longer ones come first.
_PREFIXES: dict[Part, tuple[tuple[str, str], ...]] = {
    "depth_encoder": (("encoder.", "depth_network.encoder."),),
    "depth_decoder": (
        *((f"decoder.{10 + i}.conv.", f"depth_network.decoder.disparity.{i}.conv.") for i in range(4)),
        *((f"decoder.{i}.conv.conv.", f"depth_network.decoder.up.{i}.conv.") for i in range(10)),
    ),
    "kp_detector": (
        *((f"predictor.{a}", f"keypoint_detector.hourglass.{b}") for a, b in _HOURGLASS),
        ("kp.", "keypoint_detector.heatmap."),
        ("jacobian.", "keypoint_detector.jacobian."),
    ),
    "generator": (
        *((f"dense_motion_network.hourglass.{a}", f"dense_motion.hourglass.{b}") for a, b in _HOURGLASS),
        ("dense_motion_network.", "dense_motion."),
        ("first.", "generator.appearance.first."),
        ("down_blocks.", "generator.appearance.downs."),
        ("src_first.", "generator.depth.first."),
        ("src_down_blocks.", "generator.depth.downs."),
        ("AttnModule.gamma", "generator.attention.gamma"),
        *((f"AttnModule.{name}_conv.", f"generator.attention.{name}.") for name in ("query", "key", "value")),
    ),
    "discriminator": (
        *((f"discs.1.down_blocks.{i}.{a}.", f"{b}.{i}.") for i in range(4) for a, b in (("conv", "convs"), ("norm", "norms"))),
        ("discs.1.conv.", "final."),
    ),
}
# The generator's decoders share our names, so the way back must know which one it is.
_DECODERS: dict[Decoder, tuple[tuple[str, str], ...]] = {
    "residual": (
        ("up_blocks.", "generator.decoder.ups."),
        ("bottleneck.r", "generator.decoder.blocks."),
        ("final.", "generator.decoder.final."),
    ),
    "spade": (
        ("decoder.compress.", "generator.decoder.compress."),
        ("decoder.fc.", "generator.decoder.widen."),
        ("decoder.G_middle_", "generator.decoder.middle."),
        ("decoder.up_", "generator.decoder.ups."),
        ("decoder.conv_img.", "generator.decoder.final."),
    ),
}
_PARTS_OF_KEY = (
    (".mlp_shared.0.", ".shared."),
    (".mlp_gamma.", ".gamma."),
    (".mlp_beta.", ".beta."),
    (".weight_orig", ".parametrizations.weight.original"),
    (".weight_u", ".parametrizations.weight.0._u"),
    (".weight_v", ".parametrizations.weight.0._v"),
)
_ASIDE = re.compile(r"(^|\.)down\.weight$|^encoder\.fc\.")


@dataclass(frozen=True, kw_only=True)
class ReleasedNote(Checked):
    """What released files hold beside tensors, for the way back."""

    wrapped: tuple[str, ...] = ()
    """The parts whose keys have the prefix `module.`."""
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The single values (epoch, height and so on) of each part, and of the checkpoint itself."""


def is_aside(key: str) -> bool:
    """Says whether a released key names a tensor that our networks have no use for."""
    return _ASIDE.search(key) is not None


def _prefixes(part: Part, decoder: Decoder | None) -> tuple[tuple[str, str], ...]:
    if part != "generator":
        return _PREFIXES[part]
    kinds = get_args(Decoder) if decoder is None else (decoder,)
    return _PREFIXES[part] + tuple(pair for kind in kinds for pair in _DECODERS[kind])


def our_key(part: Part, key: str, decoder: Decoder | None = None) -> str | None:
    """Returns our name for a released key, or None for one that we do not keep. Raises KeyError for a key of another layout.

    `decoder` is the generator's. None takes the keys of both decoders.
    """
    if is_aside(key):
        return None
    for released, ours in _prefixes(part, decoder):
        if key.startswith(released):
            key = ours + key.removeprefix(released)
            for a, b in _PARTS_OF_KEY:
                key = key.replace(a, b)
            return key
    raise KeyError(key)


def released_key(part: Part, key: str, decoder: Decoder | None = None) -> str:
    """Returns the released name for one of our keys, as the inverse of `our_key`. Raises KeyError for a key of another part."""
    for released, ours in _prefixes(part, decoder):
        if key.startswith(ours):
            key = released + key.removeprefix(ours)
            for a, b in _PARTS_OF_KEY:
                key = key.replace(b, a)
            return key
    raise KeyError(key)


def from_released(part: Part, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a released state dict under our names, without what we do not keep. Raises KeyError for a key of another layout."""
    named = {our_key(part, key): tensor for key, tensor in state.items()}
    return {key: tensor for key, tensor in named.items() if key is not None}


def to_released(state: Mapping[str, Tensor], decoder: Decoder) -> dict[Part, dict[str, Tensor]]:
    """Returns the state dict of a model (without discriminator) as the released parts'. Parts without tensors are left out."""
    parts: dict[Part, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        part = next(p for p in PARTS if p != "discriminator" and key.startswith(tuple(ours for _, ours in _prefixes(p, decoder))))
        parts.setdefault(part, {})[released_key(part, key, decoder)] = tensor
    return parts


# The blocks of each stage and the convolutions of a block tell the encoder.
_RESNETS: dict[tuple[tuple[int, ...], int], str] = {((2, 2, 2, 2), 2): "resnet18", ((3, 4, 6, 3), 3): "resnet50"}
_REMEDY = "give a checkpoint of the released layout"
# The side of the blur kernel tells how much smaller keypoints and motion are computed (docs/method.md#building-blocks).
_FACTORS = {2 * round(2 * (factor - 1)) + 1: factor for factor in (1, 2, 4, 8)}


@dataclass(frozen=True)
class Shapes:
    """The shapes of a state dict's tensors. `where` names it in errors."""

    where: str
    state: Mapping[str, Tensor]

    def __getitem__(self, key: str) -> tuple[int, ...]:
        """Returns the shape of a tensor. Raises InputError when there is none of that name, or when its shape is empty."""
        if key not in self.state:
            near = ", ".join(sorted(self.state)[:3]) or "nothing"
            raise InputError(f"{self.where} has no {key} (it has {near} ...): {_REMEDY}")
        shape = tuple(self.state[key].shape)
        if not shape or 0 in shape:
            raise InputError(f"{self.where}: {key} has the shape {shape}: {_REMEDY}")
        return shape

    def count(self, pattern: str) -> int:
        """Returns how many numbered layers the checkpoint has, counted from 0, or 0 where no tensor's name begins with `pattern`.

        `pattern` is a regular expression whose one group finds the layer's number.
        """
        found = [int(match[1]) for key in self.state if (match := re.match(pattern, key))]
        return max(found, default=-1) + 1


def has_depth(kp_detector: Shapes, generator: Shapes) -> bool:
    """Says whether the checkpoint belongs to a depth network. Its RGB-only twin finds keypoints on three channels.

    Raises InputError when keypoint detector and generator are not of the same kind.
    """
    channels = _kernel(kp_detector, "predictor.encoder.down_blocks.0.conv.weight")[1]
    attends = any(key.startswith(("src_first.", "AttnModule.")) for key in generator.state)
    if channels not in (3, 4) or (channels == 4) != attends:
        kind = "with" if attends else "without"
        raise InputError(f"{kp_detector.where} takes {channels} channels, but the generator is one {kind} depth: {_REMEDY}")
    return attends


def decoder_of(generator: Shapes) -> Decoder:
    """Returns the kind of the generator's decoder."""
    return "spade" if any(key.startswith("decoder.") for key in generator.state) else "residual"


def model_config(states: Mapping[Part, Shapes], image_size: int) -> ModelConfig:
    """Returns the configuration of released networks, with the released sampling convention.

    Nothing in the weights tells the size of images. Raises InputError for tensors that are missing or fit no configuration.
    """
    finder, generator = states["kp_detector"], states["generator"]
    heads = _kernel(finder, "kp.weight")
    with _naming(finder):
        keypoints = KeypointConfig(count=heads[0], kernel=heads[2], hourglass=_hourglass(finder, "predictor."))
    with _naming(generator):
        kernel = _kernel(generator, "dense_motion_network.mask.weight")[2]
        motion = MotionConfig(kernel=kernel, hourglass=_hourglass(generator, "dense_motion_network.hourglass."))
    factor = _factor(finder, "down.weight")
    use_depth = has_depth(finder, generator)
    drawing = _generator(generator)
    if image_size % factor:
        raise InputError(f"image size is {image_size}: must be a multiple of {factor}, by which the checkpoint makes images smaller")
    spade = "-spade" if drawing.decoder == "spade" else ""
    return ModelConfig(
        name=f"released{spade}-{image_size}{'' if use_depth else '-rgb'}",
        image_size=image_size,
        motion_size=image_size // factor,
        use_depth=use_depth,
        align_corners=False,
        depth=_depth(states["depth_encoder"], states["depth_decoder"]) if use_depth else DepthConfig(),
        keypoints=keypoints,
        motion=motion,
        generator=drawing,
    )


def discriminator_widths(shapes: Shapes) -> tuple[int, int, int]:
    """Returns the number of keypoints, the width and the largest width of a discriminator, from its first and last convolution."""
    first, last = (_kernel(shapes, f"discs.1.down_blocks.{i}.conv.weight") for i in (0, 3))
    return first[1] - 3, first[0], max(first[0], last[0])


@contextmanager
def _naming(shapes: Shapes) -> Iterator[None]:
    """Adds to errors of configurations where the widths come from."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error) if shapes.where in str(error) else f"{shapes.where}: {error}") from None


def _kernel(shapes: Shapes, key: str) -> tuple[int, int, int, int]:
    shape = shapes[key]
    if len(shape) != 4:
        raise InputError(f"{shapes.where}: {key} has the shape {shape}, not that of a convolution: {_REMEDY}")
    return shape[0], shape[1], shape[2], shape[3]


def _factor(shapes: Shapes, key: str) -> int:
    size = _kernel(shapes, key)[2]
    if size not in _FACTORS:
        raise InputError(f"{shapes.where}: {key} is {size} x {size}: known blur kernels have a side of {', '.join(map(str, _FACTORS))}")
    return _FACTORS[size]


def _hourglass(shapes: Shapes, prefix: str) -> HourglassConfig:
    levels = shapes.count(re.escape(prefix) + r"encoder\.down_blocks\.(\d+)\.")
    down = [_kernel(shapes, f"{prefix}encoder.down_blocks.{i}.conv.weight")[0] for i in range(max(levels, 1))]
    width = _kernel(shapes, f"{prefix}decoder.up_blocks.{levels - 1}.conv.weight")[0]
    with _naming(shapes):
        return HourglassConfig(width=width, max_width=_cap(width, [width, *down], HourglassConfig().max_width), levels=levels)


def _cap(width: int, widths: list[int], usual: int) -> int:
    """Returns the largest width behind min(cap, width 2^i), or the usual one where the widths do not show it."""
    return usual if all(w == width * 2**i <= usual for i, w in enumerate(widths)) else max(widths)


def _generator(shapes: Shapes) -> GeneratorConfig:
    downs = shapes.count(r"down_blocks\.(\d+)\.")
    keys = ["first.conv.weight", *(f"down_blocks.{i}.conv.weight" for i in range(max(downs, 1)))]
    widths = [_kernel(shapes, key)[0] for key in keys]
    decoder = decoder_of(shapes)
    cap = _cap(widths[0], widths, GeneratorConfig().max_width)
    if decoder == "spade":  # This decoder works at twice the cap, and so shows it.
        cap = _kernel(shapes, "decoder.fc.weight")[0] // 2
    blocks = GeneratorConfig().blocks if decoder == "spade" else shapes.count(r"bottleneck\.r(\d+)\.")
    with _naming(shapes):
        return GeneratorConfig(decoder=decoder, width=widths[0], max_width=cap, downs=downs, blocks=blocks)


def _depth(encoder: Shapes, decoder: Shapes) -> DepthConfig:
    blocks = tuple(encoder.count(rf"encoder\.layer{i}\.(\d+)\.") for i in range(1, 5))
    _kernel(encoder, "encoder.conv1.weight")
    convolutions = 3 if "encoder.layer1.0.conv3.weight" in encoder.state else 2
    if (blocks, convolutions) not in _RESNETS:
        raise InputError(f"{encoder.where} is a ResNet with {blocks} blocks of {convolutions} convolutions: give a ResNet-18 or -50")
    widths = [_kernel(decoder, f"decoder.{2 * (4 - i)}.conv.conv.weight")[0] for i in range(5)]
    return parse(DepthConfig, {"encoder": _RESNETS[blocks, convolutions], "decoder_widths": widths}, decoder.where)
