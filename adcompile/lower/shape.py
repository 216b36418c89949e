"""Fix the number of rows of a part whose first dimension is free."""

from __future__ import annotations

import onnx_ir as ir

from adcompile.ir.shapes import infer_shapes


def fix_rows(model: ir.Model, rows: int) -> ir.Model:
    """A copy of *model* whose inputs have *rows* in place of a free first dimension.

    Inner shapes are forgotten and inferred again. Reshapes that carry the free dimension as -1 or 0
    keep working as they are.
    """
    copy = model.clone()
    for value in copy.graph.inputs:
        if value.shape is not None and len(value.shape) and not isinstance(value.shape[0], int):
            value.shape = ir.Shape([rows, *list(value.shape.dims)[1:]])
    made = [v for node in copy.graph for v in node.outputs]
    for value in made:
        value.shape = None
    infer_shapes(copy)
    return copy
