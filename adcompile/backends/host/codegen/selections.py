"""Moves a Gather with constant indices before the Concat or Resize that feeds it: only what is chosen
is enlarged and joined.

PaDiM keeps a few of the channels of its joined feature maps, in random order. Here each map is asked
for its own ones, ascending, while it is small; what is left of the Gather is their order, which the
kernels of the distance follow by themselves (``registry.Op.joins``).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from adcompile.ir.attributes import int_of, ints_of, str_of
from adcompile.ir.constants import const
from adcompile.ir.graph import constant, static_shape
from adcompile.rewrite.pattern import Const, Match, op
from adcompile.rewrite.rules import Refuse, Rule, rule

Index = npt.NDArray[np.int64]


@rule(op("Gather", op("Concat", any_inputs=True, name="join"), Const("index")), opset=11)
def gather_before_concat(m: Match) -> ir.Node | ir.Value:
    """Gather(Concat(a, b)) along the axis of the join chooses from a and from b."""
    join = m.node("join")
    axis, index, total = _choice(m, join.outputs[0])
    if int_of(join, "axis", 1) % len(static_shape(join.outputs[0]) or (0,)) != axis:
        raise Refuse("it chooses along another axis than that of the join")
    if len(np.unique(index)) >= total:
        raise Refuse("it chooses everything")
    pieces: list[ir.Value] = []
    places = np.empty(total, np.int64)  # where each one of the join lies in the new join
    start = done = 0
    for value in join.inputs:
        shape = static_shape(value)
        if value is None or shape is None:
            raise Refuse("the shape of a joined value is not known")
        size = shape[axis]
        own = np.unique(index[(index >= start) & (index < start + size)]) - start
        places[own + start] = np.arange(done, done + len(own))
        if len(own) == size:
            pieces.append(value)
        elif len(own):
            pieces.append(_gathered(value, own, axis, m.root))
        start, done = start + size, done + len(own)
    order = places[index]
    if len(pieces) == 1:
        joined = pieces[0]
    else:
        new = ir.node("Concat", pieces, attributes={"axis": axis}, name=join.name)
        joined = new.outputs[0]
        _describe(joined, join.outputs[0], axis, done)
    if np.array_equal(order, np.arange(done)):
        return joined
    return ir.node(
        "Gather",
        [joined, const(order, m["index"].name or "order")],
        attributes={"axis": axis},
        outputs=[ir.Value()],
        name=m.root.name,
    )


@rule(op("Gather", op("Resize", any_inputs=True, name="resize"), Const("index")), opset=11)
def gather_before_resize(m: Match) -> ir.Node:
    """Gather(Resize(x)) along an axis that is not resized is Resize(Gather(x))."""
    resize = m.node("resize")
    axis, index, size = _choice(m, resize.outputs[0])
    x, sizes = resize.inputs[0], resize.inputs[3] if len(resize.inputs) > 3 else None
    before = static_shape(x)
    if x is None or before is None or before[axis] != size:
        raise Refuse("the axis it chooses along is resized")
    if len(index) >= size:
        raise Refuse("it chooses everything")
    if str_of(resize, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        raise Refuse("it crops")
    if str_of(resize, "keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Refuse("the sizes depend on each other")
    axes = [a % len(before) for a in ints_of(resize, "axes") or range(len(before))]
    if axis in axes and not _keeps(resize, axes.index(axis)):
        raise Refuse("it may move what it chooses from")
    inputs = [_gathered(x, index, axis, m.root), *resize.inputs[1:]]
    known = None if sizes is None else constant(sizes)
    if known is not None and axis in axes and known.size:
        wanted = np.array(known, np.int64)
        wanted[axes.index(axis)] = len(index)
        inputs[3] = const(wanted, f"{resize.name}/sizes")
    attributes = resize.attributes.values()
    return ir.Node("", "Resize", inputs, attributes, outputs=[ir.Value()], name=resize.name)


def _choice(m: Match, value: ir.Value) -> tuple[int, Index, int]:
    """Axis and non-negative indices of the Gather that *m* has as its root, and what *value*, which it
    chooses from, has along the axis. Refuse when they are not known or no list."""
    shape, index = static_shape(value), m.array("index")
    if shape is None:
        raise Refuse("the shape of what it chooses from is not known")
    if index.ndim != 1 or index.size == 0:
        raise Refuse("the indices are no list")
    axis = int_of(m.root, "axis", 0) % len(shape)
    size = shape[axis]
    found = np.asarray(index, np.int64)
    if found.min() < -size or found.max() >= size:
        raise Refuse("an index lies outside")
    return axis, found % size, size


def _keeps(resize: ir.Node, place: int) -> bool:
    """True when entry *place* of constant scales is one, or there are constant sizes: equal sizes before
    and after are no proof, 4 times 1.2 is 4 too."""
    scales, sizes = (
        constant(resize.inputs[i]) if len(resize.inputs) > i else None for i in (2, 3)
    )
    if scales is not None and scales.size:
        return float(scales[place]) == 1.0
    return sizes is not None


def _gathered(value: ir.Value, index: Index, axis: int, root: ir.Node) -> ir.Value:
    """A new Gather of *value*, named after *root*."""
    inputs = [value, const(index, f"{root.name}/index")]
    node = ir.node("Gather", inputs, attributes={"axis": axis}, name=root.name)
    _describe(node.outputs[0], value, axis, len(index))
    return node.outputs[0]


def _describe(new: ir.Value, old: ir.Value, axis: int, size: int) -> None:
    """*new* is like *old* but for its size along *axis*."""
    shape = list(static_shape(old) or ())
    shape[axis] = size
    new.type, new.shape = old.type, ir.Shape(shape)


RULES: tuple[Rule, ...] = (gather_before_concat, gather_before_resize)
