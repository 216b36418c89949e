"""The facts that support checks need about a whole model, computed once."""

from __future__ import annotations

import onnx_ir as ir

from adcompile.interfaces import Facts
from adcompile.ir.graph import opset, static_shape
from adcompile.place.rows import roi_rows
from adcompile.place.targets import Target


def facts_of(model: ir.Model, target: Target, precision: str) -> Facts:
    """Facts for judging the nodes of *model* on *target*. Shapes must have been inferred."""
    free = [v.name or "" for v in model.graph.inputs if static_shape(v) is None]
    return Facts(target, precision, opset(model), roi_rows(model.graph), tuple(free))
