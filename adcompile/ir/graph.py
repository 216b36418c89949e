"""Questions about ``onnx_ir`` graphs that the whole compiler asks in the same way.

Things to know about ``onnx_ir`` 1.1, each covered by a test: outputs of ``Constant`` nodes carry no
value (``model_io`` lifts them), a use may belong to a subgraph (``use.node.graph``), replacing uses
does not carry names over, and nodes inserted after the current one are visited by the same loop.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator

import numpy as np
import onnx_ir as ir

from adcompile.interfaces import Array
from adcompile.ir.model_io import subgraphs_of
from adcompile.manifest import TensorSpec

SOURCE_KEY = "adcompile.source"  # node metadata: JSON list of the names of source nodes
RULE_KEY = "adcompile.rule"  # node metadata: the rule that made the node
DOMAIN = "adcompile"
KERNELS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Ops that multiply by what was learned."""


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape as integers; None when it is unknown or has a free dimension."""
    if value is None or value.shape is None:
        return None
    dims = value.shape.dims
    return tuple(d for d in dims if isinstance(d, int)) if value.shape.is_static() else None


def rank(value: ir.Value | None) -> int | None:
    """Number of dimensions, None when unknown."""
    return None if value is None or value.shape is None else len(value.shape)


def is_constant(value: ir.Value | None) -> bool:
    """True for an initializer that no caller can override."""
    return (
        value is not None
        and value.is_initializer()
        and not value.is_graph_input()
        and value.const_value is not None
    )


def constant(value: ir.Value | None) -> Array | None:
    """The array behind an initializer, else None; read-only when it is a view of the file.

    Memory-mapped weights are not copied unless they lie unaligned in the file. String tensors give
    None: nothing computes on them here.
    """
    if value is None or not is_constant(value):
        return None
    tensor = value.const_value
    if tensor is None or tensor.dtype == ir.DataType.STRING:
        return None
    array: Array = tensor.numpy()
    return array if array.flags.aligned else array.copy()


def tensor_spec(value: ir.Value) -> TensorSpec:
    """Name, numpy dtype name and shape; a free dimension keeps its symbol ("?" without one)."""
    known = value.shape.dims if value.shape is not None else ()
    dims: tuple[int | str, ...] = tuple(d if isinstance(d, int) else d.value or "?" for d in known)
    return TensorSpec(name=value.name or "", dtype=dtype_name(value), shape=dims)


def dtype_name(value: ir.Value) -> str:
    """The numpy name of a value's element type ("float32"), "" when it is unknown.

    Values that are no tensors have theirs inside: ``sequence(float32)``, ``optional(float32)``.
    """
    return _type_name(value.type)


def _type_name(kind: ir.TypeProtocol | None) -> str:
    if isinstance(kind, ir.SequenceType):
        return f"sequence({_type_name(kind.elem_type)})"
    if isinstance(kind, ir.OptionalType):
        return f"optional({_type_name(kind.elem_type)})"
    if not isinstance(kind, ir.TensorType):
        return ""
    return "str" if kind.dtype == ir.DataType.STRING else str(np.dtype(kind.dtype.numpy()))


def all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Every node of the main graph and its subgraphs, a node before those inside it."""
    return walk(model.graph)


def walk(nodes: Iterable[ir.Node]) -> Iterator[ir.Node]:
    """Every node, and those in its subgraphs."""
    for node in nodes:
        yield node
        for graph in subgraphs_of(node):
            yield from walk(graph)


def count_nodes(model: ir.Model) -> tuple[int, int]:
    """Number of nodes in the main graph, and with those of all subgraphs."""
    return len(model.graph), sum(1 for _ in all_nodes(model))


def captured_values(node: ir.Node) -> list[ir.Value]:
    """Values that a node's subgraphs read from outside of the node, each once, in reading order."""
    inside: set[ir.Graph] = set()
    found: dict[ir.Value, None] = {}

    def visit(graph: ir.Graph) -> None:
        inside.add(graph)
        for inner in graph:
            for value in inner.inputs:
                if value is not None and value.graph not in inside:
                    found[value] = None
            for nested in subgraphs_of(inner):
                visit(nested)
        for value in graph.outputs:
            if value.graph not in inside:
                found[value] = None

    for graph in subgraphs_of(node):
        visit(graph)
    return [value for value in found if value.graph not in inside]


def opset(model: ir.Model) -> int:
    """Version of the default operator set."""
    return model.opset_imports.get("", 1)


def set_provenance(node: ir.Node, sources: Iterable[ir.Node], rule: str) -> None:
    """Record that *rule* made *node* from *sources*; keeps what those nodes came from."""
    names: dict[str, None] = {}
    for source in sources:
        for name in provenance(source):
            names[name] = None
    node.metadata_props[SOURCE_KEY] = json.dumps(list(names))
    node.metadata_props[RULE_KEY] = rule


def provenance(node: ir.Node) -> tuple[str, ...]:
    """Names of the nodes of the original model that *node* stands for."""
    text = node.metadata_props.get(SOURCE_KEY)
    if text is None:
        return (node.name,) if node.name else ()
    try:
        names: object = json.loads(text)
    except (ValueError, RecursionError):
        return (node.name,) if node.name else ()
    if not isinstance(names, list):
        return (node.name,) if node.name else ()
    return tuple(str(name) for name in names)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def macs(node: ir.Node) -> int:
    """Multiply-adds of one execution of a node: Conv, ConvTranspose, Gemm, MatMul, RNNs; else 0.

    0 too when a shape it needs is not static.
    """
    count = _MACS.get(node.op_type) if node.domain == "" else None
    return count(node) if count is not None else 0


def _conv_macs(node: ir.Node) -> int:
    weight, out = static_shape(node.inputs[1]), static_shape(node.outputs[0])
    return math.prod(out) * math.prod(weight[1:]) if weight and out else 0


def _deconv_macs(node: ir.Node) -> int:
    weight, data = static_shape(node.inputs[1]), static_shape(node.inputs[0])
    return math.prod(data) * math.prod(weight[1:]) if weight and data else 0


def _matmul_macs(node: ir.Node) -> int:
    left, out = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    return math.prod(out) * left[-1] if left and out is not None else 0


def _gemm_macs(node: ir.Node) -> int:
    left, out = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if not left or out is None:
        return 0
    attribute = node.attributes.get("transA")
    transposed = attribute is not None and attribute.value == 1
    return math.prod(out) * left[0 if transposed else -1]


def _recurrent_macs(node: ir.Node) -> int:
    data, weight, state = (static_shape(v) for v in node.inputs[:3])
    if not data or not weight or not state:
        return 0
    steps = data[0] * data[1]
    return steps * (math.prod(weight) + math.prod(state))


_MACS = {
    "Conv": _conv_macs,
    "ConvTranspose": _deconv_macs,
    "MatMul": _matmul_macs,
    "Gemm": _gemm_macs,
    "LSTM": _recurrent_macs,
    "GRU": _recurrent_macs,
    "RNN": _recurrent_macs,
}
