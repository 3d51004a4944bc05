"""The released layout: how the keys of the authors' published state dicts map to ours, both ways (docs/method.md#released-weights).

Only names differ; every tensor is stored as it is. What the networks here have no use for (`aside`: the blur kernels, which
are constants here, and the depth encoder's classifier) has no name of ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from torch import Tensor

from dagan.checks import Checked

Part = Literal["depth_encoder", "depth_decoder", "kp_detector", "generator", "discriminator"]
Decoder = Literal["residual", "spade"]
PARTS: tuple[Part, ...] = get_args(Part)
# The depth network has a file per part; all others are entries of one checkpoint.
DEPTH_FILES: dict[Part, str] = {"depth_encoder": "encoder.pth", "depth_decoder": "depth.pth"}
# Key of a model file's card under which its `ReleasedNote` stands.
NOTE = "released"

_HOURGLASS = (("encoder.down_blocks.", "downs."), ("decoder.up_blocks.", "ups."))
# Per part: (released prefix, our prefix); the first that fits wins, so longer ones stand first.
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
# The generator's decoders share our names, so the way back needs to know which one it is.
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
    """What released files hold beside tensors, for the way back. wrapped: the parts whose keys carry the prefix `module.`;
    values: the single values (epoch, height, ...) of each part, and of the checkpoint itself."""

    wrapped: tuple[str, ...] = ()
    values: dict[str, dict[str, Any]] = field(default_factory=dict)


def is_aside(key: str) -> bool:
    """Whether a released key names a tensor that our networks have no use for."""
    return _ASIDE.search(key) is not None


def _prefixes(part: Part, decoder: Decoder | None) -> tuple[tuple[str, str], ...]:
    if part != "generator":
        return _PREFIXES[part]
    kinds = get_args(Decoder) if decoder is None else (decoder,)
    return _PREFIXES[part] + tuple(pair for kind in kinds for pair in _DECODERS[kind])


def our_key(part: Part, key: str, decoder: Decoder | None = None) -> str | None:
    """Our name for a released key; None for one that we do not keep. Raises KeyError for a key of another layout.

    decoder: of the generator; None takes the keys of both.
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
    """The released name for one of our keys, the inverse of `our_key`. Raises KeyError for a key of another part."""
    for released, ours in _prefixes(part, decoder):
        if key.startswith(ours):
            key = released + key.removeprefix(ours)
            for a, b in _PARTS_OF_KEY:
                key = key.replace(b, a)
            return key
    raise KeyError(key)


def from_released(part: Part, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A released state dict under our names, without what we do not keep. Raises KeyError for a key of another layout."""
    named = {our_key(part, key): tensor for key, tensor in state.items()}
    return {key: tensor for key, tensor in named.items() if key is not None}


def to_released(state: Mapping[str, Tensor], decoder: Decoder) -> dict[Part, dict[str, Tensor]]:
    """The state dict of a model (without discriminator) as the released parts'; parts without tensors are left out."""
    parts: dict[Part, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        part = next(p for p in PARTS if p != "discriminator" and key.startswith(tuple(ours for _, ours in _prefixes(p, decoder))))
        parts.setdefault(part, {})[released_key(part, key, decoder)] = tensor
    return parts
