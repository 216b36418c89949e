"""Write a chosen quantization into a model as QuantizeLinear / DequantizeLinear nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from adcompile.interfaces import Array
from adcompile.ir.constants import add_constant
from adcompile.ir.graph import set_provenance
from adcompile.lower.grid import Floats, Grid
from adcompile.lower.points import Points
from adcompile.lower.scheme import Scheme

RULE = "quantize"


@dataclass(frozen=True)
class Stored:
    """A constant on its grid: the integers that go into the file."""

    grid: Grid
    values: Array


@dataclass(frozen=True)
class Assignment:
    """Everything the inserter needs: a grid per activation, the integers of every constant.

    ``replaced`` are constants that stay in float and get another value (corrected biases). Keys are
    node name and input index.
    """

    activations: Mapping[str, Grid]
    constants: Mapping[tuple[str, int], Stored]
    replaced: Mapping[tuple[str, int], Floats] = field(
        default_factory=dict[tuple[str, int], Floats]
    )


class _Writer:
    """Adds nodes and initializers with unique names to one graph."""

    def __init__(self, model: ir.Model, scheme: Scheme) -> None:
        self.graph = model.graph
        self.domain = scheme.domain
        self.taken = {v.name for n in self.graph for v in n.outputs}
        self.taken |= {v.name for v in self.graph.inputs} | set(self.graph.initializers)

    def unique(self, wanted: str) -> str:
        name, count = wanted, 2
        while name in self.taken:
            name, count = f"{wanted}_{count}", count + 1
        self.taken.add(name)
        return name

    def initializer(self, name: str, array: Array) -> ir.Value:
        return add_constant(self.graph, self.unique(name), array)

    def parameters(self, base: str, grid: Grid) -> tuple[ir.Value, ir.Value]:
        zero = np.full(grid.scale.shape, grid.zero_point, dtype=grid.dtype)
        return (
            self.initializer(f"{base}_scale", grid.scale.astype(np.float32)),
            self.initializer(f"{base}_zero_point", zero),
        )

    def node(
        self, op: str, base: str, inputs: list[ir.Value], grid: Grid, output: ir.Value
    ) -> ir.Node:
        attributes = [ir.AttrInt64("axis", grid.axis)] if grid.axis is not None else []
        name = self.unique(f"{base}_{op}")
        return ir.Node(self.domain, op, inputs, attributes, outputs=[output], name=name)


def insert(model: ir.Model, points: Points, assignment: Assignment, scheme: Scheme) -> None:
    """Change *model* in place. Grids and constants are taken as they are."""
    writer = _Writer(model, scheme)
    by_name = {node.name: node for node in model.graph}
    values = {v.name: v for v in model.graph.inputs}
    values |= {v.name: v for node in model.graph for v in node.outputs}
    for name, edges in points.readers.items():
        grid = assignment.activations[name]
        value = values[name]
        targets = None if edges is None else [(by_name[n], i) for n, i in edges]
        _activation(writer, model.graph, value, grid, targets)
    for (node_name, index), stored in assignment.constants.items():
        _constant(writer, by_name[node_name], index, stored)
    for (node_name, index), array in assignment.replaced.items():
        node = by_name[node_name]
        old = node.inputs[index]
        base = (old.name if old is not None else None) or node_name
        node.replace_input_with(index, writer.initializer(f"{base}_corrected", array))
    _drop_unused(model.graph)
    if scheme.domain:
        model.opset_imports.setdefault(scheme.domain, 1)


def _activation(
    writer: _Writer,
    graph: ir.Graph,
    value: ir.Value,
    grid: Grid,
    targets: list[tuple[ir.Node, int]] | None,
) -> None:
    base = value.name or ""
    uses = list(value.uses()) if targets is None else []
    is_output = targets is None and value.is_graph_output()
    if is_output:
        value.name = writer.unique(f"{base}_float")
    scale, zero = writer.parameters(base, grid)
    stored_type = ir.TensorType(ir.DataType[grid.dtype.upper()])
    stored = ir.Value(name=writer.unique(f"{base}_quantized"), shape=value.shape, type=stored_type)
    back_name = base if is_output else writer.unique(f"{base}_dequantized")
    back = ir.Value(name=back_name, shape=value.shape, type=ir.TensorType(ir.DataType.FLOAT))
    quantize = writer.node("QuantizeLinear", base, [value, scale, zero], grid, stored)
    restore = writer.node("DequantizeLinear", base, [stored, scale, zero], grid, back)
    producer = value.producer()
    if producer is not None:
        graph.insert_after(producer, [quantize, restore])
        for node in (quantize, restore):
            set_provenance(node, [producer], RULE)
    elif len(graph):
        graph.insert_before(graph[0], [quantize, restore])
    for use in uses:
        use.node.replace_input_with(use.idx, back)
    for node, index in targets or ():
        node.replace_input_with(index, back)
    if is_output:
        for index, output in enumerate(graph.outputs):
            if output is value:
                graph.outputs[index] = back


def _constant(writer: _Writer, node: ir.Node, index: int, stored: Stored) -> None:
    old = node.inputs[index]
    base = (old.name if old is not None else None) or f"{node.name}_{index}"
    scale, zero = writer.parameters(base, stored.grid)
    data = writer.initializer(f"{base}_quantized", stored.values)
    back = ir.Value(
        name=writer.unique(f"{base}_dequantized"),
        shape=ir.Shape(stored.values.shape),
        type=ir.TensorType(ir.DataType.FLOAT),
    )
    restore = writer.node("DequantizeLinear", base, [data, scale, zero], stored.grid, back)
    set_provenance(restore, [node], RULE)
    writer.graph.insert_before(node, restore)
    node.replace_input_with(index, back)


def _drop_unused(graph: ir.Graph) -> None:
    for name, value in list(graph.initializers.items()):
        if not list(value.uses()) and not value.is_graph_output() and not value.is_graph_input():
            del graph.initializers[name]


def name_nodes(model: ir.Model) -> None:
    """Give every node of the main graph a name of its own."""
    taken: set[str] = set()
    for index, node in enumerate(model.graph):
        wanted = node.name or f"{node.op_type}_{index}"
        name, count = wanted, 2
        while name in taken:
            name, count = f"{wanted}_{count}", count + 1
        taken.add(name)
        node.name = name
