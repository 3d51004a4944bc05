"""Exported graphs: the note that describes their folder, and the sessions that run them.

The note, `export.json`, says enough to run the graphs without the model, here or in another program. A session runs one graph in one
runtime: it takes named arrays and gives named arrays. Runtimes are imported only here, on first use.

OpenVINO's own bfloat16 mode rounds the whole graph, including the positions at which pixels are looked up. Bfloat16 resolves these to
1/256 of the image, and faces jitter by half a pixel. Therefore the types are written into the graph here instead. Bfloat16 is used where
it does no harm, for convolutions and for what lies between them, and coordinates stay in float32. `DaGAN.compute_dtype` separates the
two in the same way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch

from dagan.checks import Checked, Few, Positive, Side, dump, parse, text_path
from dagan.config import ModelConfig
from dagan.errors import InputError

if TYPE_CHECKING:
    import openvino


NOTE_FILE = "export.json"
FORMAT = 2  # Since this format the generator gives its motion too.
ENCODER, KEYPOINTS, DEPTH, GENERATOR = "encoder", "keypoints", "depth", "generator"  # These are the names of the graphs.
Format = Literal["onnx", "openvino"]
SUFFIXES: dict[str, tuple[str, ...]] = {"onnx": (".onnx",), "openvino": (".xml", ".bin")}


@dataclass(frozen=True, kw_only=True)
class GraphNote(Checked):
    """What the note says about one graph."""

    files: dict[str, str]
    """The SHA-256 of each file by its name. The graph itself comes first, then files with its weights."""
    inputs: dict[str, list[int | str]]
    """The shape of each input by its name. A free dimension is called "batch"."""
    outputs: dict[str, list[int | str]]
    """The shape of each output by its name, likewise."""
    difference: float
    """The largest absolute difference between an output and PyTorch's in float32, measured on check pictures."""
    mean_difference: float
    """The mean absolute difference, measured likewise."""


@dataclass(frozen=True, kw_only=True)
class ExportNote(Checked):
    """What the note says about a folder of graphs."""

    format: int = FORMAT
    """The version of this note's format."""
    kind: Format
    """The format of the graphs."""
    name: str
    """The model's name."""
    image_size: Side
    """The side of the images that the model takes."""
    keypoints: Few
    """The number of the model's keypoints."""
    has_depth: bool
    """Whether the model has a depth network."""
    depth_range: tuple[Positive, Positive]
    """The nearest and the farthest depth."""
    detector: str
    """The digest of the weights that find keypoints; see `Engine.detector_digest`."""
    weights: str
    """The digest of all weights of the model."""
    opset: int
    """The version of ONNX's set of operators that the graphs use."""
    precision: Literal["float32", "int8"] = "float32"
    """This is int8 where convolutions were quantised."""
    quantised: list[str] = field(default_factory=list)
    """The names of the graphs whose convolutions were quantised."""
    weight_bits: int | None = None
    """The bits of quantised weights. Notes that do not say so have None; they mean 8 where anything was quantised."""
    graphs: dict[str, GraphNote]
    """What is to be said about each graph, by its name."""
    config: ModelConfig
    """The model's configuration."""


def write_note(folder: Path, note: ExportNote) -> None:
    """Writes the note into `folder`."""
    (folder / NOTE_FILE).write_text(json.dumps(dump(note), indent=1), encoding="utf-8")


def is_exported(path: Path) -> bool:
    """Says whether `path` is a folder that `dagan export` wrote."""
    return (path / NOTE_FILE).is_file()


def read_note(folder: Path) -> ExportNote:
    """Reads the note in `folder`. Raises InputError when it is missing, damaged or of another version."""
    path = folder / NOTE_FILE
    if not path.is_file():
        kind = "is not a folder that dagan export wrote: it has no" if folder.is_dir() else "does not exist: there is no"
        raise InputError(f"{folder} {kind} {NOTE_FILE}")
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
        version = data["format"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is damaged: export the model again") from None
    if version != FORMAT:
        raise InputError(f"{path} has format {version!r}, this version reads {FORMAT}: export the model again")
    return parse(ExportNote, data, str(path))


def check_files(folder: Path, graph: GraphNote) -> Path:
    """Compares the bytes of a graph's files with the note and returns the graph's path. Raises InputError for a missing or changed file."""
    for name, digest in graph.files.items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise InputError(f"{path} is missing: export the model again")
        if file_digest(path) != digest:
            raise InputError(f"{path} is damaged (its checksum differs from the one in {NOTE_FILE}): export the model again")
    return folder / next(iter(graph.files))


def file_digest(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


TORCH = "torch"  # This runtime computes models as they are, without graphs.
RUNTIMES = ("onnxruntime", "openvino")
# The runtimes that read each format of graphs.
READERS = {"onnx": ("onnxruntime", "openvino"), "openvino": ("openvino",)}
Arrays = Mapping[str, np.ndarray]


class Session(Protocol):
    """A graph ready to run."""

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Returns every output by its name. Inputs are float32, by their names; those that the graph does not have are ignored."""


def available() -> list[str]:
    """Returns the names of the runtimes that are installed, PyTorch first."""
    return [TORCH, *(name for name in RUNTIMES if find_spec(name) is not None)]


def require(runtime: str) -> None:
    """Raises InputError when `runtime` is unknown or not installed; the message names the extra to install."""
    if runtime not in RUNTIMES:
        raise InputError(f"runtime {runtime!r} is unknown: use torch, {' or '.join(RUNTIMES)} (others run what dagan export writes)")
    if find_spec(runtime) is None:
        raise InputError(f"the runtime {runtime} is not installed: pip install 'dagan[export]'")


def open_session(path: Path, runtime: str, precision: str = "float32") -> Session:
    """Compiles the graph in `path` for this machine's CPU.

    With precision bfloat16, which only openvino has, convolutions and attention compute in it. The session computes on as many threads as
    PyTorch does (`OMP_NUM_THREADS`). Raises InputError when the runtime is not installed or cannot read the file.
    """
    require(runtime)
    opener = _OnnxRuntime if runtime == "onnxruntime" else _OpenVino
    try:
        return opener(path, precision, torch.get_num_threads())
    except Exception as error:  # Each runtime raises exceptions of its own, some of them plain Exception.
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{path} cannot be read by {runtime} ({reason}): export the model again") from error


@cache
def openvino_core() -> openvino.Core:
    """Returns OpenVINO's core, of which a process has one, for as long as it lives.

    On processors with AMX the core gives the thread that makes it a stack for signals. Where another thread is the last to use the core, it
    takes that stack away, and the next signal (Ctrl-C, say) ends the process by a segmentation fault.
    """
    import openvino as ov

    return ov.Core()


def cpu_multiplies_bfloat16() -> bool:
    """Says whether OpenVINO multiplies faster in bfloat16 than in float32 on this CPU."""
    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class _OnnxRuntime:
    def __init__(self, path: Path, precision: str, threads: int) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # Only errors are shown. The runtime's warnings are about its own optimiser.
        # Idle threads that wait in a loop would take the cores from decoding, encoding and the other graphs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        with text_path(path.parent) as folder:
            self._session = ort.InferenceSession(str(folder / path.name), options, providers=["CPUExecutionProvider"])
        self._inputs = {i.name for i in self._session.get_inputs()}
        self._outputs = [o.name for o in self._session.get_outputs()]

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Implements the method of `Session`, which is documented there."""
        given = {name: np.ascontiguousarray(array) for name, array in inputs.items() if name in self._inputs}
        return dict(zip(self._outputs, self._session.run(self._outputs, given), strict=True))


class _OpenVino:
    def __init__(self, path: Path, precision: str, threads: int) -> None:
        core = openvino_core()
        with text_path(path.parent) as folder:
            model = core.read_model(str(folder / path.name))
        if precision == "bfloat16":
            lower(model)
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # The cores are shared with decoding and encoding.
            # The types written in the graph are used. The runtime's own bfloat16 mode would round coordinates too, by half a pixel at 256.
            "INFERENCE_PRECISION_HINT": "f32",
        }
        compiled = core.compile_model(model, "CPU", settings)
        self._inputs = {i.get_any_name() for i in compiled.inputs}
        self._outputs = [o.get_any_name() for o in compiled.outputs]
        self._request = compiled.create_infer_request()
        self._lock = Lock()

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Implements the method of `Session`, which is documented there."""
        given = {name: np.ascontiguousarray(array) for name, array in inputs.items() if name in self._inputs}
        with self._lock:  # A request computes one thing at a time. The results are copies, so they may be used outside.
            results = self._request.infer(given, share_inputs=True)
        return {name: results[name] for name in self._outputs}


_CONVOLUTIONS = frozenset({"Convolution", "GroupConvolution"})
_DETECTOR = "keypoint_detector."  # The names of the keypoint detector's weights contain this.


def lower(model: Any) -> int:
    """Changes an `openvino.Model` in place to compute in bfloat16, and returns the number of operations that do so now.

    These operations stay in float32: those that compute the positions of a sampling, back to and including the convolutions before it;
    likewise those that lead to a result; the keypoint detector; and those that inputs pass before the first convolution or matrix product.
    """
    import openvino as ov
    from openvino import opset13

    floats = {False: ov.Type.f32, True: ov.Type.bf16}
    nodes = model.get_ordered_ops()
    exact = _exact(nodes)
    lowered = {node.get_name() for node in nodes} - exact
    converted: dict[tuple[str, int, bool], Any] = {}
    for node in nodes:
        low = node.get_name() in lowered
        # The further inputs of a resize are sizes and scales, which keep their types. Constants and parameters have no inputs.
        for i in range(1 if node.get_type_name() == "Interpolate" else node.get_input_size()):
            output = node.input_value(i)
            source = output.get_node().get_name()
            if output.get_element_type() not in floats.values() or (source in lowered) == low:
                continue
            key = (source, output.get_index(), low)
            if key not in converted:
                converted[key] = opset13.convert(output, "bf16" if low else "f32").output(0)
            node.input(i).replace_source_output(converted[key])
    model.validate_nodes_and_infer_types()
    return len(lowered)


def _exact(nodes: list[Any]) -> set[str]:
    """Returns the names of the operations that stay in float32."""
    samplings = [node.input_value(1).get_node() for node in nodes if node.get_type_name() == "GridSample"]
    ends = [source for node in nodes if node.get_type_name() == "Result" for source in _sources(node)]
    starts = [user for node in nodes if node.get_type_name() == "Parameter" for user in _users(node)]
    exact = _walk([*samplings, *ends], _sources, last=_ends_exactness)
    exact |= _walk(starts, _users, stop=lambda node: node.get_type_name() in _CONVOLUTIONS | {"MatMul"})
    return exact | {node.get_name() for node in nodes if node.get_type_name() in ("Parameter", "Result", "Constant")}


def _ends_exactness(node: Any) -> bool:
    """Says whether operations before this one may be rounded, because it is a convolution outside the keypoint detector.

    Rounding in the keypoint detector would show as jitter.
    """
    return node.get_type_name() in _CONVOLUTIONS and not any(_DETECTOR in source.get_friendly_name() for source in _sources(node))


def _never(node: Any) -> bool:
    return False


def _walk(
    starts: Iterable[Any],
    step: Callable[[Any], list[Any]],
    stop: Callable[[Any], bool] = _never,
    last: Callable[[Any], bool] = _never,
) -> set[str]:
    """Returns the names of all operations that are reached from `starts`.

    The walk does not enter an operation for which `stop` holds. It enters one for which `last` holds, but goes no farther.
    """
    waiting, seen = list(starts), set[str]()
    while waiting:
        node = waiting.pop()
        if node.get_name() not in seen and not stop(node):
            seen.add(node.get_name())
            if not last(node):
                waiting += step(node)
    return seen


def _sources(node: Any) -> list[Any]:
    return [node.input_value(i).get_node() for i in range(node.get_input_size())]


def _users(node: Any) -> list[Any]:
    return [target.get_node() for output in node.outputs() for target in output.get_target_inputs()]
