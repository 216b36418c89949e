"""A device that runs every standard op of static shape: finds a model's parts, whatever the chip."""

from __future__ import annotations

import onnx_ir as ir

from adcompile.interfaces import Facts, Verdict
from adcompile.place.support import ALL_TYPES, Row, Table, judge, op_key


def supports(node: ir.Node, facts: Facts) -> Verdict:
    """Yes for static shapes and for row-wise work on regions; no control flow, no data-dependence."""
    row = Row(dtypes=ALL_TYPES, data=(), source="any device")
    known = {op_key(node): row} if node.domain in {"", "ai.onnx"} else {}
    table = Table("any", known, {}, "unsupported", "is unknown", "any device")
    return judge(node, facts, table)
