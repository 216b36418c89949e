"""Attributes of nodes, with the defaults of the operator's schema."""

from __future__ import annotations

from functools import cache
from typing import TypeAlias, cast

import onnx
import onnx.defs
import onnx_ir as ir

Scalar: TypeAlias = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]

_PLAIN = (
    ir.AttributeType.INT,
    ir.AttributeType.FLOAT,
    ir.AttributeType.STRING,
    ir.AttributeType.INTS,
    ir.AttributeType.FLOATS,
    ir.AttributeType.STRINGS,
)


def attribute(node: ir.Node, name: str, opset: int = 23) -> Scalar | None:
    """An attribute as plain data; the schema's default when absent; None when it has none.

    Tensors and graphs are not plain data and give None, and so do a function's parameters.
    """
    found = node.attributes.get(name)
    if found is None:
        return _default(node.domain, node.op_type, name, opset)
    if found.is_ref() or found.type not in _PLAIN:
        return None
    value: object = found.value
    if isinstance(value, (list, tuple)):
        return cast(Scalar, tuple(cast("list[int]", value)))
    return cast(Scalar, value)


def int_of(node: ir.Node, name: str, default: int = 0) -> int:
    """An integer attribute, or *default* when it is absent."""
    found = node.attributes.get(name)
    return default if found is None or found.is_ref() else found.as_int()


def float_of(node: ir.Node, name: str, default: float = 0.0) -> float:
    """A float attribute, or *default* when it is absent."""
    found = node.attributes.get(name)
    return default if found is None or found.is_ref() else found.as_float()


def str_of(node: ir.Node, name: str, default: str = "") -> str:
    """A string attribute, or *default* when it is absent."""
    found = node.attributes.get(name)
    return default if found is None or found.is_ref() else found.as_string()


def ints_of(node: ir.Node, name: str) -> tuple[int, ...] | None:
    """A list-of-integers attribute, None when it is absent."""
    found = node.attributes.get(name)
    return None if found is None or found.is_ref() else tuple(found.as_ints())


@cache
def _default(domain: str, op_type: str, name: str, opset: int) -> Scalar | None:
    try:
        schema = onnx.defs.get_schema(op_type, max_inclusive_version=opset, domain=domain)
    except onnx.defs.SchemaError:
        return None
    declared = schema.attributes.get(name)
    if declared is None or not declared.default_value.name:
        return None
    value: object = onnx.helper.get_attribute_value(declared.default_value)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list):
        return cast(Scalar, tuple(cast("list[int]", value)))
    return cast(Scalar, value)
