"""What is known about every value of a part before any text is written: constants, types, shapes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from adcompile.backends.host.codegen.literals import CppType, cpp_type
from adcompile.errors import ModelError

Array = npt.NDArray[np.generic]


def subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    """Bodies of a control-flow node, in attribute order."""
    for attribute in node.attributes.values():
        if attribute.type is ir.AttributeType.GRAPH:
            yield attribute.as_graph()


def walk(graph: ir.Graph) -> Iterator[ir.Node]:
    """All nodes of *graph* and of the bodies inside, outer before inner."""
    for node in graph:
        yield node
        for body in subgraphs(node):
            yield from walk(body)


# Their result's shape does not follow from the input's.
_OWN_SHAPE = frozenset({"Shape", "Size"})


class Facts:
    """Constants, element types and static shapes of the values of one part.

    A value's shape counts as static only when every dimension is a number.
    """

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.graph = model.graph
        self.opset = model.opset_imports.get("", 0)
        self._constants: dict[ir.Value, Array] = {}
        self._varying: set[ir.Value] = set()
        self._collect(model.graph)
        self._distrust(model.graph, set())

    def _collect(self, graph: ir.Graph) -> None:
        for value in graph.initializers.values():
            if value.const_value is not None:
                self._constants[value] = value.const_value.numpy()
        for node in graph:
            if node.op_type == "Constant" and node.domain == "":
                self._constants[node.outputs[0]] = _constant_node(node)
            for body in subgraphs(node):
                self._collect(body)

    def _distrust(self, graph: ir.Graph, doubtful: set[ir.Value]) -> None:
        """Mark values whose declared shape may only hold for the first trip of a loop.

        Exporters declare a carried value with the shape it starts with, even when it grows; shape
        inference spreads that through the body. A carried shape counts only when start, body input
        and body output agree.
        """
        for node in graph:
            if any(v in doubtful for v in node.inputs) and node.op_type not in _OWN_SHAPE:
                doubtful.update(node.outputs)
            for body in subgraphs(node):
                inner = set(doubtful)
                if node.op_type in {"Loop", "Scan"}:
                    inner |= self._unsteady(node, body)
                self._distrust(body, inner)
                if any(v in inner for v in body.outputs):
                    doubtful.update(node.outputs)
        self._varying |= doubtful

    def _unsteady(self, node: ir.Node, body: ir.Graph) -> set[ir.Value]:
        """Carried values of a loop whose shape is not the same before and after a trip."""
        skip = 2 if node.op_type == "Loop" else 0
        carried = len(body.outputs) - (1 if skip else 0)
        found: set[ir.Value] = set()
        for i, value in enumerate(body.inputs[skip:]):
            if skip == 0 and i >= len(node.inputs) - node.attributes["num_scan_inputs"].as_int():
                break
            if i >= carried:
                break
            start = node.inputs[skip + i]
            after = body.outputs[i + (1 if skip else 0)]
            shapes = {self.shape(v) for v in (start, value, after) if v is not None}
            if len(shapes) != 1 or None in shapes:
                found.add(value)
        return found

    def constant(self, value: ir.Value | None) -> Array | None:
        """The value as an array when it is known at compile time."""
        return None if value is None else self._constants.get(value)

    def dtype(self, value: ir.Value) -> ir.DataType:
        """Element type; ModelError when the model does not say it."""
        known = self._constants.get(value)
        if value.dtype is not None:
            return value.dtype
        if known is not None:
            return ir.DataType.from_numpy(known.dtype)
        raise ModelError(
            "a value has no element type",
            where=value.name or "?",
            fix="run shape inference on the part",
        )

    def cpp(self, value: ir.Value) -> CppType:
        """C++ element type of *value*."""
        return cpp_type(self.dtype(value), value.name or "")

    def shape(self, value: ir.Value) -> tuple[int, ...] | None:
        """All dimensions when they are numbers, else None."""
        known = self._constants.get(value)
        if known is not None:
            return tuple(known.shape)
        if value.shape is None or value in self._varying:
            return None
        dims = [d for d in value.shape if isinstance(d, int)]
        return tuple(dims) if len(dims) == len(value.shape) else None

    def rank(self, value: ir.Value) -> int | None:
        """Number of dimensions when known."""
        known = self._constants.get(value)
        if known is not None:
            return known.ndim
        return None if value.shape is None else len(value.shape)


_LISTS = {"value_ints": np.int64, "value_floats": np.float32}
_SCALARS = {"value_int": np.int64, "value_float": np.float32}


def _constant_node(node: ir.Node) -> Array:
    for name, attribute in node.attributes.items():
        if name == "value":
            return attribute.as_tensor().numpy()
        if name in _LISTS:
            return np.array(attribute.value, dtype=_LISTS[name])
        if name in _SCALARS:
            return np.array(attribute.value, dtype=_SCALARS[name])
    raise ModelError("Constant without a numeric value", where=node.name or "?")
