"""The image size a graph works at, when its input is free and resized inside."""

from __future__ import annotations

import onnx_ir as ir

from adcompile.ir.graph import constant

_PASSING = frozenset({"Reshape", "Identity", "Cast", "Sub", "Add", "Mul", "Div"})
MAX_STEPS = 32


def size_inside(value: ir.Value) -> tuple[int, int] | None:
    """Height and width of the first Resize behind *value* when its size is fixed; else None.

    Exporters of detectors with pre-processing inside (anomalib) leave height and width free and
    resize in the graph. Read before shapes are fixed: the size is a constant, or the constant end
    of a Concat behind the batch dimensions.
    """
    pending = [value]
    for _ in range(MAX_STEPS):
        if not pending:
            return None
        current = pending.pop(0)
        for node in current.consumers():
            if node.domain != "":
                continue
            if node.op_type == "Resize" and node.inputs[0] is current:
                return _target(node)
            if node.op_type in _PASSING and node.inputs[0] is current:
                pending += node.outputs
    return None


def _target(node: ir.Node) -> tuple[int, int] | None:
    sizes = node.inputs[3] if len(node.inputs) > 3 else None
    known = constant(sizes)
    if known is None and sizes is not None:
        joined = sizes.producer()
        if joined is None or joined.op_type != "Concat":
            return None
        known = constant(joined.inputs[-1])
    if known is None or known.size < 2:
        return None
    height, width = (int(v) for v in known.reshape(-1)[-2:])
    return height, width
