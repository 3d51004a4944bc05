"""Exported graphs behind the engines' interface, and the one place where a model's name and a runtime's become an engine.

Legend: N pictures, S side of the model's images, K keypoints. Pictures are uint8 S x S x 3 RGB.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from dagan.errors import InputError
from dagan.export.graphs import DEPTH, ENCODER, GENERATOR, KEYPOINTS
from dagan.export.job import ExportOptions, export_model
from dagan.export.note import FORMAT, ExportNote, check_files, is_exported, read_note
from dagan.export.sessions import READERS, RUNTIMES, Session, cpu_multiplies_bfloat16, open_session, require
from dagan.inference.engine import Engine
from dagan.inference.openings import FaceKeypoints
from dagan.inference.runner import EncodedSource, Runner, check_batch_size, to_bytes, to_images
from dagan.media.notices import Warn, to_stderr
from dagan.models.dagan import DaGAN
from dagan.models.keypoints import Keypoints, on_landmarks
from dagan.weights import load
from dagan.weights.digest import weights_digest

TORCH = "torch"
# On a CPU larger batches cost memory and gain nothing.
_BATCH_SIZE = 4


def available() -> list[str]:
    """The runtimes that are installed, PyTorch first."""
    return [TORCH, *(name for name in RUNTIMES if find_spec(name) is not None)]


def open_engine(
    model: DaGAN | str | Path = "lite-256",
    runtime: str | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    warn: Warn = to_stderr,
) -> Runner:
    """An engine that computes `model` in `runtime`.

    model: a model, what `dagan.load` takes, or a folder that `dagan export` wrote. runtime: torch, onnxruntime or openvino; None is
    torch, for an exported folder a runtime that reads it. Where a runtime needs graphs and `model` is no folder of them, they are
    exported once into the user's cache, which `warn` hears. precision: auto, float32, bfloat16 (torch and openvino), or int8 (torch).
    Raises InputError when there is no such model or runtime, or when they do not go together.
    """
    folder = None if isinstance(model, DaGAN) or not is_exported(Path(model)) else Path(model)
    if folder is None and runtime in (None, TORCH):
        return Engine(model if isinstance(model, DaGAN) else load(model, device, precision), batch_size)
    check_batch_size(batch_size)
    if folder is None:
        assert runtime is not None
        require(runtime)
        _check_device(runtime, device)
        _choose_precision(precision, runtime)  # refused before the model is exported
        folder = cached_export(model if isinstance(model, DaGAN) else load(model, "cpu", "float32"), warn)
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


def cached_export(model: DaGAN, warn: Warn = to_stderr) -> Path:
    """The folder of the model's ONNX graphs in the user's cache, exported on first use."""
    folder = cache_folder() / "export" / f"{model.config.name}-{weights_digest(model)[:16]}-{FORMAT}"
    try:
        read_note(folder)
    except InputError:  # not there yet, or not whole
        warn(f"exporting {model.config.name} to {folder}, once: later runs start at once")
        export_model(model, folder, ExportOptions(overwrite=True))
    return folder


def _check_device(runtime: str, device: str) -> None:
    if device not in ("auto", "cpu"):
        raise InputError(f"--runtime {runtime} computes on the CPU here: use --runtime torch for --device {device}")


class GraphEngine(Runner):
    """Runs the graphs of an exported folder on the CPU.

    Graphs are read when first needed. Raises InputError for damaged files, and for a precision that the runtime does not have.
    """

    def __init__(self, folder: Path, note: ExportNote, runtime: str, precision: str = "auto", batch_size: int | None = None) -> None:
        check_batch_size(batch_size)
        require(runtime)
        self.name = note.name
        self.size = note.image_size
        self.keypoint_count = note.keypoints
        self.face = FaceKeypoints(note.config.keypoints.landmarks, note.config.keypoints.gains)
        self.has_depth = note.has_depth
        self.depth_range = note.depth_range
        self.batch_size = batch_size or _BATCH_SIZE
        self.device = f"cpu ({runtime})"
        self._compute = _choose_precision(precision, runtime)
        self.precision = self._compute if note.precision == "float32" else f"{note.precision} and {self._compute}"
        self._folder, self._note, self._runtime = folder, note, runtime
        self._sessions: dict[str, Session] = {}

    @property
    def detector_digest(self) -> str:
        """See Runner."""
        return self._note.detector

    def encode(self, picture: np.ndarray, places: np.ndarray | None = None) -> EncodedSource:
        """See Runner."""
        image = self._images([picture])
        content = {**self._run(ENCODER, {"image": image}), "source_image": image}
        found = _keypoints(content["source_value"], content["source_jacobian"])
        if places is not None:
            found = on_landmarks(found, torch.from_numpy(places)[None])
            content["source_value"] = found.value.numpy()
        return EncodedSource(found, content)

    def keypoints(self, pictures: Sequence[np.ndarray]) -> Keypoints:
        """See Runner."""
        found = self._run(KEYPOINTS, {"image": self._images(pictures)})
        return _keypoints(found["value"], found["jacobian"])

    def render(self, source: EncodedSource, keypoints: Keypoints) -> np.ndarray:
        """See Runner."""
        driven = {"value": keypoints.value.numpy(), "jacobian": keypoints.jacobian.numpy(), **source.content}
        return to_bytes(torch.from_numpy(self._run(GENERATOR, driven)["result"])).numpy()

    def disparity(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """See Runner."""
        if not self.has_depth:
            raise InputError(f"model {self.name!r} has no depth network: use one whose name does not end in -rgb")
        return self._run(DEPTH, {"image": self._images(pictures)})["disparity"][:, 0]

    def _images(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        return to_images(self.stacked(pictures)).numpy()

    def _run(self, graph: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if graph not in self._sessions:
            path = check_files(self._folder, self._note.graphs[graph])
            compute = "float32" if graph in self._note.quantised else self._compute
            self._sessions[graph] = open_session(path, self._runtime, compute)
        return self._sessions[graph].run(inputs)


def _choose_precision(name: str, runtime: str) -> str:
    """What convolutions compute in, where they are not quantised."""
    if name == "auto":
        return "bfloat16" if runtime == "openvino" and cpu_multiplies_bfloat16() else "float32"
    known = ("float32", "bfloat16") if runtime == "openvino" else ("float32",)
    if name not in known:
        raise InputError(f"--runtime {runtime} does not compute in {name!r}: use auto or {' or '.join(known)}")
    return name


def _keypoints(value: np.ndarray, jacobian: np.ndarray) -> Keypoints:
    return Keypoints(torch.from_numpy(value), torch.from_numpy(jacobian))
