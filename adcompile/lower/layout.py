"""Layers read as matrix products: rows of inputs at positions of the output, weights as a table."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from adcompile.interfaces import Array
from adcompile.ir.graph import constant
from adcompile.lower.equalize import out_axis
from adcompile.lower.observe import Floats
from adcompile.lower.points import attribute
from adcompile.lower.tape import Tape

Places = npt.NDArray[np.int64]
MAX_ROWS = 1536  # positions taken from one layer


class Layout:
    """How a layer reads as a matrix product."""

    def __init__(self, node: ir.Node, axis: int) -> None:
        self.node = node
        self.axis = axis

    @classmethod
    def of(cls, node: ir.Node, weight: Floats) -> Layout | None:
        """None for layers that are not one matrix product per position."""
        if node.op_type == "Conv":
            plain = attribute(node, "group", 1) == 1 and weight.ndim == 4
            return (
                cls(node, 0)
                if plain and attribute(node, "auto_pad", "NOTSET") == "NOTSET"
                else None
            )
        if node.op_type == "Gemm":
            plain = not attribute(node, "transA", 0) and attribute(node, "alpha", 1.0) == 1.0
            return cls(node, out_axis(node)) if plain else None
        if node.op_type == "MatMul" and weight.ndim == 2:
            return cls(node, 1)
        return None

    def flat(self, weight: Array) -> Floats:
        """Outputs by inputs."""
        moved = np.moveaxis(weight, self.axis, 0)
        return np.ascontiguousarray(moved.reshape(moved.shape[0], -1), np.float32)

    def shaped(self, table: Array, like: Floats) -> Array:
        """Back to the shape of the weight."""
        moved = np.moveaxis(like, self.axis, 0).shape
        return np.ascontiguousarray(np.moveaxis(table.reshape(moved), 0, self.axis))

    def rows(self, tape: Tape, *, exact: bool) -> Floats:
        """Input rows at evenly spread positions of all samples."""
        parts = [
            self._positions(tape.read(self.node, 0, i, exact=exact), MAX_ROWS // tape.count)
            for i in range(tape.count)
        ]
        return np.concatenate(parts)

    def _positions(self, data: Array, wanted: int) -> Floats:
        array = np.asarray(data, np.float32)
        if self.node.op_type != "Conv":
            table = array.reshape(-1, array.shape[-1])
            return table[_spread(table.shape[0], wanted)]
        weight = constant(self.node.inputs[1])
        assert weight is not None
        high, wide = weight.shape[2:]
        top, left, bottom, right = _ints(self.node, "pads", (0, 0, 0, 0))
        down, across = _ints(self.node, "strides", (1, 1))
        slow, fast = _ints(self.node, "dilations", (1, 1))
        padded = np.pad(array, ((0, 0), (0, 0), (top, bottom), (left, right)))
        rows = (padded.shape[2] - slow * (high - 1) - 1) // down + 1
        columns = (padded.shape[3] - fast * (wide - 1) - 1) // across + 1
        batch = padded.shape[0]
        if rows < 1 or columns < 1 or batch == 0:
            return np.zeros((0, array.shape[1] * high * wide), np.float32)
        index = _spread(batch * rows * columns, wanted)
        image, place = index // (rows * columns), index % (rows * columns)
        y = _offsets(place // columns * down, slow, high)
        x = _offsets(place % columns * across, fast, wide)
        picked = padded[image[:, None, None], :, y[:, :, None], x[:, None, :]]
        return np.ascontiguousarray(np.moveaxis(picked, -1, 1).reshape(index.size, -1), np.float32)


def _ints(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    found = attribute(node, name, default)
    return tuple(int(x) for x in found) if isinstance(found, (list, tuple)) else default  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def _spread(count: int, wanted: int) -> Places:
    """Evenly spread positions; the golden ratio keeps them from lining up with image columns."""
    wanted = max(wanted, 1)
    if count <= wanted:
        return np.arange(count, dtype=np.int64)
    fractions = (np.arange(wanted) * 0.6180339887498949) % 1.0
    return np.unique((fractions * count).astype(np.int64))


def _offsets(starts: Places, step: int, count: int) -> Places:
    """Rows of ``count`` positions, *step* apart, from every start."""
    along: Places = np.arange(count, dtype=np.int64) * step
    return np.add.outer(starts, along)
