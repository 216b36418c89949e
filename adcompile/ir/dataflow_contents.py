"""Operators of shape arithmetic, on integers and symbols: transfer functions for ``Flow``.

Elements live in object arrays, so NumPy does the indexing and broadcasting.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import cast

import numpy as np
import onnx_ir as ir

from adcompile.ir.attributes import int_of
from adcompile.ir.constants import tensor_of
from adcompile.ir.dataflow import (
    INTEGERS,
    MAX_ELEMENTS,
    Content,
    Dims,
    Flow,
    Info,
    Transfer,
    objects,
)
from adcompile.ir.dataflow_shapes import SHAPES, axes_of
from adcompile.ir.dataflow_views import VIEWS
from adcompile.ir.symbols import Binary, Elem, Sym, both, either, equal, less, low_of, not_

INT32 = 1 << 31


def _array(items: list[Elem]) -> Content:
    result = np.empty(len(items), dtype=object)
    result[:] = items
    return result


def _elementwise(make: Callable[[Flow], Binary]) -> Transfer:
    """A two-input operator on contents; the shape comes from the general table."""

    def transfer(flow: Flow, node: ir.Node) -> list[Info]:
        info = _shape_only(flow, node)
        contents = [flow.content(v) for v in node.inputs]
        info.content = _combine(make(flow), contents)
        return [info]

    return transfer


def _combine(compute: Binary, contents: list[Content | None]) -> Content | None:
    known = [c for c in contents if c is not None]
    if len(known) != len(contents) or not known:
        return None
    total = known[0]
    for each in known[1:]:
        try:
            pairs = np.broadcast(total, each)
        except ValueError:
            return None
        if pairs.size > MAX_ELEMENTS:
            return None
        items = [compute(a, b) for a, b in pairs]
        if any(item is None for item in items):
            return None
        total = _array(cast("list[Elem]", items)).reshape(pairs.shape)
    return total


def _shape_only(flow: Flow, node: ir.Node) -> Info:
    results = SHAPES[node.op_type](flow, node)
    return Info(results[0].shape) if results else Info()


def _same(flow: Flow, node: ir.Node) -> list[Info]:
    return [Info(flow.shape(node.inputs[0]), flow.content(node.inputs[0]))]


def _cast(flow: Flow, node: ir.Node) -> list[Info]:
    """Elements survive between integer types when they fit; a bool source is 0 or 1 anyway."""
    source = node.inputs[0]
    shape, content = flow.shape(source), flow.content(source)
    target = node.outputs[0].dtype
    if content is None or target not in INTEGERS or source is None:
        return [Info(shape)]
    flat: list[Elem] = content.ravel().tolist()
    if source.dtype == target or (target == ir.DataType.INT64):
        return [Info(shape, content)]
    if target == ir.DataType.BOOL:
        known = [1 if (low_of(x) or 0) > 0 else (0 if x == 0 else None) for x in flat]
        known = [
            1 if isinstance(x, int) and x != 0 else k for x, k in zip(flat, known, strict=True)
        ]
        if any(k is None for k in known):
            return [Info(shape)]
        return [Info(shape, _array(cast("list[Elem]", known)).reshape(content.shape))]
    if all(isinstance(x, int) and -INT32 <= x < INT32 for x in flat):
        return [Info(shape, content)]
    return [Info(shape)]


def _shape(flow: Flow, node: ir.Node) -> list[Info] | None:
    dims = flow.shape(node.inputs[0])
    if dims is None:
        return None
    start, end = int_of(node, "start"), int_of(node, "end", len(dims))
    part = list(dims[slice(start, end)])
    return [Info((len(part),), _array(part))]


def _size(flow: Flow, node: ir.Node) -> list[Info]:
    dims = flow.shape(node.inputs[0])
    total = None if dims is None else product(flow, dims)
    if total is None:
        return [Info(())]
    return [Info((), _array([total]).reshape(()))]


def product(flow: Flow, dims: Dims) -> Elem | None:
    """The product of dimensions; None when it does not fit."""
    total: Elem | None = 1
    for dim in dims:
        total = None if total is None else flow.symbols.mul(total, dim)
    return total


def _gather(flow: Flow, node: ir.Node) -> list[Info] | None:
    data, index = flow.shape(node.inputs[0]), flow.shape(node.inputs[1])
    if data is None or index is None or not data:
        return None
    axis = int_of(node, "axis") % len(data)
    info = Info((*data[:axis], *index, *data[axis + 1 :]))
    content, places = flow.content(node.inputs[0]), flow.content(node.inputs[1])
    if content is not None and places is not None:
        numbers = flow.numbers(node.inputs[1])
        size = content.shape[axis]
        if numbers is not None and all(-size <= n < size for n in numbers):
            chosen = np.asarray(numbers, dtype=np.int64).reshape(places.shape)
            info.content = np.asarray(np.take(content, chosen, axis=axis), dtype=object)
    return [info]


def _concat(flow: Flow, node: ir.Node) -> list[Info] | None:
    shapes = [flow.shape(v) for v in node.inputs]
    known = [s for s in shapes if s is not None]
    if len(known) != len(shapes) or not known or not known[0]:
        return None
    axis = int_of(node, "axis") % len(known[0])
    total: Elem | None = 0
    for shape in known:
        total = None if total is None else flow.symbols.add(total, shape[axis])
    dims: list[Elem] = []
    for i in range(len(known[0])):
        options = [s[i] for s in known]
        dims.append(next((d for d in options if isinstance(d, int)), options[0]))
    dims[axis] = flow.symbols.dim(node.outputs[0], axis) if total is None else total
    contents = [flow.content(v) for v in node.inputs]
    parts = [c for c in contents if c is not None]
    content = np.concatenate(parts, axis=axis) if len(parts) == len(contents) else None
    return [Info(tuple(dims), content)]


def _where(flow: Flow, node: ir.Node) -> list[Info]:
    info = _shape_only(flow, node)
    test, yes, no = (flow.content(v) for v in node.inputs)
    if test is None or yes is None or no is None:
        return [info]
    try:
        parts = np.broadcast(test, yes, no)
    except ValueError:
        return [info]
    if parts.size > MAX_ELEMENTS:
        return [info]
    items: list[Elem] = []
    for condition, a, b in parts:
        if isinstance(condition, int):
            items.append(a if condition else b)
        elif a is b or (isinstance(a, int) and a == b):
            items.append(a)
        else:
            return [info]
    info.content = _array(items).reshape(parts.shape)
    return [info]


def _unary(compute: Callable[[Elem], Elem | None]) -> Transfer:
    def transfer(flow: Flow, node: ir.Node) -> list[Info]:
        content = flow.content(node.inputs[0])
        info = Info(flow.shape(node.inputs[0]))
        if content is not None:
            items = [compute(x) for x in content.ravel().tolist()]
            if all(item is not None for item in items):
                info.content = _array(cast("list[Elem]", items)).reshape(content.shape)
        return [info]

    return transfer


def _negative(x: Elem) -> Elem | None:
    return -x if isinstance(x, int) and x != -(1 << 63) else None


def _absolute(x: Elem) -> Elem | None:
    low = low_of(x)
    if isinstance(x, Sym):
        return x if low is not None and low >= 0 else None
    return abs(x) if x != -(1 << 63) else None


def _reduction(make: Callable[[Flow], Binary], empty: int | None) -> Transfer:
    """A Reduce over all elements of a vector."""

    def transfer(flow: Flow, node: ir.Node) -> list[Info] | None:
        results = SHAPES[node.op_type](flow, node)
        content, axes = flow.content(node.inputs[0]), axes_of(flow, node)
        if not results or content is None or content.ndim != 1 or axes is None:
            return list(results) if results else None
        if not axes and int_of(node, "noop_with_empty_axes"):
            return list(results)
        items: list[Elem | None] = content.tolist()
        compute = make(flow)

        def join(a: Elem | None, b: Elem | None) -> Elem | None:
            return None if a is None or b is None else compute(a, b)

        total = reduce(join, items[1:], items[0]) if items else empty
        if total is not None:
            shape = (1,) if int_of(node, "keepdims", 1) else ()
            results = [Info(shape, _array([total]).reshape(shape))]
        return list(results)

    return transfer


def _mod(flow: Flow, node: ir.Node) -> list[Info]:
    if int_of(node, "fmod"):
        return [_shape_only(flow, node)]
    return list(_elementwise(lambda f: f.symbols.mod)(flow, node) or [])


def _constant_node(flow: Flow, node: ir.Node) -> list[Info] | None:
    tensor = tensor_of(node)
    if tensor is None:
        return None
    shape = tuple(tensor.shape.numpy())
    if tensor.dtype not in INTEGERS or tensor.size > MAX_ELEMENTS:
        return [Info(shape)]
    return [Info(shape, objects(tensor.numpy()))]


CONTENTS: dict[str, Transfer] = {
    "Constant": _constant_node,
    "Identity": _same,
    "Cast": _cast,
    "Shape": _shape,
    "Size": _size,
    "Gather": _gather,
    "Concat": _concat,
    "Where": _where,
    "Add": _elementwise(lambda f: f.symbols.add),
    "Sub": _elementwise(lambda f: f.symbols.sub),
    "Mul": _elementwise(lambda f: f.symbols.mul),
    "Div": _elementwise(lambda f: f.symbols.div),
    "Mod": _mod,
    "Min": _elementwise(lambda f: f.symbols.minimum),
    "Max": _elementwise(lambda f: f.symbols.maximum),
    "Equal": _elementwise(lambda f: equal),
    "Less": _elementwise(lambda f: less),
    "Greater": _elementwise(lambda f: lambda a, b: less(b, a)),
    "LessOrEqual": _elementwise(lambda f: lambda a, b: _negated(less(b, a))),
    "GreaterOrEqual": _elementwise(lambda f: lambda a, b: _negated(less(a, b))),
    "And": _elementwise(lambda f: both),
    "Or": _elementwise(lambda f: either),
    "Not": _unary(not_),
    "Neg": _unary(_negative),
    "Abs": _unary(_absolute),
    "ReduceProd": _reduction(lambda f: f.symbols.mul, 1),
    "ReduceSum": _reduction(lambda f: f.symbols.add, 0),
    "ReduceMax": _reduction(lambda f: f.symbols.maximum, None),
    "ReduceMin": _reduction(lambda f: f.symbols.minimum, None),
}

TABLE: dict[str, Transfer] = {**SHAPES, **VIEWS, **CONTENTS}


def _negated(x: int | None) -> int | None:
    return None if x is None else 1 - x


def analyse(model: ir.Model) -> Flow:
    """The facts about shapes and small integers of *model*."""
    return Flow(model, TABLE)
