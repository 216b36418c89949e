"""Small algebra over graphs: sums as addends, chains of scalar operations, squares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from adcompile.interfaces import Array
from adcompile.ir.attributes import ints_of
from adcompile.ir.graph import constant, rank

MAX_ADDENDS = 16


@dataclass(frozen=True, slots=True)
class Addend:
    """``factor · value``, one summand of a sum."""

    value: ir.Value
    factor: float


def made_by(value: ir.Value | None, *types: str) -> ir.Node | None:
    """The node that makes *value* as its first output, when it is a standard op of *types*."""
    node = None if value is None else value.producer()
    if node is None or node.domain != "" or node.op_type not in types:
        return None
    return node if node.outputs[0] is value else None


def scalar(value: ir.Value | None) -> float | None:
    """The number behind a constant with one element."""
    array = constant(value)
    if array is None or array.size != 1 or array.dtype.kind not in "fiu":
        return None
    return float(array.reshape(-1)[0])


def scaled(value: ir.Value) -> Addend:
    """*value* as a number times another value, through products and quotients with scalars."""
    factor = 1.0
    while (node := made_by(value, "Mul", "Div", "Neg", "Identity")) is not None:
        first = node.inputs[0]
        number: float | None = 1.0
        if node.op_type == "Neg":
            number = -1.0
        elif node.op_type == "Mul":
            number = scalar(node.inputs[1])
            if number is None:
                number, first = scalar(first), node.inputs[1]
        elif node.op_type == "Div":
            number = scalar(node.inputs[1])
            number = 1.0 / number if number else None
        if number is None or first is None:
            break
        factor *= number
        value = first
    return Addend(value, factor)


def addends(value: ir.Value) -> list[Addend]:
    """The sum that *value* is; one addend when it is none. Bounded by MAX_ADDENDS."""
    found: list[Addend] = []
    pending = [Addend(value, 1.0)]
    while pending:
        each = pending.pop()
        part = scaled(each.value)
        factor = each.factor * part.factor
        node = made_by(part.value, "Add", "Sub", "Sum")
        if node is None or len(found) + len(pending) > MAX_ADDENDS:
            found.append(Addend(part.value, factor))
            continue
        for index, operand in enumerate(node.inputs):
            if operand is not None:
                sign = -1.0 if node.op_type == "Sub" and index else 1.0
                pending.append(Addend(operand, factor * sign))
    return found


@dataclass(frozen=True, slots=True)
class Affine:
    """``scale · base + offset`` with numbers."""

    base: ir.Value
    scale: float
    offset: float


def affine(value: ir.Value) -> Affine | None:
    """*value* as an affine function of one other value, through scalar operations only."""
    offset, scale = 0.0, 1.0
    while True:
        part = scaled(value)
        scale *= part.factor
        value = part.value
        node = made_by(value, "Add", "Sub")
        if node is None:
            return Affine(value, scale, offset)
        left, right = node.inputs
        sign = -1.0 if node.op_type == "Sub" else 1.0
        if (number := scalar(right)) is not None and left is not None:
            offset += scale * sign * number
            value = left
        elif (number := scalar(left)) is not None and right is not None:
            offset += scale * number
            scale *= sign
            value = right
        else:
            return Affine(value, scale, offset)


def square_of(value: ir.Value | None) -> ir.Value | None:
    """x when *value* is x², written as Pow or Mul; Abs inside the square is looked through."""
    node = made_by(value, "Pow", "Mul")
    if node is None:
        return None
    inner = node.inputs[0]
    if node.op_type == "Pow" and scalar(node.inputs[1]) != 2.0:
        return None
    if node.op_type == "Mul" and node.inputs[1] is not inner:
        return None
    if (absolute := made_by(inner, "Abs")) is not None:
        return absolute.inputs[0]
    return inner


def axes_of(node: ir.Node) -> tuple[int, ...] | None:
    """A reduction's axes, counted from the front; None when they are unknown (or all)."""
    axes = ints_of(node, "axes")
    if axes is None and len(node.inputs) > 1:
        array = constant(node.inputs[1])
        axes = None if array is None else tuple(int(a) for a in array.reshape(-1))
    dims = rank(node.inputs[0])
    if not axes or dims is None:
        return None
    return tuple(sorted(a % dims for a in axes))


def without_clamp(value: ir.Value) -> ir.Value:
    """The value below a clamp at zero (Clip, Max, Relu): nothing changes for what cannot be negative."""
    node = made_by(value, "Clip", "Max", "Relu")
    if node is None or node.inputs[0] is None:
        return value
    if node.op_type == "Relu":
        return node.inputs[0]
    if node.op_type == "Max":
        others = [i for i, v in enumerate(node.inputs) if not _nearly_zero(v)]
        chosen = node.inputs[others[0]] if len(others) == 1 else None
        return value if chosen is None else chosen
    upper = node.inputs[2] if len(node.inputs) > 2 else None
    attribute = node.attributes.get("min")
    lower_is_zero = (
        _nearly_zero(node.inputs[1])
        if len(node.inputs) > 1
        else attribute is not None and 0.0 <= float(attribute.as_float()) <= 1e-12
    )
    if upper is not None or "max" in node.attributes or not lower_is_zero:
        return value
    return node.inputs[0]


def _nearly_zero(value: ir.Value | None) -> bool:
    number = scalar(value)
    return number is not None and 0.0 <= number <= 1e-12


def close(found: Array, wanted: Array, tolerance: float = 1e-4) -> bool:
    """Equal up to *tolerance* of the largest wanted entry."""
    if found.shape != wanted.shape:
        return False
    wide = np.asarray(wanted, dtype=np.float64)
    limit = tolerance * max(float(np.abs(wide).max(initial=0.0)), 1e-12)
    return bool(np.all(np.abs(np.asarray(found, dtype=np.float64) - wide) <= limit))
