"""From nodes to steps: which nodes are emitted, and which elementwise chains become one loop."""

from __future__ import annotations

import onnx_ir as ir

from adcompile.backends.host.codegen.facts import Facts, subgraphs
from adcompile.backends.host.codegen.refine import refined
from adcompile.backends.host.codegen.registry import Op, Step, Table, Takes
from adcompile.errors import Unsupported

MAX_OPERANDS = 6
MAX_CHAIN = 12

Steps = dict[ir.Node, Step]


def make_steps(facts: Facts, table: Table) -> Steps:
    """Steps of the whole part, bodies included. Constants and dead nodes have none."""
    steps: Steps = {}
    _graph(facts, facts.graph, table, steps)
    return steps


def lookup(node: ir.Node, table: Table, facts: Facts) -> Op:
    """The table's record, refined for this node; Unsupported, naming it, when there is none."""
    op = table.get(node.op_type) if node.domain in {"", "ai.onnx", "adcompile"} else None
    if op is None:
        raise Unsupported(
            f"operator {node.domain + '::' if node.domain else ''}{node.op_type} has no C++ kernel",
            where=node.name or node.op_type,
            fix="`adcompile list ops --target host` shows what there is",
        )
    return refined(op, node, facts)


def _graph(facts: Facts, graph: ir.Graph, table: Table, steps: Steps) -> None:
    live = _live(graph, table, facts)
    position = {node: i for i, node in enumerate(graph)}
    absorbed: set[ir.Node] = set()
    for node in reversed(list(graph)):
        if node.op_type == "Constant" or node in absorbed or node not in live:
            continue
        op = lookup(node, table, facts)
        chain: list[ir.Node] = []
        if op.expression is not None:
            chain = sorted(_chain(facts, node, table), key=lambda n: position[n])
        elif op.joins is not None:
            chain = _pieces(facts, node, table, op.joins)
        absorbed.update(chain)
        reads = tuple(v for n in (*chain, node) for v in values_read(n, table, facts))
        inner = {n.outputs[0] for n in chain}
        steps[node] = Step(op, node, tuple(v for v in reads if v not in inner), tuple(chain))
        for body in subgraphs(node):
            _graph(facts, body, table, steps)


def values_read(node: ir.Node, table: Table, facts: Facts) -> list[ir.Value]:
    """The inputs that the emitted statement really uses."""
    op = lookup(node, table, facts)
    values = node.inputs if op.reads is None else op.reads(node)
    return [v for v in values if v is not None]


def _live(graph: ir.Graph, table: Table, facts: Facts) -> set[ir.Node]:
    """Nodes that an output of *graph* depends on (directly, or through a body)."""
    wanted: set[ir.Node] = set()
    stack = [v.producer() for v in graph.outputs]
    while stack:
        node = stack.pop()
        if node is None or node in wanted:
            continue
        wanted.add(node)
        if node.op_type == "Constant":
            continue
        stack += [v.producer() for v in values_read(node, table, facts)]
        for body in subgraphs(node):
            stack += [v.producer() for v in _captured(body)]
    return {n for n in wanted if n.graph is graph}


def _captured(graph: ir.Graph) -> list[ir.Value]:
    found = list(graph.outputs)
    for node in graph:
        found += [v for v in node.inputs if v is not None]
        for body in subgraphs(node):
            found += _captured(body)
    return found


def _chain(facts: Facts, root: ir.Node, table: Table) -> list[ir.Node]:
    """Elementwise producers computed inside the loop of *root*."""
    chain: list[ir.Node] = []
    stack = [root]
    leaves = len(root.inputs)
    while stack and len(chain) < MAX_CHAIN:
        node = stack.pop()
        for value in node.inputs:
            producer = _absorbable(facts, root, value, table)
            if producer is None or leaves + len(producer.inputs) - 1 > MAX_OPERANDS:
                continue
            leaves += len(producer.inputs) - 1
            chain.append(producer)
            stack.append(producer)
    return chain


def _pieces(facts: Facts, join: ir.Node, table: Table, takes: Takes) -> list[ir.Node]:
    """Producers that write their result into the result of *join*, or are read by it row by row.

    In a loop a join may extend a carried buffer (``plan.appends``), which takes ready tensors.
    """
    axis = join.attributes.get("axis")
    if join.graph is not facts.graph and axis is not None and axis.as_int() == 0:
        return []
    found: list[ir.Node] = []
    for value in join.inputs:
        node = None if value is None else value.producer()
        if value is None or node is None or node.graph is not join.graph:
            continue
        if node.domain not in {"", "ai.onnx"} or node.op_type not in table:
            continue
        alone = len(value.uses()) == 1 and not value.is_graph_output()
        if alone and lookup(node, table, facts).piece is not None and takes(node):
            found.append(node)
    return found


def _absorbable(
    facts: Facts, root: ir.Node, value: ir.Value | None, table: Table
) -> ir.Node | None:
    """The producer of *value* if nothing else uses it and it loops over the same shape."""
    producer = None if value is None else value.producer()
    if value is None or producer is None or producer.graph is not root.graph:
        return None
    op = table.get(producer.op_type)
    if op is None or op.expression is None or producer.domain not in {"", "ai.onnx"}:
        return None
    if len(value.uses()) != 1 or value.is_graph_output():
        return None
    same = _dims(facts, value) is not None and _dims(facts, value) == _dims(facts, root.outputs[0])
    return producer if same else None


def _dims(facts: Facts, value: ir.Value) -> tuple[int | str, ...] | None:
    """Dimensions as numbers and symbols; None when one is anonymous."""
    static = facts.shape(value)
    if static is not None:
        return static
    if value.shape is None:
        return None
    dims: list[int | str] = []
    for d in value.shape:
        known = d if isinstance(d, int) else d.value
        if known is None or known == "":
            return None
        dims.append(known)
    return tuple(dims)
