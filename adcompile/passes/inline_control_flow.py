"""inline-control-flow: If with a constant condition, Loop with a small constant trip count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from adcompile.interfaces import Pass, Report
from adcompile.ir.constants import const
from adcompile.ir.graph import constant, opset, static_shape, walk
from adcompile.ir.model_io import subgraphs_of
from adcompile.rewrite.surgery import Names, inherit, release, take_over


@dataclass(frozen=True)
class InlineControlFlow(Pass):
    """Puts the taken branch of a decided If in its place, and unrolls short Loops.

    A Loop is unrolled when its trip count is a constant of at most ``max_trips``, it cannot stop
    earlier, and the copies have at most ``max_nodes`` nodes. Exact.
    """

    name: ClassVar[str] = "inline-control-flow"
    summary: ClassVar[str] = "inline decided Ifs, unroll Loops with few known trips"
    steps: ClassVar[Mapping[str, str]] = {
        "decided-if": "an If with a constant condition becomes the branch it takes",
        "unrolled-loop": "a Loop with few known trips becomes copies of its body",
    }
    max_trips: int = 1
    max_nodes: int = 1000

    def run(self, model: ir.Model, report: Report) -> bool:
        """Sweep over all graphs until nothing more can be inlined, outer nodes first."""
        changed = False
        names: Names | None = None
        while found := [n for n in walk(model.graph) if self._applies(n, model)]:
            names = names or Names(model)
            for node in found:
                if self._applies(node, model):  # False for nodes of a branch thrown away
                    self._inline(node, model, names, report)
            changed = True
        return changed

    def _inline(self, node: ir.Node, model: ir.Model, names: Names, report: Report) -> None:
        if node.op_type == "If":
            inline_if(node, names)
            report.applied("decided-if", node.name or "")
        else:
            unroll(node, model, trip_count(node) or 0, names)
            report.applied("unrolled-loop", node.name or "")

    def _applies(self, node: ir.Node, model: ir.Model) -> bool:
        if node.domain != "" or not isinstance(node.graph, ir.Graph):
            return False
        if node.op_type == "If":
            test = constant(node.inputs[0])
            return test is not None and test.size == 1 and len(subgraphs_of(node)) == 2
        if node.op_type != "Loop" or opset(model) < 8:
            return False
        trips = trip_count(node)
        if trips is None or trips > self.max_trips or not _runs_to_the_end(node, trips):
            return False
        body = subgraphs_of(node)[0]
        if trips == 0 and len(node.outputs) > len(node.inputs) - 2:
            return False  # an empty scan output would need a shape that nobody knows
        return trips * sum(1 for _ in walk(body)) <= self.max_nodes


def trip_count(loop: ir.Node) -> int | None:
    """The number of iterations, when constant: 0 too when the start condition is False."""
    start = constant(loop.inputs[1]) if len(loop.inputs) > 1 and loop.inputs[1] else np.True_
    if start is None:
        return None
    if start.size == 1 and not bool(start.reshape(-1)[0]):
        return 0
    trips = constant(loop.inputs[0]) if loop.inputs else None
    return None if trips is None or trips.size != 1 else max(0, int(trips.reshape(-1)[0]))


def _runs_to_the_end(loop: ir.Node, trips: int) -> bool:
    """True when the condition cannot end the loop before its last trip."""
    if trips <= 1:
        return True
    body = subgraphs_of(loop)[0]
    condition = body.outputs[0]
    while True:
        node = condition.producer()
        if condition is body.inputs[1]:
            return True
        if node is None:
            found = constant(condition)
            return found is not None and bool(np.all(found))
        if node.op_type == "Constant" and "value" in node.attributes:
            return bool(np.all(node.attributes["value"].as_tensor().numpy()))
        if node.op_type != "Identity" or node.inputs[0] is None:
            return False
        condition = node.inputs[0]


def inline_if(node: ir.Node, names: Names) -> None:
    """Replace a decided If by the nodes of its branch."""
    test = constant(node.inputs[0])
    taken = "then_branch" if test is not None and bool(test.reshape(-1)[0]) else "else_branch"
    chosen = node.attributes[taken].as_graph()
    results = list(chosen.outputs)
    chosen.outputs.clear()
    _replace(node, names, _take_nodes(chosen), list(chosen.initializers.values()), results)


def _take_nodes(graph: ir.Graph) -> list[ir.Node]:
    nodes = list(graph)
    graph.remove(nodes)
    return nodes


def _replace(
    node: ir.Node,
    names: Names,
    nodes: Sequence[ir.Node],
    constants: Sequence[ir.Value],
    results: Sequence[ir.Value],
) -> None:
    """Put free *nodes* and *constants* in place of *node*, whose outputs become *results*."""
    graph = node.graph
    if not isinstance(graph, ir.Graph):
        return
    for value in constants:
        if value.graph is not None:
            del value.graph.initializers[value.name or ""]
    release(node)
    for attribute in list(node.attributes):
        node.attributes.pop(attribute)
    for value in constants:
        names.free(value.name)
        value.name = names.fresh(value.name or "constant")
        graph.initializers.add(value)
    for inner in nodes:
        _rename(inner, names)
    graph.insert_before(node, nodes)
    for old, new in zip(node.outputs, results, strict=True):
        _stand_in(node, old, new, names)
    graph.remove(node, safe=True)


def _rename(node: ir.Node, names: Names) -> None:
    """Give a moved node and everything inside it names that are unused where it goes."""
    for each in walk([node]):
        if each.name:
            names.free(each.name)
            each.name = names.fresh(each.name)
        inner = subgraphs_of(each)
        formal = [v for g in inner for v in (*g.inputs, *list(g.initializers.values()))]
        for value in (*each.outputs, *formal):
            if value.name:
                names.free(value.name)
                value.name = names.fresh(value.name)


def _stand_in(node: ir.Node, old: ir.Value, new: ir.Value, names: Names) -> None:
    """*new* replaces *old*; a graph output that has no node of its own gets an Identity."""
    graph = node.graph
    producer = new.producer()
    own = producer is not None and producer.graph is graph and not new.is_graph_output()
    if old.is_graph_output() and not own and isinstance(graph, ir.Graph):
        identity = ir.Node("", "Identity", [new], num_outputs=1)
        identity.name = names.fresh(f"{node.name or old.name}/output")
        identity.outputs[0].name = names.fresh(f"{old.name}_identity")
        graph.insert_before(node, identity)
        new = identity.outputs[0]
    inherit(new, old)
    take_over(old, new, names)


def unroll(loop: ir.Node, model: ir.Model, trips: int, names: Names) -> None:
    """Replace a Loop by *trips* copies of its body."""
    body = subgraphs_of(loop)[0]
    carried = [v for v in loop.inputs[2:] if v is not None]
    count = len(carried)
    start = loop.inputs[1] if len(loop.inputs) > 1 else None
    condition = const(np.asarray(True)) if start is None else start
    nodes: list[ir.Node] = []
    constants: list[ir.Value] = [] if start is not None else [condition]
    scanned: list[list[ir.Value]] = [[] for _ in range(len(body.outputs) - 1 - count)]
    for trip in range(trips):
        copy = body.clone(allow_outer_scope_values=True)
        number = const(np.asarray(trip, dtype=np.int64))
        constants.append(number)
        outputs = list(copy.outputs)
        copy.outputs.clear()
        given = dict(zip(copy.inputs, (number, condition, *carried), strict=True))
        for formal, actual in given.items():
            formal.replace_all_uses_with(actual)
        outputs = [given.get(v, v) for v in outputs]
        constants += list(copy.initializers.values())
        nodes += _take_nodes(copy)
        condition, carried = outputs[0], outputs[1 : 1 + count]
        for parts, value in zip(scanned, outputs[1 + count :], strict=True):
            parts.append(value)
    results = [*carried, *(_stacked(parts, model, nodes, constants) for parts in scanned)]
    for value in constants:
        value.name = names.fresh(value.name or f"{loop.name}_constant")
    for node in walk(nodes):
        node.name = names.fresh(node.name or f"{loop.name}/{node.op_type}")
        for value in node.outputs:
            value.name = names.fresh(f"{loop.name}_value" if value.name is None else value.name)
    _replace(loop, names, nodes, constants, results)


def _stacked(
    parts: Sequence[ir.Value],
    model: ir.Model,
    nodes: list[ir.Node],
    constants: list[ir.Value],
) -> ir.Value:
    """A scan output: the values of all trips along a new first axis."""
    rows: list[ir.Value] = []
    axes = const(np.asarray([0], dtype=np.int64))
    if opset(model) >= 13:
        constants.append(axes)
    for part in parts:
        if opset(model) >= 13:
            row = ir.Node("", "Unsqueeze", [part, axes])
        else:
            row = ir.Node("", "Unsqueeze", [part], [ir.AttrInt64s("axes", [0])])
        shape = static_shape(part)
        row.outputs[0].type = part.type
        row.outputs[0].shape = None if shape is None else ir.Shape((1, *shape))
        nodes.append(row)
        rows.append(row.outputs[0])
    if len(rows) == 1:
        return rows[0]
    joined = ir.Node("", "Concat", rows, [ir.AttrInt64("axis", 0)])
    joined.metadata_props["adcompile.rule"] = "unrolled-loop"
    joined.outputs[0].type = rows[0].type
    nodes.append(joined)
    return joined.outputs[0]
