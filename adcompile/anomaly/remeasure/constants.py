"""Heads that are one op with constant operands."""

from __future__ import annotations

from collections.abc import Sequence

from adcompile.anomaly.recognise.describe import head_nodes
from adcompile.anomaly.remeasure.kind import Site
from adcompile.interfaces import Part
from adcompile.ir.graph import is_constant, static_shape


def constant_head(parts: Sequence[Part], op_type: str) -> Site | str:
    """The first *op_type* in a host part whose operands but the first are constants."""
    reason = ""
    for part in parts:
        if part.placement != "host":
            continue
        for node in head_nodes(part.model, op_type):
            first, *rest = node.inputs
            if first is None or not all(is_constant(value) for value in rest):
                reason = f"{node.name}: an operand of {op_type} is no constant"
                continue
            names = tuple(value.name or "" for value in rest if value is not None)
            shape = static_shape(first)
            return Site(part.name, (first.name or "",), names, shape[0] if shape else 1)
    return reason
