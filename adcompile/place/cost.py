"""What a node and a boundary cost: multiply-adds, bytes, and a rough estimate in microseconds.

Regions of interest are counted with a nominal number of rows, the same everywhere and stated in
every report. The estimate only decides whether a small part is worth its boundary; it is not a
prediction, and nothing else reads it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from collections.abc import Set as AbstractSet

import numpy as np
import onnx_ir as ir

from adcompile.ir.graph import dtype_name, macs, static_shape, walk
from adcompile.ir.model_io import subgraphs_of

NOMINAL_ROWS = 100  # regions per image, torchvision's default number of detections
HOST_MACS_PER_US = 10_000.0  # four small arm64 cores, a few 10 GMAC/s
HOST_ELEMENTS_PER_US = 500.0  # element-wise work of the same cores
BYTES_PER_US = 2_000.0  # copies between host and device memory
CALL_US = 50.0  # one call of a device part


def dims_with_rows(value: ir.Value | None, rows: int = NOMINAL_ROWS) -> tuple[int, ...] | None:
    """The shape with a free leading dimension replaced by *rows*; None when more is free."""
    shape = static_shape(value)
    if shape is not None or value is None or value.shape is None:
        return shape
    tail = tuple(d for d in value.shape.dims[1:] if isinstance(d, int))
    return (rows, *tail) if len(tail) == len(value.shape) - 1 else None


def work(node: ir.Node, rows: int = NOMINAL_ROWS) -> int:
    """Multiply-adds of a node. Bodies of If, Loop and Scan count once: trip counts are unknown."""
    total = macs(node)
    if total == 0 and node.domain == "" and node.op_type in _ROW_MACS:
        total = _ROW_MACS[node.op_type](node, rows)
    return total + sum(work(inner, rows) for g in subgraphs_of(node) for inner in walk(g))


def elements(node: ir.Node, rows: int = NOMINAL_ROWS) -> int:
    """Elements that a node writes; 0 where shapes are unknown."""
    return sum(math.prod(dims_with_rows(v, rows) or (0,)) for v in node.outputs)


def nbytes(value: ir.Value, rows: int = NOMINAL_ROWS) -> int:
    """Size of a tensor in bytes; unknown shapes count as nothing."""
    shape, name = dims_with_rows(value, rows), dtype_name(value)
    if shape is None or name in {"", "str"} or value.dtype is None:
        return 0
    return math.prod(shape) * np.dtype(value.dtype.numpy()).itemsize


def host_us(nodes: Iterable[ir.Node], rows: int = NOMINAL_ROWS) -> float:
    """Estimated time that the host would need for *nodes*."""
    total = 0.0
    for node in nodes:
        count = work(node, rows)
        total += count / HOST_MACS_PER_US
        total += 0.0 if count else elements(node, rows) / HOST_ELEMENTS_PER_US
    return total


def boundary_us(crossing: Iterable[ir.Value], calls: int, rows: int = NOMINAL_ROWS) -> float:
    """Estimated time for moving *crossing* once and for *calls* calls."""
    return calls * CALL_US + sum(nbytes(v, rows) for v in crossing) / BYTES_PER_US


def coverage(
    nodes: Iterable[ir.Node], chosen: AbstractSet[ir.Node], rows: int
) -> tuple[float, float]:
    """Share of nodes and of multiply-adds that *chosen* holds, 0 … 1. No work at all counts as 1."""
    count = inside = total = covered = 0
    for node in nodes:
        cost = work(node, rows)
        count, total = count + 1, total + cost
        if node in chosen:
            inside, covered = inside + 1, covered + cost
    return (inside / count if count else 1.0, covered / total if total else 1.0)


def _conv(node: ir.Node, rows: int) -> int:
    weight, out = static_shape(node.inputs[1]), dims_with_rows(node.outputs[0], rows)
    return math.prod(out) * math.prod(weight[1:]) if weight and out else 0


def _deconv(node: ir.Node, rows: int) -> int:
    weight, data = static_shape(node.inputs[1]), dims_with_rows(node.inputs[0], rows)
    return math.prod(data) * math.prod(weight[1:]) if weight and data else 0


def _product(node: ir.Node, rows: int) -> int:
    left, out = dims_with_rows(node.inputs[0], rows), dims_with_rows(node.outputs[0], rows)
    transposed = node.attributes.get("transA")
    inner = 0 if transposed is not None and transposed.value == 1 else -1
    return math.prod(out) * left[inner] if left and out is not None else 0


_ROW_MACS = {"Conv": _conv, "ConvTranspose": _deconv, "Gemm": _product, "MatMul": _product}
