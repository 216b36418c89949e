"""common-subexpressions: compute equal things once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias, cast

import onnx_ir as ir

from adcompile.interfaces import Pass, Report
from adcompile.ir.model_io import subgraphs_of
from adcompile.rewrite.surgery import Names, inherit, take_over

Key: TypeAlias = "tuple[object, ...]"

RANDOM = frozenset(
    (
        *("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike"),
        *("RandomUniform", "RandomUniformLike"),
    )
)


@dataclass(frozen=True)
class CommonSubexpressions(Pass):
    """Nodes with the same operator, attributes and inputs become one.

    A node in a subgraph may use the result of an equal node around it, never the reverse. Random
    operators and nodes that hold graphs stay.
    """

    name: ClassVar[str] = "common-subexpressions"
    summary: ClassVar[str] = "compute equal expressions once"

    def run(self, model: ir.Model, report: Report) -> bool:
        """One walk in execution order; equal inputs are already one when a node is reached."""
        merged = _merge(model.graph, {}, Names(model))
        if merged:
            report.applied(self.name, "", detail=f"{merged} nodes merged")
        return merged > 0


def _merge(graph: ir.Graph, outer: dict[Key, ir.Node], names: Names) -> int:
    known = dict(outer)
    merged = 0
    for node in list(graph):
        for inner in subgraphs_of(node):
            merged += _merge(inner, known, names)
        key = _key(node)
        if key is None:
            continue
        first = known.setdefault(key, node)
        if first is node or not _compatible(node, first):
            continue
        for old, new in zip(node.outputs, first.outputs, strict=True):
            inherit(new, old)
            take_over(old, new, names)
        graph.remove(node, safe=True)
        merged += 1
    return merged


def _compatible(node: ir.Node, first: ir.Node) -> bool:
    """An output keeps its name, so it can only be merged into a plain value of the same graph."""
    if len(node.outputs) != len(first.outputs):
        return False
    for old, new in zip(node.outputs, first.outputs, strict=True):
        if bool(old.name) != bool(new.name):
            return False
        if old.is_graph_output() and (new.is_graph_output() or first.graph is not node.graph):
            return False
    return True


def _key(node: ir.Node) -> Key | None:
    if node.op_type in RANDOM or subgraphs_of(node):
        return None
    attributes: list[Key] = []
    for name in sorted(node.attributes):
        found = node.attributes[name]
        if found.is_ref():
            return None
        value: object = found.value
        if found.type == ir.AttributeType.TENSOR:
            tensor = found.as_tensor()
            if tensor.dtype == ir.DataType.STRING or tensor.nbytes > 4096:
                return None
            value = (tensor.dtype, tuple(tensor.shape.numpy()), tensor.tobytes())
        elif found.type not in _HASHABLE:
            return None
        elif isinstance(value, (list, tuple)):
            value = tuple(cast("list[object]", value))
        attributes.append((name, found.type, value))
    inputs = tuple(None if value is None else id(value) for value in node.inputs)
    return (node.domain, node.op_type, node.overload, len(node.outputs), inputs, *attributes)


_HASHABLE = (
    ir.AttributeType.INT,
    ir.AttributeType.FLOAT,
    ir.AttributeType.STRING,
    ir.AttributeType.INTS,
    ir.AttributeType.FLOATS,
    ir.AttributeType.STRINGS,
)
