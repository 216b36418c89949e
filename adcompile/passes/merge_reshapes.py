"""merge-reshapes: operators that only regroup dimensions are joined, cancelled or moved aside."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from adcompile.interfaces import Pass, Report
from adcompile.ir.attributes import int_of, ints_of
from adcompile.ir.constants import const
from adcompile.ir.dataflow import Dims, Flow, Info, same
from adcompile.ir.dataflow_contents import analyse
from adcompile.ir.graph import opset, set_provenance
from adcompile.ir.model_io import subgraphs_of
from adcompile.ir.symbols import Elem
from adcompile.passes.fold_shapes import reshape_target
from adcompile.rewrite.surgery import Names, remove_dead_nodes, substitute, take_over

REGROUP = frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze"))
ELEMENTWISE = frozenset(
    (
        *("Abs", "Cast", "Ceil", "Cos", "Erf", "Exp", "Floor", "HardSigmoid", "HardSwish"),
        *("LeakyRelu", "Log", "Neg", "Not", "Reciprocal", "Relu", "Round", "Sigmoid", "Sin"),
        *("Softplus", "Sqrt", "Tanh"),
    )
)


@dataclass(frozen=True)
class MergeReshapes(Pass):
    """Joins chains of Reshape, Flatten, Squeeze, Unsqueeze, and Transposes that move only
    dimensions of size 1; looks through elementwise operators; turns a stack of unsqueezed values
    that is regrouped afterwards into a plain Concat. Exact."""

    name: ClassVar[str] = "merge-reshapes"
    steps: ClassVar[Mapping[str, str]] = {
        "regrouping-undone": "a regrouping of axes that a later one undoes",
        "regrouping-of-regrouping": "two regroupings of axes in a row are one",
        "regrouping-around-elementwise": "regroupings before and behind elementwise ops cancel",
        "stack-regrouped": "a stack of values that is regrouped is a concatenation",
    }
    summary: ClassVar[str] = "join or cancel Reshape, Flatten, Squeeze, Unsqueeze, and stacks"

    def run(self, model: ir.Model, report: Report) -> bool:
        """One walk in execution order over all graphs."""
        if opset(model) < 5:
            return False
        merger = _Merger(analyse(model), Names(model), report)
        merger.graph(model.graph)
        if merger.hits:
            remove_dead_nodes(model.graph)
        return merger.hits > 0


def regroups(flow: Flow, node: ir.Node | None) -> bool:
    """True when *node* keeps the order of the elements and changes only their grouping."""
    if node is None or node.domain != "" or not node.inputs or node.inputs[0] is None:
        return False
    if node.op_type in REGROUP:
        return True
    if node.op_type != "Transpose":
        return False
    dims = flow.shape(node.inputs[0])
    if dims is None:
        return False
    perm = ints_of(node, "perm") or tuple(reversed(range(len(dims))))
    moved = [p for p in perm if not (isinstance(dims[p], int) and dims[p] == 1)]
    return moved == sorted(moved)


def _private(value: ir.Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()


class _Merger:
    def __init__(self, flow: Flow, names: Names, report: Report) -> None:
        self.flow = flow
        self.names = names
        self.report = report
        self.hits = 0

    def graph(self, graph: ir.Graph) -> None:
        for node in list(graph):
            for inner in subgraphs_of(node):
                self.graph(inner)
            if regroups(self.flow, node):
                self._node(node)

    def _node(self, node: ir.Node) -> None:
        result = node.outputs[0]
        if not (result.uses() or result.is_graph_output()):
            return
        done = self._chain(node) or self._through(node) or self._stack(node)
        self.hits += int(done)

    def _chain(self, node: ir.Node) -> bool:
        """Cancel against any value up the chain of regroupings, or join with the first."""
        result, value = node.outputs[0], node.inputs[0]
        dims, length = self.flow.shape(result), 1
        while value is not None:
            if same(self.flow.shape(value), dims) and substitute(result, value, self.names):
                self.report.applied("regrouping-undone", node.name or "")
                return True
            producer = value.producer()
            if producer is None or not regroups(self.flow, producer):
                break
            if producer.graph is not node.graph:
                break
            value, length = producer.inputs[0], length + 1
        first = node.inputs[0]
        if length < 2 or value is None or first is None or not _private(first):
            return False
        new = self._reshape(node, value, dims)
        if new is None:
            return False
        self._replace(node, new, "regrouping-of-regrouping")
        return True

    def _through(self, node: ir.Node) -> bool:
        """Regroup, elementwise, regroup: the first two regroupings join before the operator."""
        middle = node.inputs[0]
        steps: list[ir.Node] = []
        while middle is not None and _private(middle):
            producer = middle.producer()
            if producer is None or producer.op_type not in ELEMENTWISE or producer.domain != "":
                break
            steps.append(producer)
            middle = producer.inputs[0]
        if not steps or middle is None or not _private(middle):
            return False
        inner = middle.producer()
        if inner is None or inner.graph is not node.graph or not regroups(self.flow, inner):
            return False
        source, dims = inner.inputs[0], self.flow.shape(node.outputs[0])
        if source is None or any(step.graph is not node.graph for step in steps):
            return False
        if same(self.flow.shape(source), dims):
            value: ir.Value | None = source
        else:
            new = self._reshape(node, source, dims)
            value = None if new is None else new.outputs[0]
        if value is None:
            return False
        for step in reversed(steps):
            copy = ir.Node("", step.op_type, [value], list(step.attributes.values()))
            self._place(copy, node, [step], step.name, "regrouping-around-elementwise")
            self._describe(copy.outputs[0], step.outputs[0].type, dims)
            value = copy.outputs[0]
        self._finish(node, value, "regrouping-around-elementwise")
        return True

    def _stack(self, node: ir.Node) -> bool:
        """Concat of regrouped values, regrouped again: Concat of the values themselves."""
        joined = node.inputs[0]
        concat = None if joined is None else joined.producer()
        if joined is None or concat is None or concat.op_type != "Concat" or not _private(joined):
            return False
        if concat.graph is not node.graph or concat.domain != "":
            return False
        sources: list[ir.Value] = []
        for value in concat.inputs:
            producer = None if value is None else value.producer()
            if value is None or producer is None or not _private(value):
                return False
            source = producer.inputs[0] if regroups(self.flow, producer) else None
            if source is None or producer.graph is not node.graph:
                return False
            sources.append(source)
        parts = [self.flow.shape(value) for value in concat.inputs]
        axis = stack_axis(
            [self.flow.shape(s) for s in sources],
            parts,
            int_of(concat, "axis"),
            self.flow.shape(node.outputs[0]),
        )
        if axis is None:
            return False
        new = ir.Node("", "Concat", sources, [ir.AttrInt64("axis", axis)])
        self._place(new, node, [node, concat], concat.name, "stack-regrouped")
        self._describe(new.outputs[0], node.outputs[0].type, self.flow.shape(node.outputs[0]))
        self._finish(node, new.outputs[0], "stack-regrouped")
        return True

    def _reshape(self, node: ir.Node, source: ir.Value, dims: Dims | None) -> ir.Node | None:
        """A placed Reshape of *source* to *dims*; None when a constant target cannot say it."""
        target = None if dims is None else reshape_target(self.flow.shape(source), dims)
        graph = node.graph
        if target is None or not isinstance(graph, ir.Graph):
            return None
        value = const(np.asarray(target, dtype=np.int64))
        value.name = self.names.fresh(f"{node.outputs[0].name}_shape")
        graph.initializers.add(value)
        new = ir.Node("", "Reshape", [source, value])
        self._place(new, node, [node], node.name, "regrouping-of-regrouping")
        self._describe(new.outputs[0], source.type, dims)
        return new

    def _place(
        self,
        new: ir.Node,
        before: ir.Node,
        sources: Sequence[ir.Node],
        name: str | None,
        rule: str,
    ) -> None:
        new.name = self.names.fresh(name or rule)
        new.outputs[0].name = self.names.fresh(f"{new.name}_out")
        set_provenance(new, sources, rule)
        if isinstance(before.graph, ir.Graph):
            before.graph.insert_before(before, new)

    def _describe(self, value: ir.Value, kind: ir.TypeProtocol | None, dims: Dims | None) -> None:
        value.type = kind
        if dims is not None:
            value.shape = ir.Shape([d if isinstance(d, int) else None for d in dims])
            self.flow.learn(value, Info(dims))

    def _replace(self, node: ir.Node, new: ir.Node, rule: str) -> None:
        self._finish(node, new.outputs[0], rule)

    def _finish(self, node: ir.Node, new: ir.Value, rule: str) -> None:
        old = node.outputs[0]
        name, is_output = old.name, old.is_graph_output()
        new.shape = old.shape if old.shape is not None else new.shape
        take_over(old, new, self.names)
        if name and not is_output:
            old.name = self.names.fresh(f"{name}_replaced")
            new.name = name
        self.report.applied(rule, node.name or "")


def stack_axis(
    sources: Sequence[Dims | None], parts: Sequence[Dims | None], axis: int, result: Dims | None
) -> int | None:
    """The axis along which Concat of *sources* has the elements of Concat of *parts* along *axis*.

    *parts* are regrouped *sources*; *result* is the wanted shape. Concat interleaves blocks: as
    many as the dimensions before its axis multiply to, each as long as the rest. So the axis fits
    when the leading dimensions multiply to the same number for every pair, and the shape matches.
    """
    if result is None or not sources or any(p is None for p in (*sources, *parts)):
        return None
    first = parts[0]
    if first is None or not first:
        return None
    place = axis % len(first)
    for candidate in range(len(result)):
        if _fits(sources, parts, place, candidate, result):
            return candidate
    return None


def _fits(
    sources: Sequence[Dims | None],
    parts: Sequence[Dims | None],
    place: int,
    candidate: int,
    result: Dims,
) -> bool:
    total = 0
    for source, part in zip(sources, parts, strict=True):
        if source is None or part is None or len(source) != len(result):
            return False
        if _factors(source[:candidate]) != _factors(part[:place]):
            return False
        size = source[candidate]
        if not isinstance(size, int):
            return False
        total += size
        rest = (*source[:candidate], total, *source[candidate + 1 :])
        wanted = (*result[:candidate], total, *result[candidate + 1 :])
        if not same(rest, wanted):
            return False
    return isinstance(result[candidate], int) and result[candidate] == total


def _factors(dims: Sequence[Elem]) -> tuple[int, tuple[int, ...]]:
    """A product as its number and its symbols, comparable."""
    number = math.prod(d for d in dims if isinstance(d, int))
    return number, tuple(sorted(id(d) for d in dims if not isinstance(d, int)))
