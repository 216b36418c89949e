"""clean-up: remove operators that do nothing, and join those that can be one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from adcompile.ir.attributes import int_of, ints_of
from adcompile.ir.constants import const
from adcompile.ir.graph import constant, rank, static_shape
from adcompile.rewrite.driver import RewritePass
from adcompile.rewrite.pattern import Any, Const, Match, Maybe, op
from adcompile.rewrite.rules import Refuse, Rule, rule, typed_like

_ONE_INPUT = ("Concat", "Sum", "Max", "Min", "Mean")
_IDEMPOTENT = ("Relu", "Abs", "Ceil", "Floor", "Round", "Sign")
_INVOLUTION = ("Not", "Neg")


@rule(op("Identity", Any("x")))
def identity(m: Match) -> ir.Value:
    """Identity(x) is x."""
    return m["x"]


@rule(op("Cast", Any("x")))
def cast_to_same(m: Match) -> ir.Value:
    """Cast to the type that x has already."""
    if m["x"].dtype is None or m["x"].dtype.value != int_of(m.root, "to"):
        raise Refuse("it changes the type")
    return m["x"]


_INTS = ["INT8", "INT16", "INT32", "INT64"]
_UINTS = ["UINT8", "UINT16", "UINT32", "UINT64"]
_EXACT_FLOATS = {8: ["FLOAT16", "FLOAT", "DOUBLE"], 16: ["FLOAT", "DOUBLE"], 32: ["DOUBLE"]}


def _lossless(source: ir.DataType, target: ir.DataType) -> bool:
    """True when every value of *source* is a value of *target*."""
    if source == target or source == ir.DataType.BOOL:
        return target.name in (*_INTS, *_UINTS, "BOOL", "FLOAT16", "FLOAT", "DOUBLE")
    a, b = source.name, target.name
    if a in _INTS + _UINTS:
        wider = (
            b in (_INTS if a in _INTS else _UINTS + _INTS) and target.bitwidth > source.bitwidth
        )
        return wider or b in _EXACT_FLOATS.get(source.bitwidth, ())
    floats = {
        "FLOAT16": ("FLOAT", "DOUBLE"),
        "BFLOAT16": ("FLOAT", "DOUBLE"),
        "FLOAT": ("DOUBLE",),
    }
    return b in floats.get(a, ())


@rule(op("Cast", op("Cast", Any("x"), name="inner", shared=True)))
def cast_of_cast(m: Match) -> ir.Node:
    """Cast(Cast(x)) is one Cast when the inner one loses nothing."""
    middle = m.node("inner").outputs[0].dtype
    source = m["x"].dtype
    if source is None or middle is None or not _lossless(source, middle):
        raise Refuse(f"the inner cast from {source} to {middle} may lose information")
    return typed_like(ir.Node("", "Cast", [m["x"]], list(m.root.attributes.values())), m.output)


@rule(op(_ONE_INPUT, Any("x")))
def only_one_input(m: Match) -> ir.Value:
    """A Concat, Sum, Max, Min or Mean of one value is that value."""
    return m["x"]


@rule(op("Split", Any("x"), Maybe(Any("sizes"))))
def split_into_one(m: Match) -> ir.Value:
    """Split into one part is the value itself."""
    if len(m.root.outputs) != 1:
        raise Refuse("it has several outputs")
    return m["x"]


@rule(op("Dropout", Any("x"), Maybe(Any("ratio")), Maybe(Const("training"))))
def dropout(m: Match) -> ir.Value:
    """Dropout does nothing at inference."""
    training = m.get("training")
    if training is not None and bool(np.any(m.array("training"))):
        raise Refuse("it is in training mode")
    if "is_test" in m.root.attributes and not int_of(m.root, "is_test"):
        raise Refuse("it is in training mode")
    return m["x"]


@rule(op(_IDEMPOTENT, op(_IDEMPOTENT, Any("x"), name="inner", shared=True)))
def done_twice(m: Match) -> ir.Value:
    """Relu(Relu(x)) is Relu(x); the same for Abs, Ceil, Floor, Round and Sign."""
    if m.node("inner").op_type != m.root.op_type:
        raise Refuse("two different operators")
    return m.node("inner").outputs[0]


@rule(op(_INVOLUTION, op(_INVOLUTION, Any("x"), name="inner", shared=True)))
def undone(m: Match) -> ir.Value:
    """Not(Not(x)) and Neg(Neg(x)) are x."""
    if m.node("inner").op_type != m.root.op_type:
        raise Refuse("two different operators")
    return m["x"]


def _permutation(node: ir.Node) -> tuple[int, ...] | None:
    perm = ints_of(node, "perm")
    if perm is not None:
        return perm
    size = rank(node.inputs[0])
    return None if size is None else tuple(reversed(range(size)))


@rule(op("Transpose", Any("x")))
def transpose_of_nothing(m: Match) -> ir.Value:
    """Transpose with the axes in their own order."""
    perm = _permutation(m.root)
    if perm is None or perm != tuple(range(len(perm))):
        raise Refuse("it moves axes")
    return m["x"]


@rule(op("Transpose", op("Transpose", Any("x"), name="inner", shared=True)))
def transpose_of_transpose(m: Match) -> ir.Node:
    """Two Transposes are one."""
    outer, inner = _permutation(m.root), _permutation(m.node("inner"))
    if outer is None or inner is None or len(outer) != len(inner):
        raise Refuse("the rank is unknown")
    perm = ir.AttrInt64s("perm", [inner[axis] for axis in outer])
    return typed_like(ir.Node("", "Transpose", [m["x"]], [perm]), m.output)


def _keeps_shape(x: ir.Value, c: ir.Value) -> bool:
    """True when broadcasting with the constant *c* cannot enlarge *x*."""
    shape, size = static_shape(c), rank(x)
    if shape is None or size is None or len(shape) > size:
        return False
    known = x.shape.dims if x.shape is not None else ()
    return all(d == 1 or d == known[i - len(shape)] for i, d in enumerate(shape))


def _neutral(m: Match, number: float) -> ir.Value:
    if not _keeps_shape(m["x"], m["c"]):
        raise Refuse("the constant may enlarge the result")
    if not bool(np.all(m.array("c") == number)):
        raise Refuse(f"the constant is not {number:g}")
    if m["x"].dtype != m["c"].dtype:
        raise Refuse("the types differ")
    return m["x"]


@rule(op("Mul", Any("x"), Const("c"), any_order=True))
def mul_by_one(m: Match) -> ir.Value:
    """x * 1 is x."""
    return _neutral(m, 1)


@rule(op("Add", Any("x"), Const("c"), any_order=True))
def add_zero(m: Match) -> ir.Value:
    """x + 0 is x."""
    return _neutral(m, 0)


@rule(op("Sub", Any("x"), Const("c")))
def sub_zero(m: Match) -> ir.Value:
    """x - 0 is x."""
    return _neutral(m, 0)


@rule(op("Div", Any("x"), Const("c")))
def div_by_one(m: Match) -> ir.Value:
    """x / 1 is x."""
    return _neutral(m, 1)


@rule(op("Pow", Any("x"), Const("c")))
def pow_one(m: Match) -> ir.Value:
    """x to the power of 1 is x."""
    return _neutral(m, 1)


@rule(op("Where", Const("test"), Any("yes"), Any("no")))
def where_decided(m: Match) -> ir.Value:
    """Where with a constant condition that is the same everywhere."""
    test = m.array("test")
    if test.size == 0 or not (bool(np.all(test)) or not bool(np.any(test))):
        raise Refuse("the condition is mixed")
    chosen, other = (m["yes"], m["no"]) if bool(np.all(test)) else (m["no"], m["yes"])
    mine = static_shape(chosen)
    if mine is None or mine != static_shape(m.output) or static_shape(other) is None:
        raise Refuse("broadcasting may change the shape")
    return chosen


def _operand(node: ir.Node, index: int, absent: list[int]) -> list[int] | None:
    """A constant integer operand; *absent* when the node does not have it."""
    if len(node.inputs) <= index or node.inputs[index] is None:
        return absent
    array = constant(node.inputs[index])
    return None if array is None else [int(x) for x in array.ravel().tolist()]


def _slice_parts(node: ir.Node) -> list[list[int]] | None:
    """starts, ends, axes, steps of a Slice with constant operands."""
    starts, ends = _operand(node, 1, []), _operand(node, 2, [])
    size = rank(node.inputs[0])
    if starts is None or ends is None or size is None:
        return None
    axes = _operand(node, 3, list(range(len(starts))))
    steps = _operand(node, 4, [1] * len(starts))
    if axes is None or steps is None:
        return None
    return [starts, ends, [a % size for a in axes], steps]


_ANY_SLICE = (Any(), Any(), Maybe(Any()), Maybe(Any()))


@rule(op("Slice", op("Slice", Any("x"), *_ANY_SLICE, name="inner"), *_ANY_SLICE), opset=10)
def slice_of_slice(m: Match) -> ir.Node:
    """Two Slices along different axes are one."""
    first, second = _slice_parts(m.node("inner")), _slice_parts(m.root)
    if first is None or second is None:
        raise Refuse("an operand is not constant")
    if set(first[2]) & set(second[2]):
        raise Refuse("both cut the same axis")
    parts = [const(np.asarray(a + b, dtype=np.int64)) for a, b in zip(first, second, strict=True)]
    return typed_like(ir.Node("", "Slice", [m["x"], *parts]), m.output)


@rule(op("Concat", any_inputs=True))
def concat_of_concat(m: Match) -> ir.Node:
    """A Concat inside a Concat along the same axis joins its parts directly."""
    size = rank(m.output)
    if size is None:
        raise Refuse("the rank is unknown")
    axis = int_of(m.root, "axis") % size
    parts: list[ir.Value | None] = []
    for value in m.root.inputs:
        inner = None if value is None else value.producer()
        if inner is not None and value is not None and _is_part(inner, m.root, axis, size):
            parts += inner.inputs
        else:
            parts.append(value)
    if len(parts) == len(m.root.inputs):
        raise Refuse("no input is a Concat along the same axis that only this one reads")
    return typed_like(ir.Node("", "Concat", parts, [ir.AttrInt64("axis", axis)]), m.output)


def _is_part(inner: ir.Node, outer: ir.Node, axis: int, size: int) -> bool:
    if inner.op_type != "Concat" or inner.domain != "" or inner.graph is not outer.graph:
        return False
    value = inner.outputs[0]
    alone = len(value.uses()) == 1 and not value.is_graph_output()
    return alone and int_of(inner, "axis") % size == axis


@rule(op("Gather", op("Gather", Any("x"), Const("first"), name="inner"), Const("second")))
def gather_of_gather(m: Match) -> ir.Node:
    """Two Gathers with constant indices along the same axis are one."""
    size, first, second = rank(m["x"]), m.array("first"), m.array("second")
    inner, outer = m.node("inner"), m.root
    if size is None:
        raise Refuse("the rank is unknown")
    axis = int_of(inner, "axis") % size
    if first.ndim != 1 or int_of(outer, "axis") % size != axis:
        raise Refuse("they pick along different axes")
    if second.size and not (-first.size <= second.min() and second.max() < first.size):
        raise Refuse("an index is out of range")
    picked = np.asarray(second, dtype=np.int64)
    index = const(np.asarray(np.take(first, picked), dtype=np.int64))
    return typed_like(
        ir.Node("", "Gather", [m["x"], index], [ir.AttrInt64("axis", axis)]), m.output
    )


def _axes(node: ir.Node) -> list[int] | None:
    """Constant axes of a Squeeze or Unsqueeze, from its attribute or input."""
    given = ints_of(node, "axes")
    if given is not None:
        return list(given)
    array = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    return None if array is None else [int(a) for a in array.ravel().tolist()]


@rule(
    op(
        "Unsqueeze",
        op("Gather", Any("x"), Const("i"), name="gather"),
        Maybe(Const("axes")),
    )
)
def unsqueeze_of_gather(m: Match) -> ir.Node:
    """Gather of one index, unsqueezed at its axis, is Gather with a list of one index."""
    size, axes = rank(m["x"]), _axes(m.root)
    index = m.array("i")
    if size is None or axes is None or index.ndim != 0:
        raise Refuse("not a single index, or the rank or axes are unknown")
    axis = int_of(m.node("gather"), "axis") % size
    if len(axes) != 1 or axes[0] % size != axis:
        raise Refuse("the new axis is elsewhere")
    picked = const(index.reshape(1))
    return typed_like(
        ir.Node("", "Gather", [m["x"], picked], [ir.AttrInt64("axis", axis)]), m.output
    )


@rule(op("Squeeze", op("Gather", Any("x"), Const("i"), name="gather"), Maybe(Const("axes"))))
def squeeze_of_gather(m: Match) -> ir.Node:
    """Gather with a list of one index, squeezed at its axis, is Gather of that index."""
    size, axes = rank(m["x"]), _axes(m.root)
    index = m.array("i")
    if size is None or axes is None or index.shape != (1,):
        raise Refuse("not a list of one index, or the rank or axes are unknown")
    axis = int_of(m.node("gather"), "axis") % size
    if len(axes) != 1 or axes[0] % size != axis:
        raise Refuse("the removed axis is elsewhere")
    picked = const(index.reshape(()))
    return typed_like(
        ir.Node("", "Gather", [m["x"], picked], [ir.AttrInt64("axis", axis)]), m.output
    )


@rule(op("Gather", op("Shape", Any("x"), name="shape", shared=True), Const("i")), opset=15)
def gather_of_shape(m: Match) -> ir.Node:
    """One dimension as a list: Shape with start and end."""
    index = m.array("i")
    size = rank(m["x"])
    if index.shape != (1,) or size is None:
        raise Refuse("not a list of one index, or the rank is unknown")
    dims = range(size)[int_of(m.node("shape"), "start") : int_of(m.node("shape"), "end", size)]
    place = int(index[0])
    if not -len(dims) <= place < len(dims):
        raise Refuse("the index is out of range")
    axis = dims[place]
    span = [ir.AttrInt64("start", axis), ir.AttrInt64("end", axis + 1)]
    return typed_like(ir.Node("", "Shape", [m["x"]], span), m.output)


@rule(op("Range", Any("start"), Any("limit"), Any("delta")), opset=11)
def range_of_vectors(m: Match) -> ir.Node:
    """Range wants scalars; ONNX Runtime also runs vectors of one element, until it sees they are."""
    inputs = [m["start"], m["limit"], m["delta"]]
    if not any(static_shape(v) == (1,) for v in inputs):
        raise Refuse("all operands are scalars, or of unknown shape")
    return typed_like(ir.Node("", "Range", [_scalar(v) for v in inputs]), m.output)


def _scalar(value: ir.Value) -> ir.Value:
    if static_shape(value) != (1,):
        return value
    node = ir.Node("", "Reshape", [value, const(np.zeros(0, dtype=np.int64))])
    node.outputs[0].type, node.outputs[0].shape = value.type, ir.Shape(())
    return node.outputs[0]


RULES: Sequence[Rule] = (
    identity,
    cast_to_same,
    cast_of_cast,
    only_one_input,
    split_into_one,
    dropout,
    done_twice,
    undone,
    transpose_of_nothing,
    transpose_of_transpose,
    mul_by_one,
    add_zero,
    sub_zero,
    div_by_one,
    pow_one,
    where_decided,
    slice_of_slice,
    concat_of_concat,
    gather_of_gather,
    unsqueeze_of_gather,
    squeeze_of_gather,
    gather_of_shape,
    range_of_vectors,
)


@dataclass(frozen=True)
class CleanUp(RewritePass):
    """Removes operators that do nothing and joins neighbours of one kind. Exact."""

    name: ClassVar[str] = "clean-up"
    summary: ClassVar[str] = "remove no-ops; join casts, transposes, slices, concats, gathers"
    rules: ClassVar[Sequence[Rule]] = RULES
