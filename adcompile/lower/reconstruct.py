"""Layer by layer: weights and biases chosen so that each quantized layer gives what the float one does.

Works on what really arrives at a layer in the quantized network, so errors made earlier are corrected
as far as a linear layer can. Convolutions of one group and products are fitted and rounded with their
input statistics; other layers get their bias corrected.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

import numpy as np
import onnx_ir as ir

from adcompile.interfaces import Array, CalibrationData
from adcompile.ir.graph import constant, macs, static_shape
from adcompile.lower.assign import grid_of_bias
from adcompile.lower.grid import weight_grid
from adcompile.lower.insert import Assignment, Stored
from adcompile.lower.layout import Layout
from adcompile.lower.observe import Floats
from adcompile.lower.points import Constant, Points
from adcompile.lower.positions import weight_bounds
from adcompile.lower.rounding import Layer, fit_and_round, output_gains
from adcompile.lower.scheme import WEIGHTED, Scheme
from adcompile.lower.tape import Results, Tape

MAX_SAMPLES = 8
MAX_MACS = 250_000_000_000  # both networks run over the samples once
MAX_LIVE_BYTES = 1 << 30
MAX_COLUMNS = 16384  # layers with more inputs per output are rounded to nearest


def reconstruct(
    model: ir.Model,
    points: Points,
    assignment: Assignment,
    scheme: Scheme,
    data: CalibrationData,
) -> Assignment:
    """A better :class:`Assignment` with the same activation grids. *model* is not changed."""
    if not any(c.kind == "weight" for c in points.constants):
        return assignment
    work = _Work(points, assignment, scheme)
    with Tape(model, points, assignment.activations, _samples(model, data)) as tape:
        for node in model.graph:
            work.layer(tape, node)
    return Assignment(assignment.activations, work.constants, work.floats)


class _Work:
    """The assignment as it changes from layer to layer."""

    def __init__(self, points: Points, assignment: Assignment, scheme: Scheme) -> None:
        self.scheme = scheme
        self.activations = assignment.activations
        self.constants = dict(assignment.constants)
        self.floats: dict[tuple[str, int], Floats] = dict(assignment.replaced)
        self.weights = {c.node: c for c in points.constants if c.kind == "weight"}
        self.biases = {c.node: c for c in points.constants if c.kind == "bias"}

    def layer(self, tape: Tape, node: ir.Node) -> None:
        """Solve one node (any node) and execute it on both sides."""
        used = self._operands(node)
        item = self.weights.get(node.name or "")
        if item is None:
            tape.keep(node, tape.run(node, used))
            return
        used[item.index] = self._weight(tape, node, item)
        results = tape.run(node, used)
        bias = _corrected_bias(node, results, used)
        if bias is not None:
            before = _used_bias(node, used)
            _shift(results, node, self._bias(node, item, bias) - before)
        tape.keep(node, results)

    def _operands(self, node: ir.Node) -> dict[int, Floats]:
        """The quantized constants of *node*, dequantized, by input index."""
        found: dict[int, Floats] = {}
        for index in range(len(node.inputs)):
            stored = self.constants.get((node.name or "", index))
            if stored is not None:
                found[index] = stored.grid.restore(stored.values)
        return found

    def _weight(self, tape: Tape, node: ir.Node, item: Constant) -> Floats:
        """Fit and round a layer's weight; returns it dequantized."""
        old = self.constants[item.node, item.index]
        weight = np.asarray(constant(node.inputs[item.index]), np.float32)
        layout = Layout.of(node, weight)
        if layout is None or weight.size // weight.shape[layout.axis] > MAX_COLUMNS:
            return old.grid.restore(old.values)
        exact, rounded = layout.rows(tape, exact=True), layout.rows(tape, exact=False)
        if rounded.shape[0] == 0:
            return old.grid.restore(old.values)
        table = layout.flat(weight)
        targets = exact @ table.T
        table = table * output_gains(rounded @ table.T, targets)[:, None]
        scaled = np.asarray(layout.shaped(table, weight), np.float32)
        limits = None
        if self.scheme.shifts:
            limits = weight_bounds(node, item, self.activations, self.scheme)
        grid = weight_grid(scaled, self.scheme, item.axis, limits)
        steps = np.broadcast_to(grid.scale.reshape(-1), (table.shape[0],))
        layer = Layer(rounded, targets, table, np.ascontiguousarray(steps, np.float32))
        stored = layout.shaped(fit_and_round(layer, grid), weight)
        self.constants[item.node, item.index] = Stored(grid, stored)
        return grid.restore(stored)

    def _bias(self, node: ir.Node, item: Constant, bias: Floats) -> Floats:
        """Store a layer's new bias; returns what the quantized layer will add."""
        index = WEIGHTED[node.op_type][1]
        place = self.biases.get(item.node)
        if place is None:
            self.floats[item.node, index] = bias
            return bias
        weight = self.constants[item.node, item.index].grid
        grid = grid_of_bias(node, place, bias, weight, self.activations, self.scheme)
        self.constants[item.node, index] = Stored(grid, grid.store(bias))
        return grid.restore(self.constants[item.node, index].values)


def _used_bias(node: ir.Node, replaced: Mapping[int, Floats]) -> Floats:
    index = WEIGHTED[node.op_type][1]
    found = replaced.get(index)
    return found if found is not None else np.asarray(constant(node.inputs[index]), np.float32)


def _corrected_bias(
    node: ir.Node, results: Results, replaced: Mapping[int, Floats]
) -> Floats | None:
    """The bias that makes the mean output of every channel that of the float layer."""
    index = WEIGHTED[node.op_type][1]
    if not 0 < index < len(node.inputs) or constant(node.inputs[index]) is None:
        return None
    bias = _used_bias(node, replaced)
    name = node.outputs[0].name or ""
    total, count = np.zeros(bias.size), 0
    for exact, rounded in zip(results.exact[name], results.rounded[name], strict=True):
        difference = np.asarray(exact, np.float64) - np.asarray(rounded, np.float64)
        table = np.moveaxis(difference, _channel(node, difference), 0).reshape(bias.size, -1)
        total += table.sum(axis=1)
        count += table.shape[1]
    if count == 0:
        return None
    return (bias.reshape(-1) + total / count).astype(np.float32).reshape(bias.shape)


def _channel(node: ir.Node, output: Array) -> int:
    return output.ndim - 1 if node.op_type in ("Gemm", "MatMul") else 1


def _shift(results: Results, node: ir.Node, change: Floats) -> None:
    """Add what the bias changed to the rounded outputs."""
    outputs = results.rounded[node.outputs[0].name or ""]
    for index, output in enumerate(outputs):
        shape = [1] * output.ndim
        shape[_channel(node, output)] = -1
        outputs[index] = np.asarray(output, np.float32) + change.reshape(shape)


def _samples(model: ir.Model, data: CalibrationData) -> list[dict[str, Array]]:
    """As many samples, evenly spread, as time and memory allow; at least one."""
    work = sum(macs(node) for node in model.graph) * 2
    largest = max((_bytes(v) for n in model.graph for v in n.outputs), default=1)
    limit = min(MAX_SAMPLES, MAX_MACS // max(work, 1), MAX_LIVE_BYTES // max(16 * largest, 1))
    count = max(1, min(len(data), int(limit)))
    chosen = {i * len(data) // count for i in range(count)}
    return [s for i, s in enumerate(islice(data, max(chosen) + 1)) if i in chosen]


def _bytes(value: ir.Value) -> int:
    shape = static_shape(value)
    return 4 * int(np.prod(shape, dtype=np.int64)) if shape else 0
