"""Find the node at which a model starts to differ from what it should compute.

Values are paired by name with those of a reference (rewrites and quantizers keep the names of what
they replace; our own quantizer notes the gains it put on them). The first one, in execution order,
that is wrong although what it is made from is taken from the reference is where the harm is done; an
error that only grew on the way is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from adcompile.check.compare import Comparison, compare_tensor
from adcompile.check.tolerance import Tolerance
from adcompile.errors import AdcompileError
from adcompile.interfaces import Array, Feeds
from adcompile.ir.evaluate import evaluate
from adcompile.ir.extract import extract
from adcompile.ir.graph import captured_values
from adcompile.lower.gains import Floats, with_gain

AT_ONCE = 64  # paired values of one run: bounds memory without knowing their sizes


@dataclass(frozen=True)
class Oracle:
    """What values should be: those of *model* on *feeds*, by name, times *gains*."""

    model: ir.Model
    feeds: Feeds
    gains: Mapping[str, Floats] = field(default_factory=dict[str, Floats])

    def names(self) -> set[str]:
        """Every named value of the main graph, inputs included."""
        made = {v.name for node in self.model.graph for v in node.outputs if v.name}
        return made | {v.name for v in self.model.graph.inputs if v.name}

    def values(self, names: Sequence[str]) -> dict[str, Array]:
        """The values called *names*."""
        found = {name: self.feeds[name] for name in names if name in self.feeds}
        missing = [name for name in names if name not in found]
        made = evaluate(self.model, self.feeds, missing) if missing else {}
        return {**found, **{n: with_gain(a, self.gains.get(n)) for n, a in made.items()}}


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
    oracle: Oracle,
    actual: ir.Model,
    feeds: Feeds,
    tolerance: Tolerance,
    errors: Sequence[TensorError] | None = None,
) -> Located | None:
    """The first place where *actual* goes wrong by itself; None when there is none by name.

    *errors* are those of :func:`tensor_errors`, when they are known already.
    """
    if errors is None:
        errors = tensor_errors(oracle, actual, feeds, tolerance)
    known = {error.value for error in errors}
    wrong = [error.value for error in errors if not error.comparison.ok]
    size = 1  # mostly the first wrong value is the one; then many at once, which costs one run
    while wrong:
        group, wrong = wrong[:size], wrong[size:]
        pieces = [_Piece.of(actual, name, known) for name in group]
        names = {name for piece in pieces for name in (piece.value, *piece.names)}
        values = {**oracle.values(sorted(names - set(feeds))), **feeds}
        for piece in pieces:
            try:
                located = piece.judge(actual, values, tolerance)
            except AdcompileError:
                continue  # this value cannot be cut out; a later one may show the same
            if located is not None:
                return located
        size = AT_ONCE // 4  # each with a few values that it reads
    return None


@dataclass(frozen=True)
class _Piece:
    """What makes one value from values that both models name, and from graph inputs."""

    value: str
    target: ir.Value
    nodes: list[ir.Node]
    reads: list[ir.Value]

    @classmethod
    def of(cls, actual: ir.Model, name: str, known: set[str]) -> _Piece:
        target = next(v for node in actual.graph for v in node.outputs if v.name == name)
        return cls(name, target, *_between(target, known))

    @property
    def names(self) -> list[str]:
        """The values it reads."""
        return [value.name or "" for value in self.reads]

    def judge(
        self, actual: ir.Model, values: Mapping[str, Array], tolerance: Tolerance
    ) -> Located | None:
        """Run it alone on what it should read; None when it gives what it should."""
        feeds = {name: values[name] for name in self.names}
        for value in self.reads:
            declare(value, feeds[value.name or ""])
        model = extract(actual, self.nodes, self.reads, [self.target], "located")
        made = evaluate(model, feeds)[self.value]
        result = compare_tensor(self.value, "tensor", values[self.value], made, tolerance)
        if result.ok:
            return None
        return Located(self.value, result, model, feeds, {self.value: values[self.value]})


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
