"""The facts that support checks need about a whole model, computed once."""

from __future__ import annotations

import onnx_ir as ir

from adcompile.interfaces import Facts
from adcompile.ir.graph import opset, static_shape
from adcompile.place.rows import roi_rows
from adcompile.target import Target


def facts_of(model: ir.Model, target: Target, precision: str) -> Facts:
    """Facts for judging the nodes of *model* on *target*. Shapes must have been inferred.

    Rows of regions matter where their number is free, and for targets that run batch 1 always.
    """
    free = tuple(v.name or "" for v in model.graph.inputs if static_shape(v) is None)
    rows = roi_rows(model.graph)
    if "batch_max" not in target.limits:
        rows &= _free_rows(model.graph)
    return Facts(target, precision, opset(model), rows, free)


def _free_rows(graph: ir.Graph) -> frozenset[str]:
    """Names of values whose leading dimension is not a number."""
    values = (v for node in graph for v in (*node.inputs, *node.outputs) if v is not None)
    return frozenset(
        v.name for v in values if v.name and v.shape and not isinstance(v.shape.dims[0], int)
    )
