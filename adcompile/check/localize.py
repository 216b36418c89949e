"""Find the node at which a model starts to differ from what it should compute.

Values are paired by name with those of a reference (rewrites and quantizers keep the names of what
they replace). The first one, in execution order, that is wrong although what it is made from is
taken from the reference is where the harm is done; an error that only grew on the way is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from adcompile.check.compare import Comparison, compare_tensor
from adcompile.check.tolerance import Tolerance
from adcompile.errors import AdcompileError
from adcompile.interfaces import Array, Feeds
from adcompile.ir.evaluate import evaluate
from adcompile.ir.extract import extract
from adcompile.ir.graph import captured_values

AT_ONCE = 64  # paired values of one run: bounds memory without knowing their sizes


@dataclass(frozen=True)
class Oracle:
    """What values should be: those of *model* on *feeds*, by name."""

    model: ir.Model
    feeds: Feeds

    def names(self) -> set[str]:
        """Every named value of the main graph, inputs included."""
        made = {v.name for node in self.model.graph for v in node.outputs if v.name}
        return made | {v.name for v in self.model.graph.inputs if v.name}

    def values(self, names: Sequence[str]) -> dict[str, Array]:
        """The values called *names*."""
        found = {name: self.feeds[name] for name in names if name in self.feeds}
        missing = [name for name in names if name not in found]
        return {**found, **(evaluate(self.model, self.feeds, missing) if missing else {})}


@dataclass(frozen=True)
class Located:
    """The first wrong value, and the nodes that make it from right ones, as a model of its own."""

    value: str
    comparison: Comparison
    model: ir.Model
    feeds: dict[str, Array]
    expected: dict[str, Array]


@dataclass(frozen=True)
class TensorError:
    """Error of one paired value in a whole run (cumulative)."""

    value: str
    op_type: str
    comparison: Comparison


def tensor_errors(
    oracle: Oracle, actual: ir.Model, feeds: Feeds, tolerance: Tolerance
) -> list[TensorError]:
    """Every value that both name, in *actual*'s execution order, on *feeds* of *actual*."""
    theirs = oracle.names()
    pairs = [
        (v.name, node.op_type)
        for node in actual.graph
        for v in node.outputs
        if v.name and v.name in theirs
    ]
    found: list[TensorError] = []
    for start in range(0, len(pairs), AT_ONCE):
        group = pairs[start : start + AT_ONCE]
        names = [name for name, _ in group]
        left, right = oracle.values(names), evaluate(actual, feeds, names)
        for name, op_type in group:
            if isinstance(left[name], np.ndarray) and isinstance(right[name], np.ndarray):  # pyright: ignore[reportUnnecessaryIsInstance]
                result = compare_tensor(name, "tensor", left[name], right[name], tolerance)
                found.append(TensorError(name, op_type, result))
    return found


def localize(
    oracle: Oracle, actual: ir.Model, feeds: Feeds, tolerance: Tolerance
) -> Located | None:
    """The first place where *actual* goes wrong by itself; None when there is none by name."""
    errors = tensor_errors(oracle, actual, feeds, tolerance)
    known = {error.value for error in errors}
    for error in errors:
        if error.comparison.ok:
            continue
        try:
            located = _alone(oracle, actual, feeds, error.value, known, tolerance)
        except AdcompileError:
            continue  # this value cannot be cut out; a later one may show the same
        if located is not None:
            return located
    return None


def _alone(
    oracle: Oracle,
    actual: ir.Model,
    feeds: Feeds,
    name: str,
    known: set[str],
    tolerance: Tolerance,
) -> Located | None:
    target = next(v for node in actual.graph for v in node.outputs if v.name == name)
    nodes, reads = _between(target, known)
    values: dict[str, Array] = {}
    for value in reads:
        label = value.name or ""
        values[label] = feeds[label] if label in feeds else oracle.values([label])[label]
        declare(value, values[label])
    expected = oracle.values([name])
    model = extract(actual, nodes, reads, [target], "located")
    result = compare_tensor(
        name, "tensor", expected[name], evaluate(model, values)[name], tolerance
    )
    return None if result.ok else Located(name, result, model, values, expected)


def _between(target: ir.Value, known: set[str]) -> tuple[list[ir.Node], list[ir.Value]]:
    """The nodes that make *target* from values of *known* and graph inputs, and those values."""
    nodes: dict[ir.Node, None] = {}
    reads: dict[ir.Value, None] = {}
    pending = [target]
    while pending:
        value = pending.pop()
        node = value.producer()
        if node is None or node in nodes:
            continue
        nodes[node] = None
        for each in (*node.inputs, *captured_values(node)):
            if each is None or (each.is_initializer() and not each.is_graph_input()):
                continue
            if each.producer() is None or each.name in known:
                reads[each] = None
            else:
                pending.append(each)
    return list(nodes), list(reads)


def declare(value: ir.Value, array: Array) -> None:
    """A graph input needs a type: take it from the recorded array where the model has none."""
    if value.dtype is None:
        value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
    if value.shape is None:
        value.shape = ir.Shape(array.shape)


def first_node(model: ir.Model) -> str:
    """``Conv 'backbone/conv1'``: the first node of a cut-out graph, for messages."""
    node = next(iter(model.graph))
    return f"{node.op_type} {node.name!r}"
