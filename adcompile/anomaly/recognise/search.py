"""Selections of the nearest rows of a constant bank: ReduceMin, ArgMin and TopK become KnnSearch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from adcompile.anomaly.recognise.algebra import axes_of, made_by
from adcompile.anomaly.recognise.distances import Distances, distances_of
from adcompile.ir.attributes import int_of
from adcompile.ir.constants import const
from adcompile.ir.graph import DOMAIN, constant, is_constant, rank, static_shape
from adcompile.rewrite.pattern import Any, Const, Match, op
from adcompile.rewrite.rules import Refuse, Rule, rule, typed_like

MAX_NEIGHBOURS = 1024


@rule(op(("ReduceMin", "ReduceMax"), any_inputs=True), opset=13)
def knn_minimum(m: Match) -> ir.Value:
    """The smallest distance to a constant bank is a search for one neighbour."""
    found = _searched(m, "ReduceMax")
    if found.ranks_only:
        raise Refuse("the smallest value is not a distance: |x|² is missing")
    distances, _ = _search(m, found, 1)
    value = distances
    if found.rooted:
        value = ir.node("Sqrt", [distances]).outputs[0]
    if found.negated:
        value = ir.node("Neg", [value]).outputs[0]
    return _shaped(value, m.root.outputs[0], kept=bool(int_of(m.root, "keepdims", 1)))


@rule(op(("ArgMin", "ArgMax"), any_inputs=True), opset=13)
def knn_position(m: Match) -> ir.Value:
    """The row of the smallest distance to a constant bank is a search for one neighbour."""
    found = _searched(m, "ArgMax")
    if int_of(m.root, "select_last_index"):
        raise Refuse("of equal distances it takes the last")
    _, indices = _search(m, found, 1)
    return _shaped(indices, m.root.outputs[0], kept=bool(int_of(m.root, "keepdims", 1)))


@rule(op("TopK", Any("d"), Const("k")), opset=13)
def knn_topk(m: Match) -> Sequence[ir.Value]:
    """The k smallest distances to a constant bank, ascending, are a search."""
    k = int(m.array("k").reshape(-1)[0])
    found = _searched(m, "")
    if bool(int_of(m.root, "largest", 1)) != found.negated or not int_of(m.root, "sorted", 1):
        raise Refuse("it does not take the smallest in ascending order")
    if not 1 <= k <= min(MAX_NEIGHBOURS, len(found.bank)):
        raise Refuse(f"k is {k}")
    values, positions = m.root.outputs
    if found.ranks_only and (values.uses() or values.is_graph_output()):
        raise Refuse("the smallest values are not distances: |x|² is missing")
    distances, indices = _search(m, found, k)
    if found.rooted:
        distances = ir.node("Sqrt", [distances]).outputs[0]
    if found.negated:
        distances = ir.node("Neg", [distances]).outputs[0]
    return [_shaped(distances, values, kept=True), _shaped(indices, positions, kept=True)]


def _searched(m: Match, negating: str) -> Distances:
    """The distances the root selects from, over their last axis."""
    value = m.root.inputs[0]
    dims = rank(value)
    if value is None or dims is None:
        raise Refuse("its input has no known rank")
    if m.root.op_type.startswith("Reduce"):
        if axes_of(m.root) != (dims - 1,):
            raise Refuse("it does not reduce the last axis only")
    elif int_of(m.root, "axis", -1 if m.root.op_type == "TopK" else 0) % dims != dims - 1:
        raise Refuse("it does not select along the last axis")
    found = distances_of(value)
    if found is None:
        raise Refuse("its input is not a distance to a constant bank")
    if m.root.op_type != "TopK" and found.negated != (m.root.op_type == negating):
        raise Refuse("it takes the largest distance")
    return found


def _search(m: Match, found: Distances, k: int) -> tuple[ir.Value, ir.Value]:
    """A KnnSearch node over the rows: squared distances [Q, k] and positions [Q, k]."""
    rows = found.rows
    if rank(rows) != 2:
        shape = const(np.array([-1, found.bank.shape[1]], np.int64), "rows_shape")
        rows = ir.node("Reshape", [rows, shape]).outputs[0]
        count = static_shape(found.rows)
        if count is not None:
            rows.shape = ir.Shape([math.prod(count[:-1]), count[-1]])
        rows.dtype = ir.DataType.FLOAT
    bank = _bank(m.root.graph, found.bank)
    node = ir.node("KnnSearch", [rows, bank], {"k": k}, domain=DOMAIN, num_outputs=2)
    queries = None if rows.shape is None else rows.shape[0]
    for output, dtype in zip(node.outputs, (ir.DataType.FLOAT, ir.DataType.INT64), strict=True):
        output.dtype, output.shape = dtype, ir.Shape([queries, k])
    return node.outputs[0], node.outputs[1]


def _bank(graph: ir.Graph | ir.Function | None, rows: npt.NDArray[np.float32]) -> ir.Value:
    """The graph's own constant with these rows when it has one: the score reads it too."""
    if isinstance(graph, ir.Graph):
        for value in graph.initializers.values():
            if static_shape(value) == rows.shape and is_constant(value):
                array = constant(value)
                if array is not None and np.array_equal(array, rows):
                    return value
    return const(rows, "memory_bank")


def _shaped(value: ir.Value, wanted: ir.Value, *, kept: bool) -> ir.Value:
    """[Q, k] as the shape that the selection had."""
    if wanted.dtype is not None:
        value.dtype = wanted.dtype
    shape = static_shape(wanted)
    if shape is not None:
        if static_shape(value) == shape:
            return value
        target = const(np.array(shape, np.int64), "selection_shape")
        node = ir.node("Reshape", [value, target])
    elif rank(wanted) == 2 and kept:
        return value
    elif rank(wanted) == 1 and not kept:
        node = ir.node("Squeeze", [value, const(np.array([1], np.int64), "last_axis")])
    else:
        raise Refuse("free dimensions in front of the rows: fix the input shape")
    return typed_like(node, wanted).outputs[0]


@rule(op("Concat", any_inputs=True, attrs={"axis": 0}), opset=13)
def join_searches(m: Match) -> ir.Value:
    """Searches for consecutive slices of the same rows, one after another, are one search."""
    first = _piece(m.root.inputs[0])
    if first is None:
        raise Refuse("its inputs are not searches")
    start = 0
    for value in m.root.inputs:
        piece = _piece(value)
        if piece is None or piece[1:] != first[1:]:
            raise Refuse("its inputs are not alike")
        begin, end = _slice_of(piece[0].inputs[0], first[2])
        if begin != start:
            raise Refuse("the slices do not follow one another")
        start = end
    node, index, rows, rooted = first
    total = static_shape(rows)
    if total is None or total[0] != start:
        raise Refuse("the slices do not cover all rows")
    attributes = {"k": int_of(node, "k", 9)}
    joined = ir.node("KnnSearch", [rows, node.inputs[1]], attributes, domain=DOMAIN, num_outputs=2)
    for output, dtype in zip(joined.outputs, (ir.DataType.FLOAT, ir.DataType.INT64), strict=True):
        output.dtype, output.shape = dtype, ir.Shape([start, attributes["k"]])
    value = joined.outputs[index]
    if rooted:
        value = ir.node("Sqrt", [value]).outputs[0]
        value.shape = joined.outputs[0].shape
    return _shaped(value, m.root.outputs[0], kept=rank(m.root.outputs[0]) == 2)


_Piece = tuple[ir.Node, int, ir.Value, bool]


def _piece(value: ir.Value | None) -> _Piece | None:
    """Search node, which output, the rows its slice is cut from, rooted or not."""
    rooted = False
    while (node := made_by(value, "Reshape", "Squeeze", "Sqrt")) is not None:
        rooted = rooted or node.op_type == "Sqrt"
        value = node.inputs[0]
    node = None if value is None else value.producer()
    if value is None or node is None or node.domain != DOMAIN or node.op_type != "KnnSearch":
        return None
    cut = made_by(node.inputs[0], "Slice")
    if cut is None or cut.inputs[0] is None:
        return None
    return node, value.index() or 0, cut.inputs[0], rooted


def _slice_of(value: ir.Value | None, rows: ir.Value) -> tuple[int, int]:
    """Begin and end of a slice of whole rows; Refuse when it is something else."""
    node = made_by(value, "Slice")
    total = static_shape(rows)
    if node is None or node.inputs[0] is not rows or total is None:
        raise Refuse("the searches look at different rows")
    numbers = [constant(v) for v in node.inputs[1:]]
    if any(a is None or a.size != 1 for a in numbers) or len(numbers) < 2:
        raise Refuse("a slice has several axes, or bounds that are not constant")
    begin, end, axis, step = (
        int(a.reshape(-1)[0]) if a is not None else default
        for a, default in zip([*numbers, None, None][:4], (0, 0, 0, 1), strict=True)
    )
    if axis != 0 or step != 1 or begin < 0:
        raise Refuse("a slice does not cut whole rows")
    return begin, min(end, total[0]) if end >= 0 else total[0] + end


RULES: tuple[Rule, ...] = (knn_minimum, knn_position, knn_topk, join_searches)
