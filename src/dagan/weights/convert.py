"""Reads released checkpoints and converts them into models of this package, tensor for tensor, and back.

A released model is one `.pth.tar` file (keypoint detector, generator, often a discriminator) and, unless it is RGB-only, a folder with
`encoder.pth` and `depth.pth`. Everything in them that is no optimiser state is kept, so that the way back is exact.

Checkpoints saved with `torch.save` are read without executing anything from them. Torch's own `weights_only` reader does that; where it
cannot, this file says in one sentence what is wrong.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from dagan.checks import dump, parse
from dagan.config import ModelConfig
from dagan.device import choose_device, choose_precision
from dagan.errors import InputError
from dagan.models.blocks import BandLimitedDown
from dagan.models.dagan import DaGAN
from dagan.models.generator import Discriminator
from dagan.weights.files import ASIDE, BESIDE, DISCRIMINATOR, differences, load_weights, read_file, read_tensors, tensors_of, write_file
from dagan.weights.released import (
    DEPTH_FILES,
    NOTE,
    Decoder,
    Part,
    ReleasedNote,
    Shapes,
    decoder_of,
    discriminator_widths,
    from_released,
    has_depth,
    is_aside,
    model_config,
    released_key,
    to_released,
)

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


@dataclass(frozen=True)
class Released:
    """A released model under this package's names."""

    config: ModelConfig
    """The model's configuration."""
    tensors: dict[str, Tensor]
    """The model's tensors as they were stored, and beside them (see `files.BESIDE`) the discriminator and what has no use here."""
    note: ReleasedNote
    """What is needed for the way back."""

    @property
    def has_discriminator(self) -> bool:
        """Whether a discriminator is among the tensors."""
        return any(key.startswith(DISCRIMINATOR) for key in self.tensors)


def load_released(
    checkpoint: str | Path, depth_dir: str | Path | None = None, device: str = "auto", precision: str = "auto", image_size: int = 256
) -> DaGAN:
    """Loads the model of a released checkpoint, in evaluation mode, with the released sampling convention.

    `checkpoint` is the `.pth.tar` file. `depth_dir` is the folder with `encoder.pth` and `depth.pth`, or None for an RGB-only checkpoint.
    `device` and `precision` are as in `load`. `image_size` is the side of the images that it was trained on. Raises InputError for files
    that are missing, damaged, unsafe or of another layout, and names the keys that differ.
    """
    target = choose_device(device)
    released = read_released(Path(checkpoint), None if depth_dir is None else Path(depth_dir), image_size=image_size)
    model = DaGAN(released.config)
    load_weights(model, released.tensors, str(checkpoint))
    model.compute_dtype = choose_precision(precision, target)
    return model.eval().to(target)


def read_released(checkpoint: Path, depth_dir: Path | None = None, *, image_size: int = 256, with_discriminator: bool = False) -> Released:
    """Reads and checks a released model. Its decoder, widths, keypoints and ResNet are found from its tensors.

    Raises InputError as `load_released` does, and when a discriminator is asked for that is not there.
    """
    entries, values = _entries(checkpoint, with_discriminator)
    if has_depth(entries["kp_detector"].shapes, entries["generator"].shapes):
        if depth_dir is None:
            raise InputError(f"{checkpoint} needs its depth network: give the folder of encoder.pth and depth.pth (--depth-dir)")
        entries |= _depth_entries(depth_dir)
    elif depth_dir is not None:
        raise InputError(f"{checkpoint} is an RGB-only model, which takes no depth network: leave out --depth-dir")
    shapes = {part: entry.shapes for part, entry in entries.items()}
    config = model_config(shapes, image_size)
    wanted = to_released(tensors_of(config), decoder_of(shapes["generator"]))
    if "discriminator" in shapes:
        with torch.device("meta"):
            network = Discriminator(*discriminator_widths(shapes["discriminator"]))
        wanted["discriminator"] = {released_key("discriminator", key): t for key, t in network.state_dict().items()}
    tensors: State = {}
    for part, entry in entries.items():
        tensors |= _our_tensors(part, entry, wanted[part], config)
    wrapped = tuple(part for part, entry in entries.items() if entry.wrapped)
    beside = {"checkpoint": values} | {str(part): entry.values for part, entry in entries.items()}
    return Released(config, tensors, ReleasedNote(wrapped=wrapped, values=beside))


def save_released(path: Path, released: Released, source: str) -> None:
    """Writes the model file `path`. `source` says, for its card, where it came from."""
    write_file(path, released.config, released.tensors, {"source": source, NOTE: dump(released.note)})


def load_discriminator(network: Discriminator, path: Path) -> bool:
    """Fills `network` from the discriminator that the model file `path` keeps. Returns False where the file has none.

    Raises InputError when it does not fit.
    """
    tensors, _ = read_tensors(path)
    inner = {key.removeprefix(DISCRIMINATOR): t for key, t in tensors.items() if key.startswith(DISCRIMINATOR)}
    if inner:
        load_weights(network, inner, f"the discriminator of {path}", "this one")
    return bool(inner)


@dataclass(frozen=True)
class _Entry:
    """A state dict of a released file. `wrapped` says that its keys had the prefix `module.`."""

    where: str
    state: State
    values: dict[str, Any]
    wrapped: bool

    @property
    def shapes(self) -> Shapes:
        return Shapes(self.where, self.state)


def _entries(checkpoint: Path, with_discriminator: bool) -> tuple[dict[Part, _Entry], dict[str, Any]]:
    """Returns the networks of a checkpoint file, and the single values beside them, such as the epoch."""
    content = read_checkpoint(checkpoint)
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise InputError(f"{checkpoint} holds a {kind}, not the networks of a released checkpoint: give the .pth.tar file")
    names: tuple[Part, ...] = ("kp_detector", "generator")
    if with_discriminator:
        names = (*names, "discriminator")
    for name in names:
        if name not in content:
            has = ", ".join(str(key) for key in list(content)[:6]) or "nothing"
            remedy = "leave out --with-discriminator" if name == "discriminator" else "give the .pth.tar file of keypoints and generator"
            raise InputError(f"{checkpoint} has no entry {name} (it has {has}): {remedy}")
    values = {key: v for key, v in content.items() if isinstance(key, str) and isinstance(v, bool | int | float | str | None)}
    return {name: _entry(content[name], f"entry {name} of {checkpoint}") for name in names}, values


def _depth_entries(folder: Path) -> dict[Part, _Entry]:
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: give the one that holds encoder.pth and depth.pth (--depth-dir)")
    return {part: _entry(read_checkpoint(folder / name), f"{folder / name}") for part, name in DEPTH_FILES.items()}


def _entry(content: Any, where: str) -> _Entry:
    return _Entry(where, *state_of(content, where))


def _our_tensors(part: Part, entry: _Entry, wanted: Mapping[str, Tensor], config: ModelConfig) -> State:
    """Returns the tensors of one part under our names. Raises InputError where they are not those of `wanted`, under released names."""
    used = {key: tensor for key, tensor in entry.state.items() if not is_aside(key)}
    faults = differences(wanted, used)
    if faults:
        raise InputError(f"{entry.where} does not fit the released layout: {faults}")
    ours = from_released(part, used)
    if part == "discriminator":
        ours = {DISCRIMINATOR + key: tensor for key, tensor in ours.items()}
    aside = {key: tensor for key, tensor in entry.state.items() if is_aside(key)}
    for key, tensor in aside.items():
        if key.endswith("down.weight"):
            _check_blur(tensor, f"{entry.where} {key}", config, 4 if part == "kp_detector" and config.depth_in_keypoints else 3)
    return ours | {f"{ASIDE}{part}.{key}": tensor for key, tensor in aside.items()}


def _check_blur(kernel: Tensor, where: str, config: ModelConfig, channels: int) -> None:
    """Raises InputError where the file's blur kernel is not the one that is a constant here."""
    ours = BandLimitedDown(channels, config.image_size // config.motion_size).weight
    if kernel.shape != ours.shape or not bool((kernel.float() - ours).abs().max() < 1e-4):
        raise InputError(f"{where} is not the Gaussian of the released models, {tuple(ours.shape)}: give a checkpoint that has it")


CHECKPOINT_FILE = "checkpoint.pth.tar"


def released_files(path: Path) -> dict[str, dict[str, Any]]:
    """Returns what `torch.save` is to write into each file, by its name: the model file `path` in the released layout.

    A model that came from released files gives back each of their tensors, with its key, type and bytes. Raises InputError for a damaged
    file, and for a model that the released networks cannot compute.
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
    entries = {str(part): _released_entry(part, state, note) for part, state in parts.items()}
    files = {name: entries.pop(part) for part, name in DEPTH_FILES.items() if part in entries}
    return {CHECKPOINT_FILE: {**entries, **note.values.get("checkpoint", {})}, **files}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def _released_entry(part: Part, state: dict[str, Tensor], note: ReleasedNote) -> dict[str, Any]:
    prefix = "module." if part in note.wrapped else ""
    return {**{prefix + key: tensor for key, tensor in state.items()}, **note.values.get(part, {})}


def _check_expressible(config: ModelConfig, path: Path) -> None:
    """Raises InputError for settings that the released networks do not have."""
    settings: dict[str, tuple[object, tuple[object, ...]]] = {
        "generator.decoder": (config.generator.decoder, ("residual", "spade")),
        "generator.align_depth": (config.generator.align_depth, (False,)),
        "normalise_depth": (config.normalise_depth, (False,)),
        # They have depth in keypoints and attention, or neither.
        "keypoints.depth": (config.depth_in_keypoints, (config.use_depth,)),
        "keypoints.geometry": (config.keypoints.geometry, (None,)),
        "generator.attention": (config.attention, ("coarsest" if config.use_depth else "none",)),
        # A model that was trained with the consistent convention would draw half a pixel off.
        "align_corners": (config.align_corners, (False,)),
    }
    if config.use_depth:
        settings |= {"depth.encoder": (config.depth.encoder, ("resnet18", "resnet50")), "depth.size": (config.depth.size, (None,))}
    for name, (value, allowed) in settings.items():
        if value not in allowed:
            wanted = " or ".join(map(str, allowed))
            raise InputError(f"{path} cannot be written as a released checkpoint: its {name} is {value}, those have {wanted}")


def _note(config: ModelConfig) -> ReleasedNote:
    """Returns what released files hold beside tensors, for a model that was never in such files."""
    size = {"height": config.image_size, "width": config.image_size, "use_stereo": False}
    return ReleasedNote(values={"checkpoint": {"epoch": 0}, "depth_encoder": size})


def _blur(part: Part, config: ModelConfig) -> dict[str, Tensor]:
    """Returns the blur kernels that the released networks store."""
    factor = config.image_size // config.motion_size
    if part == "kp_detector":
        return {"down.weight": BandLimitedDown(4 if config.depth_in_keypoints else 3, factor).weight}
    return {"dense_motion_network.down.weight": BandLimitedDown(3, factor).weight} if part == "generator" else {}
