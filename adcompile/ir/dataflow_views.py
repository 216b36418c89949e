"""Operators that only rearrange elements: transfer functions for ``Flow``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import onnx_ir as ir

from adcompile.ir.attributes import int_of, ints_of
from adcompile.ir.dataflow import INTEGERS, MAX_ELEMENTS, Dims, Flow, Info, Transfer
from adcompile.ir.dataflow_shapes import axes_of, broadcast
from adcompile.ir.symbols import Elem, Sym

FAR = 1 << 31  # a slice end at or beyond this means "to the end"


def slice_spec(flow: Flow, node: ir.Node, rank: int) -> list[tuple[int, Elem, Elem, int]] | None:
    """(axis, start, end, step) of a Slice, per sliced axis; None when one is not known."""
    if ints_of(node, "starts") is not None:  # opset 1 to 9
        starts, ends = list(ints_of(node, "starts") or ()), list(ints_of(node, "ends") or ())
        axes = list(ints_of(node, "axes") or range(len(starts)))
        return [(a % rank, s, e, 1) for a, s, e in zip(axes, starts, ends, strict=True)]
    given = [flow.content(v) for v in node.inputs[1:]]
    if len(given) < 2 or given[0] is None or given[1] is None:
        return None
    lists: list[list[Elem] | None] = [None if g is None else g.ravel().tolist() for g in given]
    absent = [v is None for v in node.inputs[1:]] + [True] * 4
    if any(part is None and not absent[i] for i, part in enumerate(lists)):
        return None
    begin, end = lists[0] or [], lists[1] or []
    axis = lists[2] if not absent[2] else None
    step = lists[3] if not absent[3] else None
    axis = list(range(len(begin))) if axis is None else axis
    step = [1] * len(begin) if step is None else step
    if not all(isinstance(x, int) for x in (*axis, *step)):
        return None
    numbers = [(cast(int, a) % rank, cast(int, s)) for a, s in zip(axis, step, strict=True)]
    return [(a, b, e, s) for (a, s), b, e in zip(numbers, begin, end, strict=True)]


def _slice(flow: Flow, node: ir.Node) -> list[Info] | None:
    data = flow.shape(node.inputs[0])
    if data is None:
        return None
    spec = slice_spec(flow, node, len(data))
    if spec is None:
        return None
    dims = list(data)
    for axis, start, end, step in spec:
        dims[axis] = _sliced(flow, node, axis, (data[axis], start, end, step))
    content = flow.content(node.inputs[0])
    if content is not None:
        picks: list[slice] = [slice(None)] * content.ndim
        for axis, start, end, step in spec:
            if not isinstance(start, int) or not isinstance(end, int) or step == 0:
                return [Info(tuple(dims))]
            picks[axis] = _python_slice(content.shape[axis], start, end, step)
        content = content[tuple(picks)]
    return [Info(tuple(dims), content)]


def _sliced(flow: Flow, node: ir.Node, axis: int, what: tuple[Elem, Elem, Elem, int]) -> Elem:
    size, start, end, step = what
    numbers = isinstance(size, int) and isinstance(start, int) and isinstance(end, int)
    if numbers and step != 0:
        picked = _python_slice(cast(int, size), cast(int, start), cast(int, end), step)
        return len(range(cast(int, size))[picked])
    whole = end is size or (isinstance(end, int) and end >= FAR)
    if isinstance(start, int) and start == 0 and step == 1 and whole:
        return size
    nonnegative = isinstance(start, int) and start == 0 and step == 1 and isinstance(end, Sym)
    if nonnegative and isinstance(size, int) and size == 0:
        return 0
    return flow.symbols.dim(node.outputs[0], axis)


def _python_slice(size: int, start: int, end: int, step: int) -> slice:
    """ONNX's clamping rules as a Python slice."""
    if step > 0:
        return slice(_clamp(start, size, 0, size), _clamp(end, size, 0, size), step)
    first = _clamp(start, size, -1, size - 1)
    last = _clamp(end, size, -1, size - 1)
    return (
        slice(first if first >= 0 else 0, last if last >= 0 else None, step)
        if first >= 0
        else (slice(0, 0, 1))
    )


def _clamp(place: int, size: int, low: int, high: int) -> int:
    return min(max(place + size if place < 0 else place, low), high)


def _unsqueeze(flow: Flow, node: ir.Node) -> list[Info] | None:
    data, axes = flow.shape(node.inputs[0]), axes_of(flow, node)
    if data is None or axes is None:
        return None
    rank = len(data) + len(axes)
    places = {a % rank for a in axes}
    rest = iter(data)
    dims = tuple(1 if i in places else next(rest) for i in range(rank))
    content = flow.content(node.inputs[0])
    if content is not None:
        content = np.expand_dims(content, tuple(sorted(places)))
    return [Info(dims, content)]


def _squeeze(flow: Flow, node: ir.Node) -> list[Info] | None:
    data, axes = flow.shape(node.inputs[0]), axes_of(flow, node)
    if data is None or axes is None:
        return None
    if axes:
        places = {a % len(data) for a in axes}
    elif all(isinstance(d, int) for d in data):
        places = {i for i, d in enumerate(data) if d == 1}
    else:
        return None
    dims = tuple(d for i, d in enumerate(data) if i not in places)
    content = flow.content(node.inputs[0])
    if content is not None:
        if any(content.shape[i] != 1 for i in places):
            return [Info(dims)]
        content = np.squeeze(content, axis=tuple(sorted(places)))
        content = np.asarray(content, dtype=object)
    return [Info(dims, content)]


def _transpose(flow: Flow, node: ir.Node) -> list[Info] | None:
    data = flow.shape(node.inputs[0])
    if data is None:
        return None
    perm = ints_of(node, "perm") or tuple(reversed(range(len(data))))
    content = flow.content(node.inputs[0])
    if content is not None:
        content = np.transpose(content, perm)
    return [Info(tuple(data[p] for p in perm), content)]


def _reshape(flow: Flow, node: ir.Node) -> list[Info] | None:
    data = flow.shape(node.inputs[0])
    target: list[Elem] | None = None
    if ints_of(node, "shape") is not None:
        target = list(ints_of(node, "shape") or ())
    elif len(node.inputs) > 1 and (found := flow.content(node.inputs[1])) is not None:
        target = found.ravel().tolist()
    if target is None:
        return None
    dims = reshaped(flow, data, target, bool(int_of(node, "allowzero")), node.outputs[0])
    content = flow.content(node.inputs[0])
    sizes = [d for d in dims if isinstance(d, int)]
    if content is not None and len(sizes) == len(dims) and math.prod(sizes) == content.size:
        return [Info(dims, content.reshape(sizes))]
    return [Info(dims)]


def reshaped(
    flow: Flow, data: Dims | None, target: list[Elem], allow_zero: bool, owner: ir.Value
) -> Dims:
    """The result shape of a Reshape to *target*, with 0 and -1 resolved as far as possible."""
    dims: list[Elem] = []
    for i, dim in enumerate(target):
        if isinstance(dim, int) and dim == 0 and not allow_zero:
            known = data is not None and i < len(data)
            dims.append(data[i] if data is not None and known else flow.symbols.dim(owner, i))
        elif isinstance(dim, Sym) and not (allow_zero or means_itself(data, target, i)):
            dims.append(flow.symbols.dim(owner, i))
        else:
            dims.append(dim)
    open_places = [i for i, d in enumerate(target) if isinstance(d, int) and d == -1]
    if len(open_places) == 1 and data is not None:
        dims[open_places[0]] = _remaining(flow, data, dims, open_places[0], owner)
    elif open_places:
        dims[open_places[0]] = flow.symbols.dim(owner, open_places[0])
    return tuple(dims)


def means_itself(data: Dims | None, target: Sequence[Elem], place: int) -> bool:
    """True when the symbol at *place* of a Reshape target is the result's dimension there.

    When it is 0 at run time, Reshape copies the input's dimension instead. That is the same when
    the input has this very symbol at that place; or anywhere, if the other targets are positive:
    then the input is empty, and only 0 gives an empty result.
    """
    dim = target[place]
    if not isinstance(dim, Sym) or dim.low is None or dim.low < 0:
        return False
    if dim.low > 0:
        return True
    if data is None:
        return False
    if place < len(data) and data[place] is dim:
        return True
    others = [d for i, d in enumerate(target) if i != place]
    return any(d is dim for d in data) and all(isinstance(d, int) and d > 0 for d in others)


def _remaining(flow: Flow, data: Dims, dims: list[Elem], place: int, owner: ir.Value) -> Elem:
    """What -1 stands for: cancel equal symbols, then divide."""
    left = list(data)
    for i, dim in enumerate(dims):
        if i != place and isinstance(dim, Sym):
            match = next((k for k, d in enumerate(left) if d is dim), None)
            if match is None:
                return flow.symbols.dim(owner, place)
            del left[match]
    rest = math.prod(d for i, d in enumerate(dims) if i != place and isinstance(d, int))
    symbols = [d for d in left if isinstance(d, Sym)]
    number = math.prod(d for d in left if isinstance(d, int))
    if rest <= 0 or number % rest:
        return flow.symbols.dim(owner, place)
    if not symbols:
        return number // rest
    if len(symbols) == 1 and number == rest:
        return symbols[0]
    return flow.symbols.dim(owner, place)


def _flatten(flow: Flow, node: ir.Node) -> list[Info] | None:
    data = flow.shape(node.inputs[0])
    if data is None:
        return None
    axis = int_of(node, "axis", 1)
    axis = axis + len(data) if axis < 0 else axis
    parts = (data[:axis], data[axis:])
    dims: list[Elem] = []
    for place, part in enumerate(parts):
        total: Elem | None = 1
        for dim in part:
            total = None if total is None else flow.symbols.mul(total, dim)
        dims.append(flow.symbols.dim(node.outputs[0], place) if total is None else total)
    return [Info(tuple(dims))]


def _expand(flow: Flow, node: ir.Node) -> list[Info] | None:
    data, target = flow.shape(node.inputs[0]), flow.content(node.inputs[1])
    if data is None or target is None:
        return None
    goal: list[Elem] = target.ravel().tolist()
    if any(isinstance(d, Sym) and (d.low is None or d.low < 0) for d in goal):
        return None
    dims = broadcast([data, tuple(goal)], node.outputs[0], flow)
    return [_spread(flow, node, dims)]


def _spread(flow: Flow, node: ir.Node, dims: Dims | None) -> Info:
    content = flow.content(node.inputs[0])
    sizes = [d for d in dims or () if isinstance(d, int)]
    if dims is None or content is None or len(sizes) != len(dims):
        return Info(dims)
    if math.prod(sizes) > MAX_ELEMENTS:
        return Info(dims)
    return Info(dims, np.broadcast_to(content, sizes).copy())


def _tile(flow: Flow, node: ir.Node) -> list[Info] | None:
    data = flow.shape(node.inputs[0])
    repeats = flow.content(node.inputs[1]) if len(node.inputs) == 2 else None
    if data is None or repeats is None or repeats.size != len(data):
        return None
    dims: list[Elem] = []
    for axis, (dim, count) in enumerate(zip(data, repeats.ravel().tolist(), strict=True)):
        total = flow.symbols.mul(dim, count)
        dims.append(flow.symbols.dim(node.outputs[0], axis) if total is None else total)
    content, numbers = flow.content(node.inputs[0]), flow.numbers(node.inputs[1])
    if content is None or numbers is None or content.size * math.prod(numbers) > MAX_ELEMENTS:
        return [Info(tuple(dims))]
    return [Info(tuple(dims), np.tile(content, numbers))]


def _split(flow: Flow, node: ir.Node) -> list[Info] | None:
    data = flow.shape(node.inputs[0])
    if not data:
        return None
    axis = int_of(node, "axis") % len(data)
    sizes = list(ints_of(node, "split") or ())
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        sizes = flow.numbers(node.inputs[1]) or []
    size = data[axis]
    if not sizes and isinstance(size, int):
        step = -(-size // len(node.outputs))
        sizes = [min(step, size - i * step) for i in range(len(node.outputs))]
    if len(sizes) != len(node.outputs) or any(s < 0 for s in sizes):
        return None
    content = flow.content(node.inputs[0])
    results: list[Info] = []
    start = 0
    for part in sizes:
        info = Info((*data[:axis], part, *data[axis + 1 :]))
        if content is not None:
            info.content = content.take(range(start, min(start + part, content.shape[axis])), axis)
        start += part
        results.append(info)
    return results


def _constant_of_shape(flow: Flow, node: ir.Node) -> list[Info] | None:
    target = flow.content(node.inputs[0])
    if target is None:
        return None
    dims: list[Elem] = target.ravel().tolist()
    info = Info(tuple(dims))
    sizes = [d for d in dims if isinstance(d, int)]
    value = node.attributes.get("value")
    tensor = None if value is None else value.as_tensor()
    if tensor is None or tensor.dtype not in INTEGERS or tensor.size != 1:
        return [info]
    sound = len(sizes) == len(dims) and min(sizes, default=0) >= 0
    if sound and math.prod(sizes) <= MAX_ELEMENTS:
        info.content = np.full(sizes, int(tensor.numpy().ravel()[0]), dtype=object)
    return [info]


def _range(flow: Flow, node: ir.Node) -> list[Info] | None:
    found = [flow.content(v) for v in node.inputs]
    parts = [c.ravel()[0] for c in found if c is not None and c.size == 1]
    if len(parts) != 3:
        return None
    start, limit, delta = cast("tuple[Elem, Elem, Elem]", tuple(parts))
    counts = isinstance(start, int) and isinstance(delta, int) and (start, delta) == (0, 1)
    if counts and isinstance(limit, Sym) and limit.low is not None and limit.low >= 0:
        return [Info((limit,))]
    if not isinstance(start, int) or not isinstance(limit, int) or not isinstance(delta, int):
        return None
    if delta == 0:
        return None
    numbers = range(start, limit, delta)
    if len(numbers) > MAX_ELEMENTS:
        return [Info((len(numbers),))]
    content = np.empty(len(numbers), dtype=object)
    content[:] = list(numbers)
    return [Info((len(numbers),), content)]


VIEWS: dict[str, Transfer] = {
    "Slice": _slice,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Expand": _expand,
    "Tile": _tile,
    "Split": _split,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
}
