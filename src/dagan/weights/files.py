"""Model files: one safetensors file that carries its configuration, is found by name, and is read without executing anything from it.

The metadata entry "dagan" is JSON: {"format": 1, "config": {...}, "card": {...}}. The card is free text about the training. Tensors under
a prefix in `BESIDE` belong to no part of the model: a discriminator for fine-tuning, and what a released checkpoint holds that the
networks have no use for.

A name stands for a bundled model, a file, or a repository on the hub. `weights_digest` tells weights apart by their values.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from dagan.checks import dump, nearest, parse, text_path
from dagan.config import ModelConfig
from dagan.device import choose_device, choose_precision
from dagan.errors import InputError
from dagan.media.output import atomic_output
from dagan.models.dagan import DaGAN


def weights_digest(*modules: nn.Module | None) -> str:
    """Returns the SHA-256 (hexadecimal) of modules' parameters and buffers as float32. None stands for a part that is not there."""
    digest = hashlib.sha256()
    for module in modules:
        for key, tensor in () if module is None else sorted(module.state_dict().items()):
            digest.update(f"{key}{tuple(tensor.shape)}".encode())
            digest.update(np.ascontiguousarray(tensor.detach().cpu().float().numpy()).tobytes())
    return digest.hexdigest()


FORMAT = 1
BESIDE = DISCRIMINATOR, ASIDE = ("discriminator.", "released.")


def save_model(path: Path, model: DaGAN, card: Mapping[str, Any] | None = None, dtype: torch.dtype | None = None) -> None:
    """Writes weights and configuration to `path`, beside it first and then renamed. Floating point tensors are stored as `dtype`.

    Raises InputError for a folded model, because its weights fit no configuration.
    """
    if model.folded:
        raise InputError(f"{path} is not written: the model is folded for inference, save the one that it was folded from")
    tensors = {}
    for key, tensor in model.state_dict().items():
        stored = tensor.detach().to(dtype) if dtype is not None and tensor.is_floating_point() else tensor.detach()
        tensors[key] = stored.cpu().contiguous()
    write_file(path, model.config, tensors, card or {})


def write_file(path: Path, config: ModelConfig, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Writes a model file of these tensors as they are. `read_file` gives them back."""
    write_tensors(path, tensors, {"dagan": json.dumps({"format": FORMAT, "config": dump(config), "card": dict(card)})})


def read_model(path: Path) -> DaGAN:
    """Reads the model in `path`, float32, in evaluation mode, on the CPU.

    Raises InputError when the file is missing, damaged, a pickle, or does not fit its own configuration; it then names the keys.
    """
    config, _, tensors = read_file(path)
    model = DaGAN(config)
    load_weights(model, tensors, str(path))
    return model.eval()


def read_card(path: Path) -> dict[str, Any]:
    """Returns what the file says of its training."""
    return read_file(path)[1]


def read_file(path: Path) -> tuple[ModelConfig, dict[str, Any], dict[str, Tensor]]:
    """Returns the configuration, the card and the tensors of a model file. Raises InputError as `read_model` does."""
    tensors, metadata = read_tensors(path)
    return *_note(path, metadata), tensors


def read_config(path: Path) -> ModelConfig:
    """Reads the model's configuration without its tensors. Raises InputError as `read_model` does."""
    return _note(path, read_metadata(path))[0]


def _note(path: Path, metadata: Mapping[str, str]) -> tuple[ModelConfig, dict[str, Any]]:
    """Returns the configuration and the card in the metadata of a model file."""
    if "dagan" not in metadata:
        raise InputError(f"{path} carries no dagan configuration: it was written by another program, give a model file of this one")
    try:
        note = json.loads(metadata["dagan"])
        version = note["format"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: its configuration is damaged: write the file again") from None
    if version != FORMAT:
        raise InputError(f"{path} has format {version!r}, this version reads {FORMAT}: update dagan")
    return parse(ModelConfig, note.get("config"), str(path)), dict(note.get("card") or {})


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file beside its final name and then renames it.

    Bytes are written here, so that the file gets the usual permissions. Files that the library writes can be read only by their owner.
    """
    with atomic_output(path, overwrite=True) as partial:
        partial.write_bytes(save(dict(tensors), metadata=dict(metadata)))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns tensors and metadata of a safetensors file. Raises InputError when it is missing, damaged or of another kind."""
    with _opened(path) as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118 (not a mapping)


def read_metadata(path: Path) -> dict[str, str]:
    """Reads the metadata of a safetensors file without its tensors. Raises InputError as `read_tensors` does."""
    with _opened(path) as file:
        return file.metadata() or {}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise InputError(f"{path} does not exist: give a model file (.safetensors), the name of a bundled model or a hub id")
    try:
        with text_path(path) as name, safe_open(name, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError) as error:
        hint = "a pickled checkpoint: convert it first" if _looks_pickled(path) else "damaged, or of another kind"
        raise InputError(f"{path} is not a readable safetensors file ({hint}): {str(error).splitlines()[0][:120]}") from None


def load_weights(module: torch.nn.Module, tensors: Mapping[str, Tensor], where: str, to: str = "its configuration") -> None:
    """Fills `module`. Tensors under a prefix in `BESIDE` are ignored.

    Raises InputError that names `where` and lists missing, unexpected and differently shaped keys.
    """
    tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(BESIDE)}
    wanted = module.state_dict()
    faults = differences(wanted, tensors)
    if faults:
        raise InputError(f"{where} does not fit {to}: {faults}")
    module.load_state_dict({key: tensor.to(wanted[key].dtype) for key, tensor in tensors.items()})


def tensors_of(config: ModelConfig) -> dict[str, Tensor]:
    """Returns keys, shapes and types of a model's tensors without values. This takes no memory, whatever a file claims."""
    with torch.device("meta"):
        return DaGAN(config).state_dict()


def differences(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Says which keys are missing, unexpected, or of another shape or kind of number. The text is empty where all fits."""
    both = sorted(wanted.keys() & given.keys())
    shapes = [f"{k} is {tuple(given[k].shape)}, not {tuple(wanted[k].shape)}" for k in both if given[k].shape != wanted[k].shape]
    numbers = [
        f"{k} is {given[k].dtype}, not {wanted[k].dtype}" for k in both if given[k].is_floating_point() != wanted[k].is_floating_point()
    ]
    kinds = {
        "missing": sorted(wanted.keys() - given.keys()),
        "unexpected": sorted(given.keys() - wanted.keys()),
        "misshapen": shapes,
        "mistyped": numbers,
    }
    return "; ".join(f"{len(keys)} {kind}: {_shorten(keys)}" for kind, keys in kinds.items() if keys)


def _shorten(keys: list[str], most: int = 4) -> str:
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")


def _looks_pickled(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(4)
    return start[:2] == b"PK" or start[:1] == b"\x80"


_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
HUB_FILE = "model.safetensors"


def bundled() -> dict[str, Path]:
    """Returns the files of the models that come with the package, by their names."""
    folder = Path(str(resources.files("dagan.weights"))) / "bundled"
    return {file.stem: file for file in sorted(folder.glob("*.safetensors"))}


def load(name_or_path: str | Path = "lite-256", device: str = "auto", precision: str = "auto") -> DaGAN:
    """Loads a trained model in evaluation mode, on `device`, computing in `precision`.

    `name_or_path` is a bundled model's name (which needs no network), a model file, a folder with `model.safetensors`, or a hub id
    `owner/repository[@revision]` (fetched once, with a line that says so). `device` is auto, cpu, cuda, cuda:N or mps. `precision` is
    auto, float32, bfloat16, float16, or int8 (the lite models' decoder in bytes, on CPUs that multiply them). Raises InputError when there
    is no such model, device or precision, or when the file is damaged.
    """
    target = choose_device(device)
    model = read_model(find(str(name_or_path)))
    model.compute_dtype = choose_precision(precision, target)
    return model.to(target)


def find(name: str) -> Path:
    """Returns the model file that `name` (see `load`) stands for. A hub id is fetched. Raises InputError when there is none."""
    names = bundled()
    if name in names:
        return names[name]
    path = Path(name)
    if path.is_dir():
        return path / HUB_FILE
    if path.exists() or path.suffix:
        return path
    if _HUB_ID.fullmatch(name):
        return _fetch(name)
    raise InputError(f"no model is called {name!r}: {nearest(name, list(names))}, a model file, or a hub id owner/repository")


def _fetch(hub_id: str) -> Path:
    try:
        from huggingface_hub import hf_hub_download, hf_hub_url
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError:
        raise InputError(f"{hub_id} is a hub id, which needs huggingface_hub: pip install 'dagan[hub]'") from None
    repository, _, revision = hub_id.partition("@")
    try:
        return Path(hf_hub_download(repository, HUB_FILE, revision=revision or None, local_files_only=True))
    except (LocalEntryNotFoundError, OSError):
        pass
    # The hub client checks the size and the checksum that the repository states.
    address = hf_hub_url(repository, HUB_FILE, revision=revision or None)
    print(f"fetching {hub_id} from {address} (checked by its checksum)", file=sys.stderr)
    try:
        return Path(hf_hub_download(repository, HUB_FILE, revision=revision or None))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{hub_id} could not be fetched: {reason}") from None
