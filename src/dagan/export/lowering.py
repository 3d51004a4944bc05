"""bfloat16 where it does no harm: convolutions, and what lies between them, of an OpenVINO graph; coordinates stay in float32.

OpenVINO's own bfloat16 mode takes the whole graph, look-up positions included, which bfloat16 resolves to 1/256 of the image: faces
jitter by half a pixel. Here the types are written into the graph instead, along the same line as `DaGAN.compute_dtype` draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

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
