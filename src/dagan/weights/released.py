"""The released layout: how the keys of the authors' published state dicts map to ours, both ways (docs/method.md#released-weights).

Checkpoints saved with `torch.save` are read without executing anything from them. Torch's own `weights_only` reader does that; where it
cannot, this file says in one sentence what is wrong.

Only names differ: every tensor is stored as it is. Some tensors have no name of ours, because the networks here have no use for them
(`is_aside`). They are the blur kernels, which are constants here, and the depth encoder's classifier.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from dagan.checks import Checked
from dagan.errors import InputError

State = dict[str, Tensor]
_AGAIN = "download it again"
_UNREADABLE = f"damaged, or no checkpoint: {_AGAIN}"
# People give these files by mistake. They are recognised by their first bytes.
_SIGNATURES = (
    (b"<", f"a web page saved in place of the file: {_AGAIN}"),
    (b"version https://git-lfs", "a pointer of Git LFS: fetch the file itself (git lfs pull)"),
    (b"\x1f\x8b", "compressed with gzip: unpack it and give the file inside"),
    (b"BZh", "compressed with bzip2: unpack it and give the file inside"),
    (b"\xfd7zXZ", "compressed with xz: unpack it and give the file inside"),
    (b"7z\xbc\xaf", "a 7-Zip archive: unpack it and give the file inside"),
    (b"Rar!", "a RAR archive: unpack it and give the file inside"),
    (b"\x89HDF", "an HDF5 file: give a checkpoint written by torch.save"),
    (b"\x93NUMPY", "a numpy array: give a checkpoint written by torch.save"),
)
# Small tensors may repeat their values. A large one that does would fill the memory when it is copied.
_SLACK = 2**24
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


def read_checkpoint(path: Path) -> Any:
    """Reads what a file written by `torch.save` holds (mappings, lists, numbers, text and tensors), on the CPU.

    Raises InputError, with the reason, for a file that is missing, damaged, of another kind, or that holds anything that would have to be
    executed.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the checkpoint file in it")
    if not path.is_file():
        raise InputError(f"{path} does not exist: give the path of a released checkpoint")
    fault = _fault(path)
    if fault:
        raise InputError(f"{path} is {fault}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(f"{path} is {_pickle_fault(path, str(error))}") from None
    except Exception as error:  # A damaged file can fail anywhere in the reader.
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            raise InputError(f"{path} asks for more memory than there is: it is damaged, or needs a larger machine") from None
        raise InputError(f"{path} is {_UNREADABLE}") from None


def state_of(entry: Any, where: str) -> tuple[State, dict[str, Any], bool]:
    """Returns the tensors of a state dict, its other values, and whether the tensors' keys had the prefix `module.`.

    Tensors come without the prefix and own their memory. `where` names the state dict in errors. Raises InputError for anything that is
    not a flat state dict of plain, finite tensors and single values.
    """
    if not isinstance(entry, Mapping) or not all(isinstance(key, str) for key in entry):
        raise InputError(f"{where} is no state dict (it is a {type(entry).__name__}): give a released checkpoint")
    names = [key for key, value in entry.items() if isinstance(value, Tensor)]
    wrapped = bool(names) and all(key.startswith("module.") for key in names)
    tensors: State = {}
    values: dict[str, Any] = {}
    for name, value in entry.items():
        if isinstance(value, Tensor):
            key = name.removeprefix("module.") if wrapped else name
            if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
                raise InputError(f"{where}: {name} is sparse, quantised or without data: give plain tensors")
            if value.numel() * value.element_size() > value.untyped_storage().nbytes() + _SLACK:
                raise InputError(f"{where}: {name} claims {tuple(value.shape)} but holds fewer values: the file is damaged, {_AGAIN}")
            # Tensors are cloned, because those of one state dict may share memory, which the file format refuses.
            tensors[key] = value.detach().clone(memory_format=torch.contiguous_format)
            if value.is_floating_point() and not bool(torch.isfinite(tensors[key]).all()):
                raise InputError(f"{where}: {name} holds values that are not finite: the weights are damaged, {_AGAIN}")
        elif value is None or isinstance(value, bool | int | float | str):
            values[name] = value
        else:
            raise InputError(f"{where}: {name} is a {type(value).__name__}, not a tensor: give a released checkpoint")
    return tensors, values, wrapped


def _fault(path: Path) -> str | None:
    """Says what the file is, and what the user can do, if it is clearly no checkpoint. Returns None if it may be one."""
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        return f"empty: {_AGAIN}"
    for signature, meaning in _SIGNATURES:
        if start.startswith(signature):
            return meaning
    if start[257:262] == b"ustar":
        return "a tar archive, despite the usual name .pth.tar of checkpoints: unpack it and give the file inside"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size:
        return "a safetensors file, not a released checkpoint: load it as it is, or give --to-released to convert it back"
    return _zip_fault(path) if start.startswith(b"PK") else None


def _pickle_fault(path: Path, error: str) -> str:
    """Says why the reader of plain tensors stopped: at something to execute, at another program's pickle, or at nonsense."""
    wanted = _GLOBAL.search(error)
    with path.open("rb") as file:
        start = file.read(2)
    if not wanted and start != b"PK" and start[:1] != b"\x80":
        return _UNREADABLE
    detail = f"it asks to import {wanted[1]}" if wanted else "it is of another program"
    return f"a pickle that holds more than tensors ({detail}) and could run code: refused; give one with tensors alone"


def _zip_fault(path: Path) -> str | None:
    """Says what is wrong with a zip archive. Torch's reader checks neither sums nor the unpacked size, so both are checked here."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            if any(name.endswith("/constants.pkl") for name in names):
                return "a TorchScript program, which is code: give a checkpoint of tensors"
            if not any(name.count("/") == 1 and name.endswith("/data.pkl") for name in names):
                return "a zip archive that is no checkpoint: if one is inside, unpack it and give that file"
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                return "a zip archive repacked with compression, which torch.save never writes: give the original file"
            broken = archive.testzip()
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError, RuntimeError):
        return f"truncated or damaged: {_AGAIN}"
    return f"damaged (the checksum of {broken} is wrong): {_AGAIN}" if broken else None


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
