"""Distances of rows to the rows of a constant bank, in the forms that exporters write.

* expanded, ``|x|² - 2·x·B + |B|²``: MatMul or Gemm with a constant, the terms in any order, factors
  before or after the product or inside the constant, a clamp at zero, a root or none;
* concatenated, ``[-2x, |x|², 1] · [B, 1, |B|²]`` (how ``torch.cdist`` is decomposed);
* broadcast, ``Σ (x - B)²`` over the last axis, as ReduceSum, ReduceSumSquare or ReduceL2
  (``torch.cdist`` of the older exporter, and hand-written code).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from adcompile.anomaly.recognise.algebra import (
    addends,
    axes_of,
    close,
    made_by,
    scalar,
    scaled,
    square_of,
    without_clamp,
)
from adcompile.ir.attributes import float_of, int_of
from adcompile.ir.graph import constant, rank, static_shape

Wide = npt.NDArray[np.float64]
SELECTION = 1e-4  # relative bound between |B|² of the graph and of the bank


@dataclass(frozen=True, eq=False)
class Distances:
    """Distances [..., M] of ``rows`` [..., C] to ``bank`` [M, C].

    ``rooted``: not squared. ``negated``: with a minus sign. ``ranks_only``: |x|² is missing, so
    that only the order of the bank's rows is right.
    """

    rows: ir.Value
    bank: npt.NDArray[np.float32]
    rooted: bool = False
    negated: bool = False
    ranks_only: bool = False


def distances_of(value: ir.Value) -> Distances | None:
    """What *value* is, when it holds distances to a constant bank; None otherwise."""
    part = scaled(value)
    if part.factor not in (1.0, -1.0):
        return None
    inner, rooted = part.value, False
    if (norm := made_by(inner, "ReduceL2")) is not None:
        found = _broadcast(norm, norm.inputs[0])
        return None if found is None else _signed(found, True, part.factor)
    if (root := made_by(inner, "Sqrt", "Pow")) is not None and root.inputs[0] is not None:
        if root.op_type == "Pow" and scalar(root.inputs[1]) != 0.5:
            return None
        inner, rooted = root.inputs[0], True
    inner = without_clamp(inner)
    total = made_by(inner, "ReduceSum", "ReduceSumSquare")
    if total is not None:
        gap = total.inputs[0] if total.op_type == "ReduceSumSquare" else square_of(total.inputs[0])
        found = _broadcast(total, gap)
    else:
        found = _expanded(inner)
    if found is None or (found.ranks_only and rooted):
        return None
    return _signed(found, rooted, part.factor)


def _signed(found: Distances, rooted: bool, factor: float) -> Distances:
    return Distances(found.rows, found.bank, rooted, factor < 0, found.ranks_only)


def _broadcast(reduction: ir.Node, gap: ir.Value | None) -> Distances | None:
    """Σ over the last axis of (rows - bank)², one of them repeated by broadcasting."""
    if gap is None or int_of(reduction, "keepdims", 1):
        return None
    dims = rank(gap)
    if dims is None or axes_of(reduction) != (dims - 1,):
        return None
    parted = _difference(gap)
    if parted is None:
        return None
    rows, bank = parted
    if (expanded := made_by(rows, "Expand")) is not None and expanded.inputs[0] is not None:
        rows = expanded.inputs[0]
    shape = static_shape(rows)
    if shape is None or len(shape) < 2 or shape[-2] != 1 or shape[-1] != bank.shape[1]:
        return None
    node = made_by(rows, "Unsqueeze", "Reshape")
    before = None if node is None else static_shape(node.inputs[0])
    if node is not None and node.inputs[0] is not None and before == (*shape[:-2], shape[-1]):
        rows = node.inputs[0]
    return Distances(rows, bank.astype(np.float32))


def _difference(gap: ir.Value) -> tuple[ir.Value, Wide] | None:
    """The rows [..., 1, C] and the bank [M, C] whose difference (up to its sign) *gap* is."""
    bank: Wide | None = None
    rows: ir.Value | None = None
    offset, sign = 0.0, 1.0
    for each in addends(gap):
        number = scalar(each.value)
        array = constant(each.value)
        if number is not None:  # the epsilon of a pairwise distance
            offset += each.factor * number
        elif array is not None and bank is None:
            bank = each.factor * np.asarray(array, dtype=np.float64)
        elif array is None and rows is None and abs(each.factor) == 1.0:
            rows, sign = each.value, each.factor
        else:
            return None
    if bank is None or rows is None or bank.ndim < 2 or math.prod(bank.shape[:-2]) != 1:
        return None
    return rows, -sign * (bank.reshape(bank.shape[-2:]) + offset)  # (s·x + b)² = (x + s·b)²


def _expanded(value: ir.Value) -> Distances | None:
    """|x|² - 2·x·B + |B|², in any order."""
    terms = _Terms()
    for each in addends(value):
        if not terms.take(each.value, each.factor):
            return None
    return terms.result()


class _Terms:
    """Collects the terms of an expanded square."""

    def __init__(self) -> None:
        self.rows: ir.Value | None = None
        self.cross: Wide | None = None  # [C, M]
        self.norms: Wide | None = None  # [M]
        self.own: ir.Value | None = None  # rows behind |x|²

    def take(self, value: ir.Value, factor: float) -> bool:
        """Use one addend; False when it has no place in the formula."""
        array = constant(value)
        if array is not None:
            return self._add_norms(factor * np.asarray(array, dtype=np.float64))
        if (product := made_by(value, "MatMul")) is not None:
            return self._product(product.inputs[0], constant(product.inputs[1]), factor)
        if (gemm := made_by(value, "Gemm")) is not None:
            return self._gemm(gemm, factor)
        source = _squared_norm(value)
        if source is None or factor != 1.0 or self.own is not None:
            return False
        self.own = source
        return True

    def _product(self, left: ir.Value | None, matrix: object, factor: float) -> bool:
        if left is None or not isinstance(matrix, np.ndarray) or matrix.ndim != 2:
            return False
        part = scaled(left)
        wide = factor * part.factor * np.asarray(matrix, dtype=np.float64)
        joined = made_by(part.value, "Concat")
        if joined is not None and part.value.shape is not None:
            return self._concatenated(joined, wide)
        if self.cross is not None:
            return False
        self.rows, self.cross = part.value, wide
        return True

    def _concatenated(self, joined: ir.Node, matrix: Wide) -> bool:
        start = 0
        for value in joined.inputs:
            array = constant(value)
            shape = None if value is None or value.shape is None else value.shape.dims
            width = array.shape[-1] if array is not None else shape[-1] if shape else None
            if value is None or not isinstance(width, int):
                return False
            block = matrix[start : start + width]
            start += width
            if array is not None:
                rows = np.asarray(array, dtype=np.float64).reshape(-1, width)
                good = bool(np.all(rows == rows[:1])) and self._add_norms(rows[0] @ block)
            elif width == 1 and (source := _squared_norm(value)) is not None:
                good = bool(np.all(block == 1.0)) and self.own is None
                self.own = source
            else:
                good = self._product(value, block, 1.0)
            if not good:
                return False
        return start == len(matrix)

    def _gemm(self, node: ir.Node, factor: float) -> bool:
        if int_of(node, "transA"):
            return False
        matrix = constant(node.inputs[1])
        if matrix is None:
            return False
        turned = matrix.T if int_of(node, "transB") else matrix
        if not self._product(node.inputs[0], turned, factor * float_of(node, "alpha", 1.0)):
            return False
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        return bias is None or self.take(bias, factor * float_of(node, "beta", 1.0))

    def _add_norms(self, array: Wide) -> bool:
        row = array.reshape(-1)
        if array.ndim and array.shape[-1] != row.size:
            return False
        self.norms = row if self.norms is None else self.norms + row
        return True

    def result(self) -> Distances | None:
        """The bank behind the terms, when they fit together."""
        if self.rows is None or self.cross is None or self.norms is None:
            return None
        bank = np.ascontiguousarray((self.cross / -2.0).T)
        squares = np.asarray((bank**2).sum(axis=1), dtype=np.float64)
        if not close(np.broadcast_to(self.norms, squares.shape), squares, SELECTION):
            return None
        if self.own is not None and not _same_rows(self.own, self.rows):
            return None
        return Distances(self.rows, bank.astype(np.float32), ranks_only=self.own is None)


def _squared_norm(value: ir.Value) -> ir.Value | None:
    """x when *value* is Σ x² over the last axis, kept as an axis of size 1."""
    node = made_by(value, "ReduceSum", "ReduceSumSquare")
    if node is None or not int_of(node, "keepdims", 1):
        return None
    inner = node.inputs[0]
    dims = rank(inner)
    if inner is None or dims is None or axes_of(node) != (dims - 1,):
        return None
    return inner if node.op_type == "ReduceSumSquare" else square_of(inner)


def _same_rows(first: ir.Value, second: ir.Value) -> bool:
    return scaled(first).value is scaled(second).value
