"""fold-constants: evaluate what depends on constants only, with ONNX Runtime, in batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from adcompile.errors import ModelError
from adcompile.interfaces import Array, Pass, Report
from adcompile.ir.evaluate import evaluate
from adcompile.ir.graph import constant, static_shape, walk
from adcompile.ir.model_io import subgraphs_of
from adcompile.rewrite.surgery import Names, make_constant, remove_dead_nodes

# different every time, or with a meaning for quantisation that must stay visible
KEPT = frozenset(
    (
        *("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike"),
        *("RandomUniform", "RandomUniformLike"),
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
        *("Constant", "If", "Loop", "Scan"),
    )
)
# their output is never larger than rank times their input
BOUNDED = frozenset(("NonZero", "Compress", "Unique", "NonMaxSuppression"))
TYPES = frozenset(
    (
        ir.DataType.FLOAT,
        ir.DataType.DOUBLE,
        ir.DataType.FLOAT16,
        ir.DataType.INT8,
        ir.DataType.INT16,
        ir.DataType.INT32,
        ir.DataType.INT64,
        ir.DataType.UINT8,
        ir.DataType.UINT16,
        ir.DataType.UINT32,
        ir.DataType.UINT64,
        ir.DataType.BOOL,
    )
)


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Replaces nodes whose inputs are all constant by their results.

    A result larger than ``limit`` bytes is only kept when it is not larger than the constants it
    replaces. What ONNX Runtime cannot run stays as it is. Random and quantisation ops stay.
    """

    name: ClassVar[str] = "fold-constants"
    summary: ClassVar[str] = "evaluate constant subgraphs with ONNX Runtime, with a size guard"
    limit: int = 1 << 24

    def run(self, model: ir.Model, report: Report) -> bool:
        """Fold everything whose size is known beforehand; call again after shape inference."""
        nodes = self._foldable(model)
        if not nodes:
            return False
        results = _Batch(model, report).results(nodes)
        names = Names(model)
        folded = 0
        inside = set(nodes)
        for node in nodes:
            for value in node.outputs:
                if value in results and _needed(value, inside):
                    folded += int(make_constant(value, results[value], names))
        if not folded:
            return False
        removed = remove_dead_nodes(model.graph)
        report.applied(self.name, "", detail=f"{removed} nodes became {folded} constants")
        return True

    def _foldable(self, model: ir.Model) -> list[ir.Node]:
        chosen: list[ir.Node] = []
        made: set[ir.Value] = set()
        for node in walk(model.graph):
            if self._can_fold(node, made):
                chosen.append(node)
                made.update(node.outputs)
        return chosen

    def _can_fold(self, node: ir.Node, made: set[ir.Value]) -> bool:
        if node.op_type in KEPT or node.domain != "" or subgraphs_of(node):
            return False
        if not any(value is not None for value in node.inputs):
            return False
        size_in = 0
        for value in node.inputs:
            if value is None:
                continue
            if not _is_plain(value) or not (value in made or constant(value) is not None):
                return False
            size_in += _bytes(value) or 0
        return all(self._fits(node, value, size_in) for value in node.outputs if value.name)

    def _fits(self, node: ir.Node, value: ir.Value, size_in: int) -> bool:
        if not _is_plain(value):
            return False
        size = _bytes(value)
        if size is None:
            return node.op_type in BOUNDED and size_in * 8 <= self.limit
        return size <= self.limit or size <= size_in


def _is_plain(value: ir.Value) -> bool:
    """True for a tensor (not a sequence of tensors) of a type that can be handed over."""
    return isinstance(value.type, ir.TensorType) and value.dtype in TYPES


def _bytes(value: ir.Value) -> int | None:
    shape = static_shape(value)
    if shape is None or value.dtype is None:
        return None
    return math.prod(shape) * value.dtype.bitwidth // 8


def _needed(value: ir.Value, inside: set[ir.Node]) -> bool:
    return value.is_graph_output() or any(use.node not in inside for use in value.uses())


class _Batch:
    """Evaluates constant nodes together; halves the batch around what ONNX Runtime refuses."""

    def __init__(self, model: ir.Model, report: Report) -> None:
        self.model = model
        self.report = report
        self.arrays: dict[ir.Value, Array] = {}
        self.failed: set[ir.Value] = set()

    def results(self, nodes: Sequence[ir.Node]) -> dict[ir.Value, Array]:
        """Arrays of all values that nodes outside of the batch read."""
        inside = set(nodes)
        wanted = {v for n in nodes for v in n.outputs if v.name and _needed(v, inside)}
        self._run(list(nodes), wanted)
        return self.arrays

    def _run(self, nodes: list[ir.Node], wanted: set[ir.Value]) -> None:
        nodes = [n for n in nodes if not any(v in self.failed for v in n.inputs)]
        if not nodes:
            return
        inside = set(nodes)
        outputs = [v for n in nodes for v in n.outputs if v.name and v in wanted]
        if not outputs:
            return
        graph, feeds, names = self._graph(nodes, outputs)
        sub = ir.Model(graph, ir_version=self.model.ir_version)
        try:
            found = evaluate(sub, feeds, threads=1)
        except ModelError as error:
            if len(nodes) == 1:
                self.failed.update(nodes[0].outputs)
                self.report.refused("fold-constants", nodes[0].name or "", error.why)
                return
            half = len(nodes) // 2
            first, second = nodes[:half], nodes[half:]
            later = {v for n in second for v in n.inputs if v is not None}
            between = {v for n in first for v in n.outputs if v in later}
            self._run(first, wanted | between)
            self.failed |= {v for v in between if v not in self.arrays}
            self._run(second, wanted)
            return
        del inside
        for value in outputs:
            array = found[names[value]]
            if value.dtype is not None and array.dtype == value.dtype.numpy():
                self.arrays[value] = array

    def _graph(
        self, nodes: list[ir.Node], outputs: list[ir.Value]
    ) -> tuple[ir.Graph, dict[str, Array], dict[ir.Value, str]]:
        """A graph of copies; constants are fed as inputs, so that no weight is serialised."""
        feeds: dict[str, Array] = {}
        copies: dict[ir.Value, ir.Value] = {}
        inputs: list[ir.Value] = []
        made: list[ir.Node] = []
        for node in nodes:
            sources: list[ir.Value | None] = []
            for value in node.inputs:
                if value is not None and value not in copies:
                    copies[value] = self._input(value, len(inputs), feeds)
                    inputs.append(copies[value])
                sources.append(None if value is None else copies[value])
            copy = ir.Node("", node.op_type, sources, list(node.attributes.values()),
                           num_outputs=len(node.outputs), name=f"n{len(made)}")  # fmt: skip
            for index, (old, new) in enumerate(zip(node.outputs, copy.outputs, strict=True)):
                new.name = f"v{len(made)}_{index}" if old.name else ""
                new.type = old.type
                copies[old] = new
            made.append(copy)
        graph = ir.Graph(
            inputs,
            [copies[v] for v in outputs],
            nodes=made,
            opset_imports={"": self.model.graph.opset_imports.get("", 1)},
            name="constants",
        )
        return graph, feeds, {v: copies[v].name or "" for v in outputs}

    def _input(self, value: ir.Value, index: int, feeds: dict[str, Array]) -> ir.Value:
        array = self.arrays.get(value)
        if array is None:
            array = constant(value)
        if array is None:
            raise ModelError(f"constant {value.name!r} has no data")
        name = f"c{index}"
        feeds[name] = np.asarray(array, order="C")  # ascontiguousarray would make 0-d arrays 1-d
        return ir.Value(
            name=name,
            shape=ir.Shape(array.shape),
            type=None if value.dtype is None else ir.TensorType(value.dtype),
        )
