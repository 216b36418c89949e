"""Moves Transposes before the Concat or Resize that feeds them: fewer numbers change their place.

A head that turns feature maps into rows joins them first, enlarged to one size, and transposes the
result. Here every map is transposed by itself, the deep ones while they are small; enlarging then
moves whole rows, and the join has every piece written where it belongs (``registry.Op.piece``).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import onnx_ir as ir

from adcompile.ir.attributes import int_of, ints_of, str_of
from adcompile.ir.constants import const
from adcompile.ir.graph import constant, static_shape
from adcompile.rewrite.pattern import Match, op
from adcompile.rewrite.rules import Refuse, Rule, rule


@rule(op("Transpose", op("Concat", any_inputs=True, name="join")))
def transpose_before_concat(m: Match) -> ir.Node:
    """Transpose(Concat(a, b)) is Concat(Transpose(a), Transpose(b)) along the axis' new place."""
    join = m.node("join")
    perm = _permutation(m.root)
    axis = int_of(join, "axis", 1) % len(perm)
    _check_goes_last(perm, axis)
    pieces = [_transposed(m.root, value, perm) for value in join.inputs]
    return ir.node(
        "Concat", pieces, attributes={"axis": len(perm) - 1}, outputs=[ir.Value()], name=join.name
    )


@rule(op("Transpose", op("Resize", any_inputs=True, name="resize")), opset=11)
def transpose_before_resize(m: Match) -> ir.Node:
    """Transpose(Resize(x)) is Resize(Transpose(x)): less to transpose, and whole rows to enlarge."""
    resize = m.node("resize")
    perm = _permutation(m.root)
    before, after = (static_shape(v) for v in (resize.inputs[0], resize.outputs[0]))
    if before is None or after is None or prod(after) <= prod(before):
        raise Refuse("nothing is known to become larger")
    if str_of(resize, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        raise Refuse("it crops")
    last = perm[-1]
    _check_goes_last(perm, last)
    if before[last] != after[last]:
        raise Refuse("the axis that goes last is resized")
    attributes = dict(resize.attributes)
    axes = ints_of(resize, "axes")
    if axes is not None:
        places = [perm.index(a % len(perm)) for a in axes]
        attributes["axes"] = ir.AttrInt64s("axes", places)
    inputs: list[ir.Value | None] = [_transposed(m.root, resize.inputs[0], perm), None]
    for i in (2, 3):
        value = resize.inputs[i] if i < len(resize.inputs) else None
        inputs.append(None if value is None else _reordered(value, None if axes else perm))
    while inputs[-1] is None:
        inputs.pop()
    return ir.Node(
        "", "Resize", inputs, attributes.values(), outputs=[ir.Value()], name=resize.name
    )


def _permutation(node: ir.Node) -> list[int]:
    """What the node's ``perm`` says; Refuse when the rank is not known."""
    value = node.inputs[0]
    perm = ints_of(node, "perm")
    if perm is not None:
        return list(perm)
    if value is None or value.shape is None:
        raise Refuse("the rank is not known")
    return list(reversed(range(len(value.shape))))


def _check_goes_last(perm: Sequence[int], axis: int) -> None:
    """Only *axis* may move, to the end: then results lie in whole rows."""
    others = [a for a in range(len(perm)) if a != axis]
    if list(perm) != [*others, axis] or axis == len(perm) - 1:
        raise Refuse("it does more than move the axis to the end")


def _transposed(root: ir.Node, value: ir.Value | None, perm: Sequence[int]) -> ir.Value:
    """A new Transpose of *value*, named after *root*."""
    if value is None or value.shape is None or len(value.shape) != len(perm):
        raise Refuse("the rank of an input is not known")
    node = ir.node("Transpose", [value], attributes={"perm": list(perm)}, name=root.name)
    result = node.outputs[0]
    result.type = value.type
    result.shape = ir.Shape([value.shape[p] for p in perm])
    return result


def _reordered(value: ir.Value, perm: Sequence[int] | None) -> ir.Value:
    """Scales or sizes of a Resize in the order of the new axes."""
    known = constant(value)
    if known is None:
        raise Refuse("scales or sizes are not constant")
    if perm is None or known.size == 0:
        return value
    return const(np.ascontiguousarray(known[list(perm)]), value.name or "")


RULES: tuple[Rule, ...] = (transpose_before_concat, transpose_before_resize)
