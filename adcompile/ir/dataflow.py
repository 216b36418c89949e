"""What is known about shapes and small integer tensors when some dimensions are open.

Walks the model once in execution order and keeps, per value, its shape as integers and symbols,
and for small integer or bool tensors their elements likewise. A ``Reshape`` whose target is
computed from ``Shape`` of a partly dynamic tensor thus becomes known as far as it can be.

Facts hold for the value itself: inside a Loop body they hold in every iteration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from adcompile.ir.graph import constant, opset
from adcompile.ir.model_io import subgraphs_of
from adcompile.ir.symbols import Elem, Symbols

MAX_ELEMENTS = 256  # larger integer tensors are data, not shape arithmetic
Content: TypeAlias = "npt.NDArray[Any]"  # object array of Elem
Dims: TypeAlias = "tuple[Elem, ...]"

INTEGERS = frozenset(
    {
        ir.DataType.INT64,
        ir.DataType.INT32,
        ir.DataType.BOOL,
    }
)


@dataclass(slots=True)
class Info:
    """Shape and elements of a value, as far as known."""

    shape: Dims | None = None
    content: Content | None = None


Transfer: TypeAlias = "Callable[[Flow, ir.Node], Sequence[Info] | None]"


class Flow:
    """The facts about one model. ``table`` holds one transfer function per operator."""

    def __init__(self, model: ir.Model, table: Mapping[str, Transfer]) -> None:
        self.symbols = Symbols()
        self.opset = opset(model)
        self._table = table
        self._facts: dict[ir.Value, Info] = {}
        self._graph(model.graph)

    def shape(self, value: ir.Value | None) -> Dims | None:
        """The shape; unknown dimensions are symbols. None when even the rank is unknown."""
        return None if value is None else self.info(value).shape

    def content(self, value: ir.Value | None) -> Content | None:
        """The elements of a small integer tensor, numbers and symbols; None when unknown."""
        return None if value is None else self.info(value).content

    def numbers(self, value: ir.Value | None) -> list[int] | None:
        """The elements when all are plain numbers."""
        content = self.content(value)
        if content is None:
            return None
        flat = content.ravel().tolist()
        return flat if all(isinstance(x, int) for x in flat) else None

    def info(self, value: ir.Value) -> Info:
        """The facts about *value*; made from its declared shape when it was not visited."""
        found = self._facts.get(value)
        if found is None:
            found = self._facts[value] = Info(self.declared(value), self._constant(value))
        return found

    def learn(self, value: ir.Value, info: Info) -> None:
        """Add the facts about a value that was made after the analysis."""
        self._facts[value] = info

    def declared(self, value: ir.Value) -> Dims | None:
        """The shape as declared, with a symbol of its own for each open dimension."""
        if value.shape is None:
            return None
        return tuple(
            dim if isinstance(dim, int) else self.symbols.dim(value, axis)
            for axis, dim in enumerate(value.shape.dims)
        )

    def _constant(self, value: ir.Value) -> Content | None:
        if value.dtype not in INTEGERS or value.const_value is None:
            return None
        if value.const_value.size > MAX_ELEMENTS:
            return None
        array = constant(value)
        return None if array is None else objects(array)

    def _graph(self, graph: ir.Graph) -> None:
        for node in graph:
            for inner in subgraphs_of(node):
                self._graph(inner)
            self._node(node)

    def _node(self, node: ir.Node) -> None:
        transfer = self._table.get(node.op_type) if node.domain == "" else None
        results = None if transfer is None else transfer(self, node)
        for index, value in enumerate(node.outputs):
            info = results[index] if results is not None and index < len(results) else Info()
            self._facts[value] = self._merged(value, info)

    def _merged(self, value: ir.Value, info: Info) -> Info:
        """Join what the transfer function says with the declared shape; numbers win."""
        declared = self.declared(value)
        shape = info.shape
        if shape is None or (declared is not None and len(declared) != len(shape)):
            shape = declared
        elif declared is not None:
            shape = tuple(
                d if isinstance(d, int) and not isinstance(s, int) else s
                for s, d in zip(shape, declared, strict=True)
            )
        content = info.content
        if content is not None and (content.size > MAX_ELEMENTS or value.dtype not in INTEGERS):
            content = None
        return Info(shape, content)


def objects(array: npt.NDArray[Any]) -> Content:
    """An integer array as an object array of Python integers."""
    flat = np.empty(array.size, dtype=object)
    flat[:] = [int(x) for x in array.ravel().tolist()]
    return flat.reshape(array.shape)


def same(a: Dims | None, b: Dims | None) -> bool:
    """True when two shapes are certainly equal."""
    return (
        a is not None
        and b is not None
        and len(a) == len(b)
        and all(
            x is y or (isinstance(x, int) and isinstance(y, int) and x == y)
            for x, y in zip(a, b, strict=True)
        )
    )
