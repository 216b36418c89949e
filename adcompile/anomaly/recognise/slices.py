"""Cut a piece of a graph out and run it: what a piece computes is the proof of what it is."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import onnx_ir as ir

from adcompile.errors import ModelError
from adcompile.interfaces import Array
from adcompile.ir.evaluate import open_model, runtime_errors, short_reason
from adcompile.ir.extract import extract
from adcompile.ir.graph import captured_values, is_constant


def downstream(values: Collection[ir.Value]) -> list[ir.Node]:
    """Every node of the values' graph that depends on one of *values*, in graph order."""
    found: set[ir.Node] = set()
    pending = list(values)
    while pending:
        for node in pending.pop().consumers():
            if node not in found:
                found.add(node)
                pending += node.outputs
    graphs = {node.graph for node in found if node.graph is not None}
    return [node for graph in graphs for node in graph if node in found]


def upstream(value: ir.Value) -> Iterator[ir.Node]:
    """The nodes that *value* depends on, but not what only their bodies read."""
    pending, seen = [value], {value}
    while pending:
        node = pending.pop().producer()
        if node is None:
            continue
        yield node
        for each in node.inputs:
            if each is not None and each not in seen:
                seen.add(each)
                pending.append(each)


def between(ends: Sequence[ir.Value], leaves: Collection[ir.Value]) -> list[ir.Node] | None:
    """The nodes that compute *ends* from *leaves* and constants alone; None when more is read."""
    nodes: dict[ir.Node, None] = {}
    pending = list(ends)
    while pending:
        value = pending.pop()
        if value in leaves or is_constant(value):
            continue
        node = value.producer()
        if node is None:
            return None
        if node not in nodes:
            nodes[node] = None
            pending += [v for v in (*node.inputs, *captured_values(node)) if v is not None]
    return list(nodes)


class Slice:
    """A piece of the graph, cut out and ready to run: *inputs* in, *outputs* out."""

    def __init__(
        self,
        model: ir.Model,
        nodes: Collection[ir.Node],
        inputs: Sequence[ir.Value],
        outputs: Sequence[ir.Value],
    ) -> None:
        self._outputs = [value.name or "" for value in outputs]
        self._session = open_model(extract(model, nodes, inputs, outputs, "slice"))

    def run(self, feeds: Mapping[ir.Value, Array]) -> list[Array]:
        """Arrays in the order of the outputs. ModelError when ONNX Runtime refuses."""
        named = {value.name or "": array for value, array in feeds.items()}
        try:
            return self._session.run(self._outputs, named)
        except runtime_errors() as error:
            raise ModelError("a piece of the graph cannot run", why=short_reason(error)) from error
