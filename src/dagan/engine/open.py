"""The only door to an engine: it turns a model's name, file or exported folder, and a runtime's name, into an engine that computes.

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
from dagan.engine.sessions import FORMAT, NOTE_FILE, READERS, TORCH, file_digest, is_exported, read_note, require
from dagan.engine.torch import TorchEngine
from dagan.errors import InputError
from dagan.models.dagan import DaGAN
from dagan.progress import Warn, to_stderr
from dagan.weights.files import find, load, read_config, weights_digest

# A function that writes a model's graphs into a folder. It is the export job, which an interface hands over.
Export = Callable[[DaGAN, Path], object]


@dataclass(frozen=True)
class Description:
    """What `open_engine` would open, with no choice left to "auto"."""

    runtime: str
    """The runtime's name."""
    device: str
    """The device that it computes on."""
    precision: str
    """The precision that it computes in."""
    digest: str
    """The SHA-256 of the model's file, or of an exported folder's note."""
    size: int
    """The side of the model's pictures."""


def describe(model: str, runtime: str | None = None, device: str = "auto", precision: str = "auto") -> Description:
    """Describes what `open_engine` would open, without loading weights. Raises InputError as that does."""
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
    """Opens an engine that computes `model` in `runtime`.

    `model` is a model, anything that `dagan.load` takes, or a folder that `dagan export` wrote. `runtime` is torch, onnxruntime or
    openvino; None means torch, or for an exported folder an installed runtime that reads it. `precision` is auto, float32, bfloat16
    (torch and openvino) or int8 (torch).
    Where a runtime needs graphs and `model` is no folder of them, `export` writes them once into the user's cache, and `warn` is told.
    Raises InputError when there is no such model or runtime, or when the two do not go together.
    """
    folder = None if isinstance(model, DaGAN) or not is_exported(Path(model)) else Path(model)
    if folder is None and runtime in (None, TORCH):
        return TorchEngine(model if isinstance(model, DaGAN) else load(model, device, precision), batch_size)
    check_batch_size(batch_size)
    if folder is None:
        assert runtime is not None
        require(runtime)
        _check_device(runtime, device)
        choose_graph_precision(precision, runtime)  # A wrong precision is refused before the model is exported.
        folder = cached_export(model if isinstance(model, DaGAN) else load(model, "cpu", "float32"), export, warn)
    runtime = _reader(folder, runtime)
    _check_device(runtime, device)
    return GraphEngine(folder, read_note(folder), runtime, precision, batch_size)


def cache_folder() -> Path:
    """Returns the user's folder for files that can be made again, at the place that is usual on the platform."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
        return Path(base) / "dagan" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "dagan"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dagan"


def cached_export(model: DaGAN, export: Export | None, warn: Warn = to_stderr) -> Path:
    """Returns the folder of the model's ONNX graphs in the user's cache. They are exported into it on first use.

    Raises InputError when they are not there and no `export` is given.
    """
    folder = cache_folder() / "export" / f"{model.config.name}-{weights_digest(model)[:16]}-{FORMAT}"
    try:
        read_note(folder)
    except InputError:  # The folder is not there yet, or incomplete.
        if export is None:
            name = model.config.name
            raise InputError(f"there are no graphs of {name!r} yet: write them with dagan export, and open their folder") from None
        warn(f"exporting {model.config.name} to {folder}, once: later runs start at once")
        export(model, folder)
    return folder


def _reader(folder: Path, runtime: str | None) -> str:
    """Chooses the runtime for an exported folder's graphs: the one that was asked for, or one that is installed.

    Raises InputError when the runtime cannot run such graphs.
    """
    kind = read_note(folder).kind
    if runtime is None:
        return next((name for name in READERS[kind] if find_spec(name) is not None), READERS[kind][0])
    if runtime not in READERS[kind]:
        raise InputError(f"{folder} holds {kind} graphs, which --runtime {runtime} cannot run: use {' or '.join(READERS[kind])}")
    return runtime


def _check_device(runtime: str, device: str) -> None:
    if device not in ("auto", "cpu"):
        raise InputError(f"--runtime {runtime} computes on the CPU here: use --runtime torch for --device {device}")
