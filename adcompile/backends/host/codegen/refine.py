"""Special cases in which an operator moves no data: its result is a view of its input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from adcompile.backends.host.codegen import literals
from adcompile.backends.host.codegen.call import Call, call
from adcompile.backends.host.codegen.facts import Facts
from adcompile.backends.host.codegen.registry import Emit, Op

Refinement = Callable[[ir.Node, Facts], "Emit | None"]


def refined(op: Op, node: ir.Node, facts: Facts) -> Op:
    """*op*, or a cheaper record for this one node."""
    refinement = REFINEMENTS.get(node.op_type)
    emit = None if refinement is None else refinement(node, facts)
    if emit is None:
        return op
    reads = None if node.op_type == "Slice" else _first
    return replace(
        op,
        emit=emit,
        expression=None,
        views=(0,),
        owns=False,
        reads=reads,
        piece=None,
        joins=None,
    )


def _first(node: ir.Node) -> list[ir.Value | None]:
    return [node.inputs[0]]


def _identity(c: Call) -> str:
    return c.arg(0)


def _reshaped(c: Call) -> str:
    dims = c.facts.shape(c.node.outputs[0]) or ()
    return call("reshape", c.arg(0), literals.shape(dims), literals.boolean(True))


def _same_shape(node: ir.Node, facts: Facts) -> bool:
    value = node.inputs[0]
    known = None if value is None else facts.shape(value)
    return known is not None and known == facts.shape(node.outputs[0])


def _when_same_shape(node: ir.Node, facts: Facts) -> Emit | None:
    return _identity if _same_shape(node, facts) else None


def _resize(node: ir.Node, facts: Facts) -> Emit | None:
    mode = node.attributes.get("coordinate_transformation_mode")
    if mode is not None and mode.as_string() == "tf_crop_and_resize":
        return None
    scales = node.inputs[2] if len(node.inputs) > 2 else None
    given = facts.constant(scales)
    if given is not None and any(float(s) != 1.0 for s in given.reshape(-1)):
        return None
    if scales is not None and given is None:
        return None
    return _when_same_shape(node, facts)


def _cast(node: ir.Node, facts: Facts) -> Emit | None:
    value = node.inputs[0]
    same = value is not None and facts.dtype(value) is facts.dtype(node.outputs[0])
    return _identity if same else None


def _transpose(node: ir.Node, facts: Facts) -> Emit | None:
    """Only dimensions of size one change places."""
    value = node.inputs[0]
    dims = None if value is None else facts.shape(value)
    if dims is None:
        return None
    perm = node.attributes.get("perm")
    order = list(perm.as_ints()) if perm is not None else list(reversed(range(len(dims))))
    moved = [p for p in order if dims[p] != 1]
    return _reshaped if moved == sorted(moved) else None


def _concat(node: ir.Node, facts: Facts) -> Emit | None:
    return _identity if len(node.inputs) == 1 else None


def _dropout(node: ir.Node, facts: Facts) -> Emit | None:
    training = facts.constant(node.inputs[2]) if len(node.inputs) > 2 else np.array(False)
    inference = training is not None and not bool(training)
    return _identity if len(node.outputs) == 1 and inference else None


def _leading_ones(node: ir.Node, facts: Facts, axis: int) -> bool:
    """True when nothing but ones comes before *axis*, so that a range along it is contiguous."""
    value = node.inputs[0]
    if value is None or value.shape is None:
        return axis == 0
    dims = facts.shape(value) or tuple(d if isinstance(d, int) else -1 for d in value.shape)
    return all(d == 1 for d in dims[: axis % len(dims)]) if dims else False


def _gather(node: ir.Node, facts: Facts) -> Emit | None:
    index = facts.constant(node.inputs[1])
    axis = node.attributes.get("axis")
    at = 0 if axis is None else axis.as_int()
    if index is None or index.ndim != 0 or not _leading_ones(node, facts, at):
        return None

    def emit(c: Call) -> str:
        return call("view_row", c.arg(0), literals.index(int(index)), str(at))

    return emit


def _slice(node: ir.Node, facts: Facts) -> Emit | None:
    if facts.opset < 10:
        return None
    lists = [facts.constant(v) for v in node.inputs[3:5]]
    axes = lists[0] if lists else None
    steps = lists[1] if len(lists) > 1 else None
    if len(node.inputs) > 3 and axes is None:
        return None
    if len(node.inputs) > 4 and node.inputs[4] is not None and steps is None:
        return None
    known = [0] if axes is None else [int(a) for a in axes.reshape(-1)]
    if axes is None and facts.shape(node.inputs[1] or node.outputs[0]) != (1,):
        return None
    plain = steps is None or all(int(s) == 1 for s in steps.reshape(-1))
    if len(known) != 1 or not plain or not _leading_ones(node, facts, known[0]):
        return None

    def emit(c: Call) -> str:
        bounds = [f"{c.shape_arg(i)}[0]" if c.ints(i) is None else _bound(c, i) for i in (1, 2)]
        return call("view_range", c.arg(0), *bounds, str(known[0]))

    return emit


def _bound(c: Call, i: int) -> str:
    return literals.index((c.ints(i) or [0])[0])


REFINEMENTS: dict[str, Refinement] = {
    "Resize": _resize,
    "Cast": _cast,
    "CastLike": _cast,
    "Expand": _when_same_shape,
    "Tile": _when_same_shape,
    "Transpose": _transpose,
    "Concat": _concat,
    "Dropout": _dropout,
    "Gather": _gather,
    "Slice": _slice,
}
