"""The export job: a model in, a folder of graphs with its note out; every graph is compared with PyTorch before it counts."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from dagan.errors import InputError
from dagan.export.graphs import Graph, check_inputs, example_inputs, graphs_of
from dagan.export.note import NOTE_FILE, SUFFIXES, ExportNote, Format, GraphNote, file_digest, is_exported, read_note, write_note
from dagan.export.sessions import open_session, require
from dagan.inference.engine import Engine
from dagan.inference.progress import Progress, silent
from dagan.media.output import atomic_folder
from dagan.models.dagan import DaGAN
from dagan.weights.digest import weights_digest
from dagan.weights.fold import fold

OPSET = 18  # the first whose sampling, in four dimensions, is PyTorch's
WRITE = "exporting"
# Rounding alone stays far below; a graph that computes something else far above.
_TOLERANCE = 5e-3
_NEEDED = ("onnx", "onnxscript")


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """kind: onnx (for onnxruntime, OpenVINO, TensorRT) or openvino (its own files)."""

    kind: Format = "onnx"
    overwrite: bool = False


def export_model(model: DaGAN, folder: Path, options: ExportOptions | None = None, progress: Progress = silent) -> ExportNote:
    """Writes the graphs of `model` and their note into `folder`, whole or not at all.

    Raises InputError when a library is missing, when `folder` exists (without overwrite, or with other files in it), and when a
    graph does not compute what PyTorch does.
    """
    options = options or ExportOptions()
    check_export(folder, options)
    engine = Engine(model)  # before the copy: it tells the detector by its weights
    plain = fold(_on_cpu(model))
    graphs = graphs_of(plain)
    examples, checks = example_inputs(plain, graphs), check_inputs(plain, graphs)
    notes: dict[str, GraphNote] = {}
    with atomic_folder(folder, options.overwrite) as partial:
        for i, graph in enumerate(graphs):
            progress(WRITE, i, len(graphs))
            path = partial / f"{graph.name}{SUFFIXES[options.kind][0]}"
            _write(graph, examples[graph.name], path, options.kind)
            notes[graph.name] = _note(graph, checks[graph.name], path, options.kind)
        progress(WRITE, len(graphs), len(graphs))
        note = ExportNote(
            kind=options.kind,
            name=engine.name,
            image_size=engine.size,
            keypoints=engine.keypoint_count,
            has_depth=engine.has_depth,
            depth_range=engine.depth_range,
            detector=engine.detector_digest,
            weights=weights_digest(model),
            opset=OPSET,
            graphs=notes,
            config=model.config,
        )
        write_note(partial, note)
    return note


def check_export(folder: Path, options: ExportOptions) -> None:
    """Raises InputError for what can be refused before any work."""
    if options.kind not in get_args(Format):
        raise InputError(f"format {options.kind!r} is unknown: use {' or '.join(get_args(Format))}")
    for name in _NEEDED:
        if find_spec(name) is None:
            raise InputError(f"exporting needs {name}: pip install 'dagan[export]'")
    require(_checker(options.kind))
    if folder.is_dir() and any(folder.iterdir()):
        if not options.overwrite:
            raise InputError(f"{folder} exists already: choose another name, or replace it with --overwrite")
        ours = {NOTE_FILE}
        if is_exported(folder):
            ours |= {name for graph in read_note(folder).graphs.values() for name in graph.files}
        strange = sorted(path.name for path in folder.iterdir() if path.name not in ours)
        if strange:
            raise InputError(f"{folder} holds {strange[0]}, which dagan export did not write: choose another folder")


def _checker(kind: str) -> str:
    return "onnxruntime" if kind == "onnx" else "openvino"


def _on_cpu(model: DaGAN) -> DaGAN:
    """The model in float32 on the CPU; itself where it is there."""
    first = next(model.parameters())
    if first.device.type == "cpu" and model.compute_dtype == torch.float32:
        return model
    copy = DaGAN(model.config)
    copy.load_state_dict(model.state_dict())
    return copy.eval()


def _write(graph: Graph, inputs: Mapping[str, Tensor], path: Path, kind: str) -> None:
    onnx = path.with_suffix(".onnx")
    write_onnx(graph, dict(inputs), onnx)
    if kind == "openvino":
        import openvino as ov

        # The reader of ONNX files, not `openvino.convert_model`, which reports its use.
        ov.save_model(ov.Core().read_model(str(onnx)), str(path), compress_to_fp16=False)
        onnx.unlink()


def write_onnx(graph: Graph, inputs: dict[str, Tensor], path: Path) -> None:
    """One ONNX file with its weights inside and the batch free."""
    free = [{0: "batch"} if name in graph.batched else None for name in graph.inputs]
    shapes = tuple(free) if graph.grouped is None else (*free[: graph.grouped], free[graph.grouped :])
    with _quietly(), torch.no_grad():
        torch.onnx.export(
            graph.module,
            graph.arguments(inputs),
            str(path),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=shapes,
            external_data=False,
            verbose=False,
        )


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporter's remarks, which are about its own insides."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _note(graph: Graph, inputs: Mapping[str, Tensor], path: Path, kind: str) -> GraphNote:
    """Compares the file with PyTorch. Raises InputError when it computes something else."""
    wanted = graph.run(dict(inputs))
    found = open_session(path, _checker(kind)).run({name: tensor.numpy() for name, tensor in inputs.items()})
    difference = max(float(np.abs(found[name] - tensor.numpy()).max()) for name, tensor in wanted.items())
    if not difference <= _TOLERANCE:  # NaN too
        raise InputError(f"the exported {graph.name} differs from PyTorch by {difference:.2g}: it is not written")

    def shapes(tensors: Mapping[str, Tensor], batched: tuple[str, ...]) -> dict[str, Any]:
        return {name: ["batch" if name in batched else tensor.shape[0], *tensor.shape[1:]] for name, tensor in tensors.items()}

    return GraphNote(
        files={part.name: file_digest(part) for part in (path.with_suffix(suffix) for suffix in SUFFIXES[kind])},
        inputs=shapes({name: inputs[name] for name in graph.inputs}, graph.batched),
        outputs=shapes(wanted, graph.outputs),
        difference=difference,
    )
