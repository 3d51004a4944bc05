"""The only door to an engine: a model's name, file or exported folder, and a runtime's name, become an engine that computes.

Interfaces open engines here and hand them to jobs, so that every job runs in every runtime.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from dagan.engine.base import Engine, check_batch_size
from dagan.engine.graphs import GraphEngine, choose_graph_precision
from dagan.engine.note import FORMAT, is_exported, read_note
from dagan.engine.sessions import READERS, TORCH, require
from dagan.engine.torch import TorchEngine
from dagan.errors import InputError
from dagan.models.dagan import DaGAN
from dagan.progress import Warn, to_stderr
from dagan.weights import load
from dagan.weights.files import weights_digest

# Writes a model's graphs into a folder: the export job, which an interface hands over.
Export = Callable[[DaGAN, Path], object]


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
    note = read_note(folder)
    if runtime is None:
        runtime = next((name for name in READERS[note.kind] if find_spec(name) is not None), READERS[note.kind][0])
    elif runtime not in READERS[note.kind]:
        raise InputError(f"{folder} holds {note.kind} graphs, which --runtime {runtime} cannot run: use {' or '.join(READERS[note.kind])}")
    _check_device(runtime, device)
    return GraphEngine(folder, note, runtime, precision, batch_size)


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


def _check_device(runtime: str, device: str) -> None:
    if device not in ("auto", "cpu"):
        raise InputError(f"--runtime {runtime} computes on the CPU here: use --runtime torch for --device {device}")
