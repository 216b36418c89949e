"""A model as readable, deterministic text: for people, diffs and expected results in tests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import onnx_ir as ir

SHOWN = 8  # elements of a constant that are printed; larger ones show a digest


def dump(model: ir.Model, *, metadata: bool = False) -> str:
    """Inputs, constants, nodes (with subgraphs), outputs and functions, one per line.

    Node names appear; with *metadata*, node metadata too. Constants are shown where they are used,
    small ones by value, others by type, shape and digest.
    """
    imports = ", ".join(f"{d or 'onnx'} {v}" for d, v in sorted(model.opset_imports.items()))
    lines = [f"model ir {model.ir_version}, {imports}"]
    lines += _graph(model.graph, "graph", 0, metadata)
    for function in model.functions.values():
        title = f"function {function.domain}::{function.name}"
        lines += _graph(function.graph, title, 0, metadata)
    return "\n".join(lines) + "\n"


def _graph(graph: ir.Graph, title: str, depth: int, metadata: bool) -> Iterator[str]:
    pad = "  " * depth
    inputs = ", ".join(_typed(value) for value in graph.inputs)
    yield f"{pad}{title}({inputs})"
    for value in graph.initializers.values():
        yield f"{pad}  {_name(value)} = {_constant(value)}"
    for node in graph:
        yield from _node(node, depth + 1, metadata)
    yield f"{pad}  return {', '.join(_typed(value) for value in graph.outputs)}"


def _node(node: ir.Node, depth: int, metadata: bool) -> Iterator[str]:
    pad = "  " * depth
    outs = ", ".join(_typed(value) for value in node.outputs)
    ins = ", ".join("_" if v is None else _name(v) for v in node.inputs)
    plain = [a for a in node.attributes.values() if a.is_ref() or a.type not in _GRAPHS]
    attributes = ", ".join(f"{a.name}={_attribute(a)}" for a in sorted(plain, key=_key))
    op = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    text = f"{pad}{outs} = {op}({ins})"
    if attributes:
        text += f" {{{attributes}}}"
    if node.name:
        text += f"  # {node.name}"
    yield text
    if metadata:
        for key, item in sorted(node.metadata_props.items()):
            yield f"{pad}  @{key} {item}"
    for attribute in sorted(node.attributes.values(), key=_key):
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield from _graph(attribute.as_graph(), attribute.name, depth + 1, metadata)
        elif attribute.type == ir.AttributeType.GRAPHS:
            for index, graph in enumerate(attribute.as_graphs()):
                yield from _graph(graph, f"{attribute.name}[{index}]", depth + 1, metadata)


_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def _key(attribute: ir.Attr) -> str:
    return attribute.name


def _name(value: ir.Value) -> str:
    return f"%{value.name}"


def _typed(value: ir.Value) -> str:
    kind = "" if value.type is None else f": {_type(value)}"
    return f"{_name(value)}{kind}"


def _type(value: ir.Value) -> str:
    if not isinstance(value.type, ir.TensorType):
        return str(value.type)
    if value.shape is None:
        return f"{value.type.dtype.name.lower()}[?]"
    dims = ",".join(str(d) if isinstance(d, int) else (d.value or "?") for d in value.shape.dims)
    return f"{value.type.dtype.name.lower()}[{dims}]"


def _constant(value: ir.Value) -> str:
    return "no data" if value.const_value is None else _tensor(value.const_value)


def _tensor(tensor: ir.TensorProtocol) -> str:
    kind = f"{tensor.dtype.name.lower()}[{','.join(map(str, tensor.shape.numpy()))}]"
    if tensor.dtype == ir.DataType.STRING:
        return f"{kind} {tensor.numpy().tolist()!r}"
    if tensor.size <= SHOWN:
        return f"{kind} {tensor.numpy().tolist()}"
    return f"{kind} sha256:{hashlib.sha256(tensor.tobytes()).hexdigest()[:12]}"


def _attribute(attribute: ir.Attr) -> str:
    if attribute.is_ref():
        return f"@{attribute.ref_attr_name}"
    if attribute.type == ir.AttributeType.TENSOR:
        return _tensor(attribute.as_tensor())
    if attribute.type == ir.AttributeType.STRING:
        return repr(attribute.as_string())
    if attribute.type == ir.AttributeType.FLOAT:
        return f"{attribute.as_float():.9g}"
    if attribute.type == ir.AttributeType.INTS:
        return str(list(attribute.as_ints()))
    if attribute.type == ir.AttributeType.FLOATS:
        return "[" + ", ".join(f"{x:.9g}" for x in attribute.as_floats()) + "]"
    return str(attribute.value)
