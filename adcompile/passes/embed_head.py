"""embed-head: adcompile ops as plain operators that a device runs, for ``--head device``.

A search becomes matrix products with blocks of the bank and TopK, so that no more than ``block``
distances per row exist at a time; the distances of the rows that were found are computed again as
sums of squared differences. PaDiM's factors become whole matrices, which a device multiplies without
unpacking them for every image. The other ops are their function bodies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from adcompile.anomaly.whiten import dense_of
from adcompile.errors import UsageError
from adcompile.interfaces import Pass, Report
from adcompile.ir.attributes import int_of
from adcompile.ir.constants import add_constant, lift_constants
from adcompile.ir.graph import DOMAIN, constant, set_provenance, static_shape
from adcompile.rewrite.surgery import Names, take_over

MAX_NEIGHBOURS = 3840
"""TensorRT's limit of TopK."""


@dataclass(frozen=True)
class EmbedHead(Pass):
    """Writes searches and PaDiM's distance as MatMul, and inlines all other ops."""

    name: ClassVar[str] = "embed-head"
    summary: ClassVar[str] = "adcompile ops as plain operators, for a device that runs the head"
    block: int = 4096

    def run(self, model: ir.Model, report: Report) -> bool:
        """Inline the ops around the searches, then write the searches out."""
        heads = [n for n in model.graph if n.domain == DOMAIN]
        if not heads:
            return False
        for node in heads:
            if node.op_type == "WhitenedMap":
                _Distance(model, node).write()
        InlinePass(criteria=lambda f: f.domain == DOMAIN and f.name != "KnnSearch")(model)
        lift_constants(model)
        for node in [n for n in model.graph if n.domain == DOMAIN]:
            _Search(model, node, self.block).write()
        for key in [key for key in model.functions if key[0] == DOMAIN]:
            del model.functions[key]
        model.opset_imports.pop(DOMAIN, None)
        report.applied(self.name, "", detail=", ".join(n.op_type for n in heads))
        return True


class _Writer:
    """Makes plain nodes in front of a node that they replace."""

    def __init__(self, model: ir.Model, node: ir.Node) -> None:
        self.model, self.node = model, node
        self.names = Names(model)
        self.made: list[ir.Node] = []

    def _replace(self, *values: ir.Value) -> None:
        """Let *values* be what the node's outputs were."""
        graph = self.model.graph
        graph.insert_before(self.node, self.made)
        for old, new in zip(self.node.outputs, values, strict=True):
            take_over(old, new, self.names)
        graph.remove(self.node, safe=True)

    def _const(self, label: str, array: npt.NDArray[np.generic]) -> ir.Value:
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        return add_constant(self.model.graph, self.names.fresh(f"{self.node.name}/{label}"), array)

    def _op(
        self,
        op_type: str,
        inputs: list[ir.Value],
        attributes: Mapping[str, int | Sequence[int]] | None = None,
        kind: ir.DataType = ir.DataType.FLOAT,
    ) -> ir.Value:
        node = self._node(op_type, inputs, attributes or {})
        node.outputs[0].dtype = kind
        return node.outputs[0]

    def _node(
        self,
        op_type: str,
        inputs: list[ir.Value],
        attributes: Mapping[str, int | Sequence[int]],
        outputs: int = 1,
    ) -> ir.Node:
        node = ir.node(op_type, inputs, attributes, num_outputs=outputs)
        node.name = self.names.fresh(f"{self.node.name}/{op_type}")
        for value in node.outputs:
            value.name = self.names.fresh(f"{node.name}_out")
            value.dtype = ir.DataType.FLOAT
        set_provenance(node, [self.node], EmbedHead.name)
        self.made.append(node)
        return node


class _Distance(_Writer):
    """Writes one WhitenedMap with constant factors as matrix products."""

    def write(self) -> None:
        """Replace the node; one whose shapes are not known stays, and its body is inlined."""
        embedding, mean, factor = self.node.inputs
        packed, shape = constant(factor), static_shape(embedding)
        if embedding is None or mean is None or shape is None or packed is None:
            return
        count, channels, height, width = shape
        flat = self._const("rows", np.array([count, channels, height * width], np.int64))
        rows = self._op("Reshape", [embedding, flat])
        gap = self._op("Sub", [rows, mean])
        by_patch = self._op("Transpose", [gap], {"perm": [2, 0, 1]})
        lower = dense_of(np.asarray(packed, np.float32), height * width)
        turned = self._const("factor_t", np.ascontiguousarray(lower.transpose(0, 2, 1)))
        white = self._op("MatMul", [by_patch, turned])
        squares = self._op("Mul", [white, white])
        axis = self._const("axis_2", np.array([2], np.int64))
        form = self._op("ReduceSum", [squares, axis], {"keepdims": 0})
        by_image = self._op("Transpose", [form], {"perm": [1, 0]})
        maps = self._const("map", np.array([count, 1, height, width], np.int64))
        self._replace(self._op("Reshape", [by_image, maps]))


class _Search(_Writer):
    """Writes one KnnSearch as plain operators in front of it."""

    def __init__(self, model: ir.Model, node: ir.Node, block: int) -> None:
        super().__init__(model, node)
        bank = constant(node.inputs[1])
        rows = node.inputs[0]
        self.k = int_of(node, "k", 9)
        if bank is None or rows is None:
            raise UsageError("only a constant bank can be embedded", where=node.name or "")
        if self.k > min(MAX_NEIGHBOURS, len(bank)):
            raise UsageError(f"k {self.k} cannot be embedded", where=node.name or "")
        self.rows = rows
        self.bank = np.asarray(bank, dtype=np.float32)
        self.block = block

    def write(self) -> None:
        """Replace the node's two outputs."""
        found = self._nearest()
        gathered = self._op("Gather", [self._bank_value(), found], {"axis": 0})
        one = self._const("axis_1", np.array([1], np.int64))
        query = self._op("Unsqueeze", [self.rows, one])
        gap = self._op("Sub", [query, gathered])
        squares = self._op("Mul", [gap, gap])
        two = self._const("axis_2", np.array([2], np.int64))
        exact = self._op("ReduceSum", [squares, two], {"keepdims": 0})
        if self.k > 1:  # sums of differences may order near ties otherwise than the products did
            exact, order = self._smallest(exact, self.k)
            found = self._op("GatherElements", [found, order], {"axis": 1}, ir.DataType.INT64)
        self._replace(exact, found)

    def _nearest(self) -> ir.Value:
        """Positions [Q, k] of the nearest rows, block by block."""
        ranks: list[ir.Value] = []
        places: list[ir.Value] = []
        for start in range(0, len(self.bank), self.block):
            part = self.bank[start : start + self.block]
            turned = self._const("bank_t", np.ascontiguousarray(-2.0 * part.T))
            norms = self._const("norms", (part.astype(np.float64) ** 2).sum(axis=1)[None])
            product = self._op("MatMul", [self.rows, turned])
            near, at = self._smallest(self._op("Add", [product, norms]), min(self.k, len(part)))
            if start:
                offset = self._const("start", np.array(start, np.int64))
                at = self._op("Add", [at, offset], kind=ir.DataType.INT64)
            ranks.append(near)
            places.append(at)
        if len(ranks) == 1:
            return places[0]
        everything = self._op("Concat", ranks, {"axis": 1})
        all_places = self._op("Concat", places, {"axis": 1}, ir.DataType.INT64)
        _, chosen = self._smallest(everything, self.k)
        return self._op("GatherElements", [all_places, chosen], {"axis": 1}, ir.DataType.INT64)

    def _smallest(self, value: ir.Value, k: int) -> tuple[ir.Value, ir.Value]:
        count = self._const("k", np.array([k], np.int64))
        attributes = {"axis": 1, "largest": 0, "sorted": 1}
        node = self._node("TopK", [value, count], attributes, outputs=2)
        node.outputs[1].dtype = ir.DataType.INT64
        return node.outputs[0], node.outputs[1]

    def _bank_value(self) -> ir.Value:
        value = self.node.inputs[1]
        assert value is not None
        return value
