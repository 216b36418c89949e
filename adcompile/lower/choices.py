"""Which sets of nodes are worth keeping in float together, by the rules of a scheme.

A node without constants between DequantizeLinear and QuantizeLinear *is* the quantized node, whatever it
was meant to be. So where a scheme puts Q/DQ on every value, a single activation, addition or resize
between integer neighbours cannot be kept in float, and a convolution alone keeps the Q/DQ around it. So
besides every kernel alone there is, for every value with Q/DQ, the set of the kernels that write or read
it: it takes that Q/DQ away. Sets that change nothing, or have a member that nobody could tell from a
quantized node, are left out. A kernel is named by its first node; what is fused behind that follows it.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from adcompile.lower.points import Points, data_inputs, fused_chains, is_quantized, plan_points
from adcompile.lower.scheme import MOVES, Scheme

MAX_KERNELS = 8  # of one set: what feeds more readers is the business of its readers


def kernels(model: ir.Model, scheme: Scheme) -> list[str]:
    """Names of the kernels whose own numbers are rounded, in order: all quantized nodes but those that
    hand values on as they are."""
    behind = {n.name for chain in fused_chains(model, scheme) for n in chain[1:]}
    return [
        node.name or ""
        for node in model.graph
        if is_quantized(node, scheme, frozenset())
        and node.name not in behind
        and not _hands_on(node)
    ]


def choices(model: ir.Model, scheme: Scheme) -> list[tuple[str, ...]]:
    """Sets of kernels that can be kept in float and then take some Q/DQ away: each in graph order,
    small ones first."""
    order = {node.name or "": place for place, node in enumerate(model.graph)}
    members = _members(model, scheme)
    first = {n.name or "": head for head, nodes in members.items() for n in nodes}
    whole = plan_points(model, scheme)
    constants = {c.node for c in whole.constants}
    found: dict[tuple[str, ...], None] = {}
    for names in (*([name] for name in kernels(model, scheme)), *_around(model, whole)):
        heads = {first[name] for name in names if name in first}
        chosen = tuple(sorted(heads, key=order.__getitem__))
        if chosen in found or not 0 < len(chosen) <= MAX_KERNELS:
            continue
        inside = [members[head] for head in chosen]
        floats = frozenset(n.name or "" for nodes in inside for n in nodes)
        points = plan_points(model, scheme, floats)
        if _content(points) != _content(whole) and all(
            any(n.name in constants for n in nodes) or _is_open(nodes, points) for nodes in inside
        ):
            found[chosen] = None
    return sorted(found, key=len)


def _members(model: ir.Model, scheme: Scheme) -> dict[str, list[ir.Node]]:
    """The nodes of every kernel, by the name of its first node."""
    chains = {chain[0]: chain for chain in fused_chains(model, scheme)}
    behind = {node for chain in chains.values() for node in chain[1:]}
    return {
        node.name or "": chains.get(node, [node])
        for node in model.graph
        if is_quantized(node, scheme, frozenset()) and node not in behind
    }


def _is_open(kernel: list[ir.Node], points: Points) -> bool:
    """True when a value that goes into or out of *kernel* has no Q/DQ there under *points*."""
    for node in kernel:
        for index, value in data_inputs(node):
            edges = points.readers.get(value.name or "", ())
            inner = value.producer() in kernel
            if not inner and edges is not None and (node.name or "", index) not in edges:
                return True
    last = kernel[-1]
    return any(points.readers.get(value.name or "", ()) is not None for value in last.outputs)


def _content(points: Points) -> tuple[object, ...]:
    """What the points say, whatever the order that they were found in."""
    groups = {frozenset(group) for group in points.groups}
    return points.readers, groups, set(points.constants)


def _around(model: ir.Model, points: Points) -> Iterator[list[str]]:
    """For every value that has Q/DQ for all its readers: the nodes that write or read it."""
    for value in [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]:
        if points.readers.get(value.name or "", ()) is not None:
            continue  # no Q/DQ, or some for single readers, which each of them takes away alone
        made = value.producer()
        yield [n.name or "" for n in (*((made,) if made else ()), *(u.node for u in value.uses()))]


def _hands_on(node: ir.Node) -> bool:
    """True where the output has the grid of the one input, so that nothing is rounded."""
    several = len({value for _, value in data_inputs(node)}) > 1
    return node.op_type in MOVES and not several
