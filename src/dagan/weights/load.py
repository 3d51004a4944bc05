"""Finding a model by name: bundled ones, files, and hub repositories."""

from __future__ import annotations

import re
import sys
from importlib import resources
from pathlib import Path

from dagan.checks import nearest
from dagan.device import choose_device, choose_precision
from dagan.errors import InputError
from dagan.models.dagan import DaGAN
from dagan.weights.files import read_model

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
HUB_FILE = "model.safetensors"


def bundled() -> dict[str, Path]:
    """Name -> file of the models that come with the package."""
    folder = Path(str(resources.files("dagan.weights"))) / "bundled"
    return {file.stem: file for file in sorted(folder.glob("*.safetensors"))}


def load(name_or_path: str | Path = "lite-256", device: str = "auto", precision: str = "auto") -> DaGAN:
    """A trained model in evaluation mode, on `device`, computing in `precision`.

    name_or_path: a bundled model's name (no network), a model file, a folder with `model.safetensors`, or a hub id
    `owner/repository[@revision]` (fetched once, with a line that says so). device: auto, cpu, cuda, cuda:N, mps. precision:
    auto, float32, bfloat16, float16, or int8 (the lite models' decoder in bytes, on CPUs that multiply them). Raises InputError when
    there is no such model, device or precision, or the file is damaged.
    """
    target = choose_device(device)
    model = read_model(find(str(name_or_path)))
    model.compute_dtype = choose_precision(precision, target)
    return model.to(target)


def find(name: str) -> Path:
    """The model file that `name` (see `load`) stands for; fetches it when it is a hub id. Raises InputError when there is none."""
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
