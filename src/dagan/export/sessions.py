"""One graph in one runtime: named arrays in, named arrays out. Runtimes are imported here alone, when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np
import torch

from dagan.errors import InputError
from dagan.names import text_path

RUNTIMES = ("onnxruntime", "openvino")
# Which runtimes read which format of graph.
READERS = {"onnx": ("onnxruntime", "openvino"), "openvino": ("openvino",)}
Arrays = Mapping[str, np.ndarray]


class Session(Protocol):
    """A graph ready to run."""

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Every output by its name, for float32 inputs by their names; inputs the graph does not have are passed over."""


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

        from dagan.export.lowering import lower

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
