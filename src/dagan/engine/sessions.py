"""One graph in one runtime: named arrays in, named arrays out. Runtimes are imported here alone, when they are asked for.

In OpenVINO bfloat16 is used where it does no harm: for convolutions, and for what lies between them; coordinates stay in float32.
OpenVINO's own bfloat16 mode takes the whole graph, look-up positions included, which bfloat16 resolves to 1/256 of the image: faces
jitter by half a pixel. Here the types are written into the graph instead, along the same line as `DaGAN.compute_dtype` draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np
import torch

from dagan.errors import InputError
from dagan.names import text_path

TORCH = "torch"  # which runs models as they are, without graphs
RUNTIMES = ("onnxruntime", "openvino")
# Which runtimes read which format of graph.
READERS = {"onnx": ("onnxruntime", "openvino"), "openvino": ("openvino",)}
Arrays = Mapping[str, np.ndarray]


class Session(Protocol):
    """A graph ready to run."""

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Every output by its name, for float32 inputs by their names; inputs the graph does not have are passed over."""


def available() -> list[str]:
    """The runtimes that are installed, PyTorch first."""
    return [TORCH, *(name for name in RUNTIMES if find_spec(name) is not None)]


def require(runtime: str) -> None:
    """Raises InputError, naming the extra, when `runtime` is unknown or not installed."""
    if runtime not in RUNTIMES:
        raise InputError(f"runtime {runtime!r} is unknown: use torch, {' or '.join(RUNTIMES)} (others run what dagan export writes)")
    if find_spec(runtime) is None:
        raise InputError(f"the runtime {runtime} is not installed: pip install 'dagan[export]'")


def open_session(path: Path, runtime: str, precision: str = "float32") -> Session:
    """The graph in `path`, compiled for this machine's CPU.

    precision: float32, or bfloat16 (openvino alone) for convolutions and attention. It computes on as many threads as PyTorch has
    (`OMP_NUM_THREADS`). Raises InputError when the runtime is not installed or cannot read the file.
    """
    require(runtime)
    opener = _OnnxRuntime if runtime == "onnxruntime" else _OpenVino
    try:
        return opener(path, precision, torch.get_num_threads())
    except Exception as error:  # each runtime has exceptions of its own, some of them bare
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{path} cannot be read by {runtime} ({reason}): export the model again") from error


def cpu_multiplies_bfloat16() -> bool:
    """Whether OpenVINO multiplies in bfloat16 on this CPU faster than in float32."""
    import openvino as ov

    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class _OnnxRuntime:
    def __init__(self, path: Path, precision: str, threads: int) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors: its warnings are about its own optimiser
        # Idle threads that spin would take the cores from decoding, encoding, and the other graphs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        with text_path(path.parent) as folder:
            self._session = ort.InferenceSession(str(folder / path.name), options, providers=["CPUExecutionProvider"])
        self._inputs = {i.name for i in self._session.get_inputs()}
        self._outputs = [o.name for o in self._session.get_outputs()]

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """See Session."""
        given = {name: np.ascontiguousarray(array) for name, array in inputs.items() if name in self._inputs}
        return dict(zip(self._outputs, self._session.run(self._outputs, given), strict=True))


class _OpenVino:
    def __init__(self, path: Path, precision: str, threads: int) -> None:
        import openvino as ov

        core = ov.Core()
        with text_path(path.parent) as folder:
            model = core.read_model(str(folder / path.name))
        if precision == "bfloat16":
            lower(model)
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # the cores are shared with decoding and encoding
            # Types as the graph has them. The runtime's own bfloat16 mode rounds coordinates too: half a pixel at 256.
            "INFERENCE_PRECISION_HINT": "f32",
        }
        compiled = core.compile_model(model, "CPU", settings)
        self._inputs = {i.get_any_name() for i in compiled.inputs}
        self._outputs = [o.get_any_name() for o in compiled.outputs]
        self._request = compiled.create_infer_request()
        self._lock = Lock()

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """See Session."""
        given = {name: np.ascontiguousarray(array) for name, array in inputs.items() if name in self._inputs}
        with self._lock:  # a request computes one thing at a time; the results are copies
            results = self._request.infer(given, share_inputs=True)
        return {name: results[name] for name in self._outputs}


_CONVOLUTIONS = frozenset({"Convolution", "GroupConvolution"})
_DETECTOR = "keypoint_detector."  # in the names of its weights


def lower(model: Any) -> int:
    """Changes an `openvino.Model` in place; the number of operations that compute in bfloat16 now.

    Exact stay: what positions are looked up at (back from every sampling to the convolutions before it, which are exact too), what
    leads to a result likewise, the keypoint detector, and what inputs go through before the first convolution or matrix product.
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
        # Further inputs of a resize are sizes and scales; constants and parameters have none.
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
    """Names of the operations that stay in float32."""
    samplings = [node.input_value(1).get_node() for node in nodes if node.get_type_name() == "GridSample"]
    ends = [source for node in nodes if node.get_type_name() == "Result" for source in _sources(node)]
    starts = [user for node in nodes if node.get_type_name() == "Parameter" for user in _users(node)]
    exact = _walk([*samplings, *ends], _sources, last=_ends_exactness)
    exact |= _walk(starts, _users, stop=lambda node: node.get_type_name() in _CONVOLUTIONS | {"MatMul"})
    return exact | {node.get_name() for node in nodes if node.get_type_name() in ("Parameter", "Result", "Constant")}


def _ends_exactness(node: Any) -> bool:
    """Whether what comes before may be rounded: a convolution, but none of the keypoint detector, whose rounding shows as jitter."""
    return node.get_type_name() in _CONVOLUTIONS and not any(_DETECTOR in source.get_friendly_name() for source in _sources(node))


def _never(node: Any) -> bool:
    return False


def _walk(
    starts: Iterable[Any],
    step: Callable[[Any], list[Any]],
    stop: Callable[[Any], bool] = _never,
    last: Callable[[Any], bool] = _never,
) -> set[str]:
    """Names of what is reached from `starts`: not to operations at which to `stop`, and to those that are the `last` but no farther."""
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
