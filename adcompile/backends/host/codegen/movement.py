"""Operators about shapes and places: views, copies, lookups, ordering."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from adcompile.backends.host.codegen import literals
from adcompile.backends.host.codegen.call import Call, call
from adcompile.backends.host.codegen.registry import (
    ANY,
    FLOATS,
    INDICES,
    INTS,
    NUMBERS,
    Op,
    T,
    Table,
)

LAST = 2**63 - 1


# --- views --------------------------------------------------------------------------------------


def _identity(c: Call) -> str:
    return c.arg(0)


def _dropout(c: Call) -> str:
    training = c.constant(2)
    if c.has(2) and (training is None or bool(training)):
        raise c.refuse("training_mode")
    if len(c.node.outputs) == 1:
        return call("keep", c.out(0), c.arg(0))
    kept = call("filled", c.out(1), f"{c.arg(0)}.shape()", literals.number(1, c.out_dtype(1)))
    return f"std::make_tuple(op::keep({c.out(0)}, {c.arg(0)}), {kept})"


def _reshape(c: Call) -> str:
    extra = [literals.boolean(True)] if c.attr_int("allowzero") else []
    if c.opset < 5:
        return call("reshape", c.arg(0), literals.shape(c.attr_ints("shape")))
    return call("reshape", c.arg(0), c.shape_arg(1), *extra)


def _axes(c: Call, i: int) -> str | None:
    """Axes as input (newer opsets) or attribute; None when not given."""
    if c.has(i):
        return c.shape_arg(i)
    return literals.shape(c.attr_ints("axes")) if c.given("axes") else None


def _squeeze(c: Call) -> str:
    axes = _axes(c, 1)
    return call("squeeze", c.arg(0), *([axes] if axes else []))


def _unsqueeze(c: Call) -> str:
    return call("unsqueeze", c.arg(0), _axes(c, 1) or literals.shape([]))


def _flatten(c: Call) -> str:
    return call("flatten", c.arg(0), str(c.attr_int("axis", 1)))


def _shape_of(c: Call) -> str:
    bounds = [literals.index(c.attr_int("start", 0)), literals.index(c.attr_int("end", LAST))]
    return call("shape_of", c.out(), c.arg(0), *bounds)


# --- copies -------------------------------------------------------------------------------------


def _slice(c: Call) -> str:
    if c.opset < 10:
        lists = [c.attr_ints(n) for n in ("starts", "ends")]
        along = c.attr_ints("axes", range(len(lists[0])))
        return call("slice", c.out(), c.arg(0), *map(literals.shape, (*lists, along, [])))
    starts, ends = c.shape_arg(1), c.shape_arg(2)
    if c.has(3):
        axes = c.shape_arg(3)
    else:
        count = c.shape(1)
        if count is None:
            raise c.refuse("the number of starts is not known")
        axes = literals.shape(range(count[0]))
    steps = c.shape_arg(4) if c.has(4) else "Shape{}"
    return call("slice", c.out(), c.arg(0), starts, ends, axes, steps)


def _concat(c: Call) -> str:
    if c.grows_in_place():
        return call("append", c.out(), *c.args())
    return call("concat", c.out(), str(c.attr_int("axis", 1)), *c.pieces())


def _transpose(c: Call) -> str:
    return call("transpose", c.out(), c.arg(0), _permutation(c))


def _transposed(c: Call) -> str:
    return call("transposed", c.arg(0), _permutation(c))


def _permutation(c: Call) -> str:
    perm = c.attr_ints("perm")
    if not c.given("perm"):
        rank = c.rank()
        if rank is None:
            raise c.refuse("the rank is not known")
        perm = list(reversed(range(rank)))
    return literals.shape(perm)


def _split(c: Call) -> str:
    outputs = c.node.outputs
    axis = c.attr_int("axis")
    lengths = c.ints(1) if c.opset >= 13 else (c.attr_ints("split") or None)
    dims = c.shape()
    if lengths is None and c.has(1):
        pieces = c.arg(1)
        parts = [
            call("split_at", c.out(i), c.arg(0), str(axis), pieces, str(i))
            for i in range(len(outputs))
        ]
        return _tuple(parts)
    if lengths is None and dims is None:
        count = str(len(outputs))
        parts = [
            call("split_equal", c.out(i), c.arg(0), str(axis), str(i), count)
            for i in range(len(outputs))
        ]
        return _tuple(parts)
    if lengths is None:
        whole = (dims or ())[axis]
        piece = -(-whole // len(outputs))
        lengths = [max(min(piece, whole - piece * i), 0) for i in range(len(outputs))]
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    parts = [
        call("split", c.out(i), c.arg(0), str(axis), str(starts[i]), str(lengths[i]))
        for i in range(len(outputs))
    ]
    return _tuple(parts)


def _tuple(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"std::make_tuple({', '.join(parts)})"


def _constant_of_shape(c: Call) -> str:
    found = c.node.attributes.get("value")
    dtype = c.out_dtype()
    value: object = 0
    if found is not None and hasattr(found, "as_tensor"):
        value = found.as_tensor().numpy().reshape(-1)[0]
    return call("filled", c.out(), c.shape_arg(0), literals.number(value, dtype))


def _range(c: Call) -> str:
    return call("range", c.out(), *(f"{a}.item()" for a in c.args()))


def _pad(c: Call) -> str:
    modes = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}
    mode = "Padding::" + c.choice("mode", "constant", modes)
    axes = c.shape_arg(3) if c.has(3) else "Shape{}"
    if c.opset < 11:
        pads = literals.braces([literals.index(v) for v in c.attr_ints("pads")])
        pads = f"op::Amounts{pads}"
        value = c.real(c.attr_float("value"))
    else:
        known = c.ints(1)
        pads = (
            "op::Amounts" + literals.braces([literals.index(v) for v in known])
            if known is not None
            else f"op::to_amounts({c.arg(1)})"
        )
        value = f"{c.arg(2)}.item()" if c.has(2) else c.real(0)
    return call("pad", c.out(), c.arg(0), pads, axes, "op::" + mode, value)


def _depth_to_space(c: Call) -> str:
    mode = c.choice("mode", "DCR", {"DCR": "true", "CRD": "false"})
    return call("depth_to_space", c.out(), c.arg(0), str(c.attr_int("blocksize")), mode)


def _triangle(c: Call) -> str:
    k = f"{c.arg(1)}.item()" if c.has(1) else "0"
    return call("triangle", c.out(), c.arg(0), k, literals.boolean(c.attr_int("upper", 1)))


def _eye(c: Call) -> str:
    return call("eye", c.out(), c.arg(0), str(c.attr_int("k")))


def _cumulate(name: str) -> Op:
    def emit(c: Call) -> str:
        flags = [literals.boolean(c.attr_int(a)) for a in ("exclusive", "reverse")]
        return call(name, c.out(), c.arg(0), f"static_cast<Index>({c.arg(1)}.item())", *flags)

    return Op(emit, (*FLOATS, T.INT32, T.INT64, T.UINT32, T.UINT64), 11)


def _reverse_sequence(c: Call) -> str:
    axes = [str(c.attr_int("batch_axis", 1)), str(c.attr_int("time_axis", 0))]
    return call("reverse_sequence", c.out(), c.arg(0), c.arg(1), *axes)


# --- lookups ------------------------------------------------------------------------------------


def _gather(c: Call) -> str:
    axis = str(c.attr_int("axis"))
    known = c.constant(1)
    if known is not None and known.ndim == 0:
        return call("pick", c.out(), c.arg(0), literals.index(int(known)), axis)
    return call("gather", c.out(), c.arg(0), c.arg(1), axis)


def _gathered(c: Call) -> str:
    return call("gathered", c.arg(0), c.arg(1), str(c.attr_int("axis")))


def _gather_elements(c: Call) -> str:
    return call("gather_elements", c.out(), c.arg(0), c.arg(1), str(c.attr_int("axis")))


def _gather_nd(c: Call) -> str:
    return call("gather_nd", c.out(), c.arg(0), c.arg(1), str(c.attr_int("batch_dims")))


_REDUCTIONS = {
    "none": "op::Replace{}",
    "add": "op::AddTo{}",
    "mul": "op::MultiplyBy{}",
    "max": "op::KeepLarger{}",
    "min": "op::KeepSmaller{}",
}


def _scatter(c: Call, function: str, *extra: str) -> str:
    how = c.choice("reduction", "none", _REDUCTIONS)
    return call(function, c.out(), c.arg(0), c.arg(1), c.arg(2), *extra, how)


def _scatter_elements(c: Call) -> str:
    rows = _whole_rows(c.node)
    if rows is not None:
        how = c.choice("reduction", "none", _REDUCTIONS)
        return call("scatter_rows", c.out(), c.arg(0), c.name_of(rows), c.arg(2), how)
    return _scatter(c, "scatter_elements", str(c.attr_int("axis")))


def _scatter_reads(node: ir.Node) -> Sequence[ir.Value | None]:
    rows = _whole_rows(node)
    return node.inputs if rows is None else (node.inputs[0], rows, node.inputs[2])


def _whole_rows(node: ir.Node) -> ir.Value | None:
    """The column of row numbers when the indices are one, repeated over all other dimensions.

    Exporters write "put these rows there" as Expand([n, 1, 1, 1] to the rows' shape) followed by
    ScatterElements on axis 0. The expanded indices are then as large as the data for nothing.
    """
    indices = node.inputs[1]
    producer = None if indices is None else indices.producer()
    axis = node.attributes.get("axis")
    if producer is None or producer.op_type != "Expand":
        return None
    if axis is not None and axis.value != 0:
        return None
    column = producer.inputs[0]
    if column is None or column.shape is None or len(column.shape) < 2:
        return None
    return column if all(d == 1 for d in list(column.shape)[1:]) else None


def _nonzero(c: Call) -> str:
    return call("nonzero", c.out(), c.arg(0))


def _compress(c: Call) -> str:
    if c.given("axis"):
        return call("compress", c.out(), c.arg(0), c.arg(1), str(c.attr_int("axis")))
    flat = call("reshape", c.arg(0), "Shape{-1}")
    return call("compress", c.out(), flat, c.arg(1), "0")


def _one_hot(c: Call) -> str:
    depth = f"math::cast<Index>({c.arg(1)}.item())"
    return call("one_hot", c.out(), c.arg(0), depth, c.arg(2), str(c.attr_int("axis", -1)))


# --- ordering -----------------------------------------------------------------------------------


def _topk(c: Call) -> str:
    if c.opset < 10:
        k = str(c.attr_int("k"))
    else:
        known = c.ints(1)
        k = literals.index(known[0]) if known else f"{c.arg(1)}.item()"
    flags = [literals.boolean(c.attr_int(a, 1)) for a in ("largest", "sorted")]
    axis = str(c.attr_int("axis", -1))
    return call("topk", c.out(0), c.out(1), "ws.scratch()", c.arg(0), k, axis, *flags)


def _arg_best(largest: bool) -> Op:
    def emit(c: Call) -> str:
        flags = [
            literals.boolean(c.attr_int("keepdims", 1)),
            literals.boolean(largest),
            literals.boolean(c.attr_int("select_last_index")),
        ]
        return call("arg_best", c.out(), c.arg(0), str(c.attr_int("axis")), *flags)

    return Op(emit, NUMBERS)


def _unique(c: Call) -> str:
    outs = [c.out(i) if i < len(c.node.outputs) else c.spare("Index") for i in range(4)]
    axis = str(c.attr_int("axis")) if c.given("axis") else "kMaxRank"
    return call("unique", *outs, c.arg(0), axis, literals.boolean(c.attr_int("sorted", 1)))


TABLE: Table = {
    "Identity": Op(_identity, ANY, views=(0,), owns=False),
    "Dropout": Op(_dropout, FLOATS, note="inference: identity"),
    "Reshape": Op(_reshape, ANY, 5, views=(0,), owns=False),
    "Squeeze": Op(_squeeze, ANY, views=(0,), owns=False),
    "Unsqueeze": Op(_unsqueeze, ANY, views=(0,), owns=False),
    "Flatten": Op(_flatten, ANY, views=(0,), owns=False),
    "Shape": Op(_shape_of, ANY),
    "Size": Op(lambda c: call("size_of", c.out(), c.arg(0)), ANY),
    "Slice": Op(_slice, ANY),
    "Concat": Op(_concat, ANY, 4, joins=lambda _: True),
    "Transpose": Op(_transpose, ANY, piece=_transposed),
    "Split": Op(_split, ANY),
    "Expand": Op(lambda c: call("expand", c.out(), c.arg(0), c.shape_arg(1)), ANY, 8),
    "Tile": Op(lambda c: call("tile", c.out(), c.arg(0), c.shape_arg(1)), ANY, 6),
    "ConstantOfShape": Op(_constant_of_shape, (T.INT64,), 9),
    "Range": Op(_range, (T.FLOAT, T.DOUBLE, T.INT16, T.INT32, T.INT64), 11),
    "Pad": Op(_pad, ANY, 2),
    "DepthToSpace": Op(_depth_to_space, ANY),
    "SpaceToDepth": Op(
        lambda c: call("space_to_depth", c.out(), c.arg(0), str(c.attr_int("blocksize"))), ANY
    ),
    "Trilu": Op(_triangle, ANY, 14),
    "EyeLike": Op(_eye, ANY, 9),
    "CumSum": _cumulate("cumulative_sum"),
    "ReverseSequence": Op(_reverse_sequence, ANY, 10),
    "Gather": Op(_gather, ANY, others={1: INDICES}, piece=_gathered),
    "GatherElements": Op(_gather_elements, ANY, 11, others={1: INDICES}),
    "GatherND": Op(_gather_nd, ANY, 11, others={1: (T.INT64,)}),
    "Scatter": Op(lambda c: _scatter(c, "scatter_elements", str(c.attr_int("axis"))), ANY, 9),
    "ScatterElements": Op(_scatter_elements, ANY, 11, others={1: INDICES}, reads=_scatter_reads),
    "ScatterND": Op(lambda c: _scatter(c, "scatter_nd"), ANY, 11, others={1: (T.INT64,)}),
    "NonZero": Op(_nonzero, ANY, 9),
    "Compress": Op(_compress, ANY, 9),
    "OneHot": Op(_one_hot, ANY, 9, key=2, others={0: INTS + FLOATS}),
    "TopK": Op(_topk, NUMBERS),
    "ArgMax": _arg_best(True),
    "ArgMin": _arg_best(False),
    "Unique": Op(_unique, ANY, 11),
}
