"""Models of this package back into the released layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from torch import Tensor

from dagan.checks import parse
from dagan.config import ModelConfig
from dagan.errors import InputError
from dagan.models.blocks import BandLimitedDown
from dagan.weights.files import ASIDE, BESIDE, DISCRIMINATOR, differences, read_file, tensors_of
from dagan.weights.released import DEPTH_FILES, NOTE, Decoder, Part, ReleasedNote, released_key, to_released

CHECKPOINT_FILE = "checkpoint.pth.tar"


def released_files(path: Path) -> dict[str, dict[str, Any]]:
    """File name -> what `torch.save` is to write: the model file `path` in the released layout.

    A model that came from released files gives back each of their tensors, with its key, type and bytes. Raises InputError for
    a damaged file, and for a model that the released networks cannot compute.
    """
    config, card, tensors = read_file(path)
    _check_expressible(config, path)
    model = {key: tensor for key, tensor in tensors.items() if not key.startswith(BESIDE)}
    faults = differences(tensors_of(config), model)
    if faults:
        raise InputError(f"{path} does not fit its configuration: {faults}")
    parts = to_released(model, cast(Decoder, config.generator.decoder))
    critic = {released_key("discriminator", key): tensor for key, tensor in _under(DISCRIMINATOR, tensors).items()}
    if critic:
        parts["discriminator"] = critic
    note = parse(ReleasedNote, card[NOTE], str(path)) if NOTE in card else _note(config)
    for part, state in parts.items():
        state |= _under(f"{ASIDE}{part}.", tensors) if NOTE in card else _blur(part, config)
    entries = {str(part): _entry(part, state, note) for part, state in parts.items()}
    files = {name: entries.pop(part) for part, name in DEPTH_FILES.items() if part in entries}
    return {CHECKPOINT_FILE: {**entries, **note.values.get("checkpoint", {})}, **files}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def _entry(part: Part, state: dict[str, Tensor], note: ReleasedNote) -> dict[str, Any]:
    prefix = "module." if part in note.wrapped else ""
    return {**{prefix + key: tensor for key, tensor in state.items()}, **note.values.get(part, {})}


def _check_expressible(config: ModelConfig, path: Path) -> None:
    """The released networks know no others of these settings."""
    settings: dict[str, tuple[object, tuple[object, ...]]] = {
        "generator.decoder": (config.generator.decoder, ("residual", "spade")),
        "generator.align_depth": (config.generator.align_depth, (False,)),
        # A model trained with the consistent convention would draw half a pixel off.
        "align_corners": (config.align_corners, (False,)),
    }
    if config.use_depth:
        settings |= {"depth.encoder": (config.depth.encoder, ("resnet18", "resnet50")), "depth.size": (config.depth.size, (None,))}
    for name, (value, allowed) in settings.items():
        if value not in allowed:
            wanted = " or ".join(map(str, allowed))
            raise InputError(f"{path} cannot be written as a released checkpoint: its {name} is {value}, those have {wanted}")


def _note(config: ModelConfig) -> ReleasedNote:
    """For a model that was never in released files: what those hold beside tensors."""
    size = {"height": config.image_size, "width": config.image_size, "use_stereo": False}
    return ReleasedNote(values={"checkpoint": {"epoch": 0}, "depth_encoder": size})


def _blur(part: Part, config: ModelConfig) -> dict[str, Tensor]:
    """The blur kernels that the released networks store."""
    factor = config.image_size // config.motion_size
    if part == "kp_detector":
        return {"down.weight": BandLimitedDown(4 if config.use_depth else 3, factor).weight}
    return {"dense_motion_network.down.weight": BandLimitedDown(3, factor).weight} if part == "generator" else {}
