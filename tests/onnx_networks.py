"""ONNX networks small enough to write down, for tests of what takes a network by path."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def onnx_scaling(file: Path, factor: float, side: int | str = "side") -> Path:
    """Writes a network that multiplies N x 3 x side x side pictures by a factor."""
    shape = ["n", 3, side, side]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])], "scaling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)], [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.float32(factor), "factor")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), file)
    return file


def onnx_heatmaps(file: Path, count: int = 68) -> Path:
    """Writes a network that makes of each 3 x 256 x 256 picture `count` equal heatmaps of 64 x 64, its brightness in blocks of 4 x 4."""
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["x", "axis"], ["grey"], keepdims=1),
         helper.make_node("AveragePool", ["grey"], ["small"], kernel_shape=[4, 4], strides=[4, 4]),
         helper.make_node("Expand", ["small", "shape"], ["y"])], "heatmaps",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 256, 256])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", count, 64, 64])],
        [numpy_helper.from_array(np.array([1]), "axis"), numpy_helper.from_array(np.array([1, count, 64, 64]), "shape")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), file)
    return file


def onnx_brightness(file: Path, units: int = 3, side: int = 64, factor: float = 1.0) -> Path:
    """Writes a network that gives `units` numbers for each picture: its mean times `factor`, twice that, and so on, at most 1."""
    factors = factor * np.arange(1, units + 1, dtype=np.float32)[None]
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0), helper.make_node("Unsqueeze", ["mean", "last"], ["column"]),
         helper.make_node("Mul", ["column", "factors"], ["many"]), helper.make_node("Min", ["many", "one"], ["y"])], "brightness",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, side, side])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", units])],
        [numpy_helper.from_array(np.array([1, 2, 3]), "axes"), numpy_helper.from_array(np.array([1]), "last"),
         numpy_helper.from_array(factors, "factors"), numpy_helper.from_array(np.float32(1), "one")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), file)
    return file


def onnx_flattening(file: Path) -> Path:
    """Writes a network that makes a vector of each 3 x 112 x 112 picture, as those that tell faces apart do."""
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["y"], axis=1)], "flattening",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3 * 112 * 112])],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), file)
    return file
