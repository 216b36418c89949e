"""Changing graphs without losing names: replacing values, naming new ones, removing dead nodes."""

from __future__ import annotations

import onnx_ir as ir

from adcompile.interfaces import Array
from adcompile.ir.model_io import subgraphs_of


class Names:
    """Unused value and node names of a model; kept between hits so that naming stays cheap."""

    def __init__(self, model: ir.Model) -> None:
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}
        for graph in model.graphs():
            self._taken.update(v.name for v in graph.inputs if v.name)
            self._taken.update(graph.initializers)
            for node in graph:
                self._taken.update(v.name for v in node.outputs if v.name)
                self._taken.add(node.name or "")

    def fresh(self, wish: str) -> str:
        """*wish*, or *wish* with a number when it is taken; reserved from now on."""
        name = wish
        while name in self._taken:
            number = self._next.get(wish, 0) + 1
            self._next[wish] = number
            name = f"{wish}_{number}"
        self._taken.add(name)
        return name

    def free(self, name: str | None) -> None:
        """Let a name be used again: its value or node is about to be renamed or removed."""
        self._taken.discard(name or "")


def inherit(new: ir.Value, old: ir.Value) -> None:
    """*new* equals *old*: it learns *old*'s type and whatever *old*'s shape knows better."""
    if new.type is None:
        new.type = old.type
    if old.shape is None or new is old:
        return
    if new.shape is None:
        new.shape = old.shape.copy()
        return
    if len(new.shape) != len(old.shape):
        return
    better = [
        a if isinstance(a, int) or not isinstance(b, int) else b
        for a, b in zip(new.shape.dims, old.shape.dims, strict=True)
    ]
    if any(a != b for a, b in zip(better, new.shape.dims, strict=True)):
        new.shape = ir.Shape(better)


def take_over(old: ir.Value, new: ir.Value, names: Names) -> None:
    """Replace *old* by *new* everywhere; a graph output keeps *old*'s name."""
    if not old.is_graph_output():
        old.replace_all_uses_with(new)
        return
    name = old.name or ""
    old.name = names.fresh(f"{name}_replaced")
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    new.name = name


def is_dead(node: ir.Node) -> bool:
    """True when nothing reads any output of *node*."""
    return all(not value.uses() and not value.is_graph_output() for value in node.outputs)


def substitute(old: ir.Value, new: ir.Value, names: Names) -> bool:
    """Let *new* stand for *old* everywhere, and learn from its type; False when that cannot be.

    It cannot be when *old* is a graph output and *new* is not made by a node of the same graph, or
    is an output already: an output needs a node of its own.
    """
    if old.is_graph_output():
        producer = new.producer()
        if producer is None or producer.graph is not old.graph or new.is_graph_output():
            return False
    inherit(new, old)
    take_over(old, new, names)
    return True


def make_constant(old: ir.Value, array: Array, names: Names) -> bool:
    """Replace *old* by a constant of the same name: an initializer of its graph.

    A graph output gets a ``Constant`` node instead; False when it is one already.
    """
    node = old.producer()
    graph = old.graph
    if node is None or not isinstance(graph, ir.Graph) or node.op_type == "Constant":
        return False
    name = old.name or ""
    tensor = ir.tensor(array, name=name)
    if old.is_graph_output():
        constant = ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)], num_outputs=1)
        constant.name = names.fresh(f"{node.name or name}/constant")
        constant.metadata_props.update(node.metadata_props)
        new = constant.outputs[0]
        new.name = names.fresh(f"{name}_constant")
        graph.insert_before(node, constant)
    else:
        new = ir.Value(name=names.fresh(f"{name}_constant"), const_value=tensor)
    new.type = ir.TensorType(tensor.dtype)
    new.shape = ir.Shape(tensor.shape.numpy())
    keep_name = old.is_graph_output()
    take_over(old, new, names)
    if not keep_name:
        old.name = names.fresh(f"{name}_folded")
        new.name = name
        graph.initializers.add(new)
    return True


def remove_dead_nodes(graph: ir.Graph) -> int:
    """Remove unread nodes of *graph* and of the subgraphs of nodes that stay; returns how many."""
    removed = 0
    for node in reversed(list(graph)):
        if is_dead(node):
            remove(node)
            removed += 1
            continue
        for inner in subgraphs_of(node):
            removed += remove_dead_nodes(inner)
    return removed


def remove(node: ir.Node) -> None:
    """Take a node that nothing reads out of its graph. Neither it nor what its subgraphs hold
    counts as a reader any more."""
    release(node)
    graph = node.graph
    if isinstance(graph, ir.Graph):
        graph.remove(node, safe=True)


def release(node: ir.Node) -> None:
    """Empty the subgraphs of a node that goes away: they must no longer count as readers."""
    for graph in subgraphs_of(node):
        graph.outputs.clear()
        for inner in reversed(list(graph)):
            remove(inner)
