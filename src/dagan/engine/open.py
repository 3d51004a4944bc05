"""The only door to an engine: a model's name, file or exported folder, and a runtime's name, become an engine that computes.

Interfaces open engines here and hand them to jobs, so that every job runs in every runtime.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from dagan.device import choose_device, choose_precision
from dagan.engine.base import Engine, check_batch_size
from dagan.engine.graphs import GraphEngine, choose_graph_precision
from dagan.engine.note import FORMAT, NOTE_FILE, file_digest, is_exported, read_note
from dagan.engine.sessions import READERS, TORCH, require
from dagan.engine.torch import TorchEngine
from dagan.errors import InputError
from dagan.models.dagan import DaGAN
from dagan.progress import Warn, to_stderr
from dagan.weights.files import find, load, read_config, weights_digest

# Writes a model's graphs into a folder: the export job, which an interface hands over.
Export = Callable[[DaGAN, Path], object]


@dataclass(frozen=True)
class Description:
    """What a model would be computed with, nothing left to "auto"; the SHA-256 of its file; and the side of its pictures."""

    runtime: str
    device: str
    precision: str
    digest: str
    size: int


def describe(model: str, runtime: str | None = None, device: str = "auto", precision: str = "auto") -> Description:
    """What `open_engine` would open, read without loading any weights. Raises InputError as that does."""
    folder = Path(model) if is_exported(Path(model)) else None
    if folder is None:
        file = find(model)
        if not file.is_file():
            raise InputError(f"model file {file} does not exist: give a bundled model's name, a model file, or a hub id owner/repository")
        digest, size = file_digest(file), read_config(file).image_size
        if runtime in (None, TORCH):
            target = choose_device(device)
            chosen = str(choose_precision(precision, target)).removeprefix("torch.")
            return Description(TORCH, str(target), chosen, digest, size)
        assert runtime is not None
    else:
        digest, size = file_digest(folder / NOTE_FILE), read_note(folder).image_size
        runtime = _reader(folder, runtime)
    require(runtime)
    _check_device(runtime, device)
    return Description(runtime, "cpu", choose_graph_precision(precision, runtime), digest, size)


def open_engine(
    model: DaGAN | str | Path = "lite-256",
    runtime: str | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    warn: Warn = to_stderr,
    export: Export | None = None,
) -> Engine:
    """An engine that computes `model` in `runtime`.

    model: a model, what `dagan.load` takes, or a folder that `dagan export` wrote. runtime: torch, onnxruntime or openvino; None is
    torch, for an exported folder a runtime that reads it. Where a runtime needs graphs and `model` is no folder of them, they are
    exported once by `export` (the engine does not know how) into the user's cache, which `warn` hears. precision: auto, float32,
    bfloat16 (torch and openvino), or int8 (torch).
    Raises InputError when there is no such model or runtime, or when they do not go together.
    """
    folder = None if isinstance(model, DaGAN) or not is_exported(Path(model)) else Path(model)
    if folder is None and runtime in (None, TORCH):
        return TorchEngine(model if isinstance(model, DaGAN) else load(model, device, precision), batch_size)
    check_batch_size(batch_size)
    if folder is None:
        assert runtime is not None
        require(runtime)
        _check_device(runtime, device)
        choose_graph_precision(precision, runtime)  # refused before the model is exported
        folder = cached_export(model if isinstance(model, DaGAN) else load(model, "cpu", "float32"), export, warn)
    runtime = _reader(folder, runtime)
    _check_device(runtime, device)
    return GraphEngine(folder, read_note(folder), runtime, precision, batch_size)


def cache_folder() -> Path:
    """The user's folder for files that can be made again, as the platform has it."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
        return Path(base) / "dagan" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "dagan"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dagan"


def cached_export(model: DaGAN, export: Export | None, warn: Warn = to_stderr) -> Path:
    """The folder of the model's ONNX graphs in the user's cache, exported on first use. Raises InputError where nothing exports."""
    folder = cache_folder() / "export" / f"{model.config.name}-{weights_digest(model)[:16]}-{FORMAT}"
    try:
        read_note(folder)
    except InputError:  # not there yet, or not whole
        if export is None:
            name = model.config.name
            raise InputError(f"there are no graphs of {name!r} yet: write them with dagan export, and open their folder") from None
        warn(f"exporting {model.config.name} to {folder}, once: later runs start at once")
        export(model, folder)
    return folder


def _reader(folder: Path, runtime: str | None) -> str:
    """The runtime for an exported folder's graphs: the asked one, or the first that is installed. Raises InputError."""
    kind = read_note(folder).kind
    if runtime is None:
        return next((name for name in READERS[kind] if find_spec(name) is not None), READERS[kind][0])
    if runtime not in READERS[kind]:
        raise InputError(f"{folder} holds {kind} graphs, which --runtime {runtime} cannot run: use {' or '.join(READERS[kind])}")
    return runtime


def _check_device(runtime: str, device: str) -> None:
    if device not in ("auto", "cpu"):
        raise InputError(f"--runtime {runtime} computes on the CPU here: use --runtime torch for --device {device}")
