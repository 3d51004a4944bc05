"""The released layout: how the keys of the authors' published state dicts map to ours, both ways (METHOD page, parity).

Only names differ; every tensor is stored as it is. The blur kernels (`down.weight`) are constants here, so they are
dropped on the way in and rebuilt on the way out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from torch import Tensor

Part = Literal["depth_encoder", "depth_decoder", "kp_detector", "generator", "discriminator"]

_HOURGLASS = (("encoder.down_blocks.", "downs."), ("decoder.up_blocks.", "ups."))
# Per part: (released prefix, our prefix); the first that fits wins, so longer ones stand first.
_PREFIXES: dict[str, tuple[tuple[str, str], ...]] = {
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
        ("up_blocks.", "generator.decoder.ups."),
        ("bottleneck.r", "generator.decoder.blocks."),
        ("final.", "generator.decoder.final."),
        ("decoder.compress.", "generator.decoder.compress."),
        ("decoder.fc.", "generator.decoder.widen."),
        ("decoder.G_middle_", "generator.decoder.middle."),
        ("decoder.up_", "generator.decoder.ups."),
        ("decoder.conv_img.", "generator.decoder.final."),
    ),
    "discriminator": (
        *((f"discs.1.down_blocks.{i}.{a}.", f"{b}.{i}.") for i in range(4) for a, b in (("conv", "convs"), ("norm", "norms"))),
        ("discs.1.conv.", "final."),
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
_DROPPED = re.compile(r"(^|\.)down\.weight$|^encoder\.fc\.")


def our_key(part: Part, key: str) -> str | None:
    """Our name for a released key; None for one that we do not keep. Raises KeyError for a key of another layout."""
    if _DROPPED.search(key):
        return None
    for released, ours in _PREFIXES[part]:
        if key.startswith(released):
            key = ours + key.removeprefix(released)
            for a, b in _PARTS_OF_KEY:
                key = key.replace(a, b)
            return key
    raise KeyError(key)


def from_released(part: Part, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A released state dict under our names."""
    named = {our_key(part, key): tensor for key, tensor in state.items()}
    return {key: tensor for key, tensor in named.items() if key is not None}
