"""Takes depth away from trained weights, part by part, to show what they make of it.

    python benchmarks/depth_use.py lite-256 -o without-depth
    dagan evaluate reconstruction CLIPS --hold-out 0.1 --every 10 --model without-depth/flat.safetensors -o measured/flat

This writes three models: in `no-attention` attention adds nothing to what is drawn; in `flat` the depth network says the same of every
place, so neither keypoints nor attention see depth; in `unaligned` (or `aligned`) attention looks at depth of the source as it is where the
model brings it along the motion first, or the other way round. The rest of the weights stays as it was trained, so these are no models
of their own: one that was trained without depth would make up for it (`dagan ablate gan` trains such).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dagan.errors import InputError
from dagan.examples import PORTRAIT
from dagan.models.dagan import DaGAN
from dagan.models.generator import CrossModalAttention
from dagan.weights import load, save_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="bundled name or file of a model with depth")
    parser.add_argument("-o", "--output", type=Path, required=True, help="this folder takes the models")
    arguments = parser.parse_args()
    try:
        model = load(arguments.model)
    except InputError as error:
        raise SystemExit(str(error)) from None
    if model.depth_network is None:
        raise SystemExit(f"{arguments.model} has no depth network: there is nothing to take away")
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, changed in (("no-attention", without_attention(model)), ("flat", with_flat_depth(model)), turned_alignment(model)):
        save_model(arguments.output / f"{name}.safetensors", changed)
        print(arguments.output / f"{name}.safetensors")


def copy(model: DaGAN, aligned: bool | None = None) -> DaGAN:
    config = model.config
    if aligned is not None:
        config = replace(config, generator=replace(config.generator, align_depth=aligned))
    made = DaGAN(config)
    made.load_state_dict(model.state_dict())
    return made.eval()


def without_attention(model: DaGAN) -> DaGAN:
    changed = copy(model)
    for module in changed.modules():
        if isinstance(module, CrossModalAttention):
            torch.nn.init.zeros_(module.gamma)
    return changed


def with_flat_depth(model: DaGAN) -> DaGAN:
    """The last layers give, everywhere, the mean disparity of the bundled portrait, which is a usual one."""
    changed = copy(model)
    assert changed.depth_network is not None
    size = (model.config.image_size, model.config.image_size)
    portrait = torch.from_numpy(np.array(Image.open(PORTRAIT).convert("RGB").resize(size))).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        usual = torch.logit(changed.depth_network(portrait)[0].mean())
    for layer in changed.depth_network.decoder.disparity:
        for name, parameter in layer.named_parameters():
            torch.nn.init.constant_(parameter, float(usual) if name.endswith("bias") else 0.0)
    return changed


def turned_alignment(model: DaGAN) -> tuple[str, DaGAN]:
    aligned = not model.config.generator.align_depth
    return "aligned" if aligned else "unaligned", copy(model, aligned)


if __name__ == "__main__":
    main()
