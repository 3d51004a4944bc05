"""bfloat16 where it does no harm: convolutions, and what lies between them, of an OpenVINO graph; coordinates stay in float32.

OpenVINO's own bfloat16 mode takes the whole graph, look-up positions included, which bfloat16 resolves to 1/256 of the image: faces
jitter by half a pixel. Here the types are written into the graph instead, along the same line as `DaGAN.compute_dtype` draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

_CONVOLUTIONS = frozenset({"Convolution", "GroupConvolution"})


def lower(model: Any) -> int:
    """Changes an `openvino.Model` in place; the number of operations that compute in bfloat16 now.

    Exact stay: what positions are looked up at (back from every sampling to the convolutions before it), what leads to a result,
    and what inputs go through on their way to the first convolution or matrix product.
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
    exact = _walk([*samplings, *ends], _sources, frozenset(), last=_CONVOLUTIONS)
    exact |= _walk(starts, _users, _CONVOLUTIONS | {"MatMul"})
    return exact | {node.get_name() for node in nodes if node.get_type_name() in ("Parameter", "Result", "Constant")}


def _walk(
    starts: Iterable[Any], step: Callable[[Any], list[Any]], stop: frozenset[str], last: frozenset[str] = frozenset()
) -> set[str]:  # fmt: skip
    """Names of what is reached from `starts`: as far as operations of a type in `stop`, and through those in `last` but no farther."""
    waiting, seen = list(starts), set[str]()
    while waiting:
        node = waiting.pop()
        if node.get_type_name() not in stop and node.get_name() not in seen:
            seen.add(node.get_name())
            if node.get_type_name() not in last:
                waiting += step(node)
    return seen


def _sources(node: Any) -> list[Any]:
    return [node.input_value(i).get_node() for i in range(node.get_input_size())]


def _users(node: Any) -> list[Any]:
    return [target.get_node() for output in node.outputs() for target in output.get_target_inputs()]
