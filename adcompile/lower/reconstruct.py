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
from adcompile.lower.equalize import out_axis
from adcompile.lower.grid import Grid, weight_grid
from adcompile.lower.insert import Assignment, Stored
from adcompile.lower.observe import Floats
from adcompile.lower.points import Constant, Points, attribute
from adcompile.lower.positions import weight_bounds
from adcompile.lower.rounding import Layer, fit_and_round, output_gains
from adcompile.lower.scheme import WEIGHTED, Scheme
from adcompile.lower.tape import Results, Tape

MAX_SAMPLES = 8
MAX_MACS = 250_000_000_000  # both networks run over the samples once
MAX_LIVE_BYTES = 1 << 30
MAX_ROWS = 1536  # positions taken from one layer
MAX_COLUMNS = 16384  # layers with more inputs per output are rounded to nearest


def reconstruct(
    model: ir.Model,
    points: Points,
    assignment: Assignment,
    scheme: Scheme,
    data: CalibrationData,
) -> Assignment:
    """A better :class:`Assignment` with the same activation grids. *model* is not changed."""
    constants = dict(assignment.constants)
    floats: dict[tuple[str, int], Floats] = dict(assignment.replaced)
    wanted = {c.node: c for c in points.constants if c.kind == "weight"}
    biases = {c.node: c for c in points.constants if c.kind == "bias"}
    if not wanted:
        return assignment
    tape = Tape(model, points, assignment.activations, _samples(model, data))
    for node in model.graph:
        name = node.name or ""
        if name not in wanted:
            tape.keep(node, tape.run(node, _operands(node, constants)))
            continue
        replaced = _operands(node, constants)
        replaced[wanted[name].index] = _solve(
            tape, node, wanted[name], constants, assignment.activations, scheme
        )
        results = tape.run(node, replaced)
        bias = _corrected_bias(node, results, replaced)
        if bias is not None:
            index = WEIGHTED[node.op_type][1]
            if name in biases:
                weight = constants[name, wanted[name].index].grid
                grid = grid_of_bias(
                    node, biases[name], bias, weight, assignment.activations, scheme
                )
                constants[name, index] = Stored(grid, grid.store(bias))
                bias = grid.restore(constants[name, index].values)
            else:
                floats[name, index] = bias
            _shift(results, node, bias - _used_bias(node, replaced))
        tape.keep(node, results)
    return Assignment(assignment.activations, constants, floats)


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


def _operands(node: ir.Node, constants: Mapping[tuple[str, int], Stored]) -> dict[int, Floats]:
    found: dict[int, Floats] = {}
    for index in range(len(node.inputs)):
        stored = constants.get((node.name or "", index))
        if stored is not None:
            found[index] = stored.grid.restore(stored.values)
    return found


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


def _solve(
    tape: Tape,
    node: ir.Node,
    item: Constant,
    constants: dict[tuple[str, int], Stored],
    activations: Mapping[str, Grid],
    scheme: Scheme,
) -> Floats:
    """Fit and round one layer's weight; returns it dequantized."""
    old = constants[item.node, item.index]
    weight = np.asarray(constant(node.inputs[item.index]), np.float32)
    layout = _Layout.of(node, weight)
    if layout is None or weight.size // weight.shape[layout.axis] > MAX_COLUMNS:
        return old.grid.restore(old.values)
    exact, rounded = layout.rows(tape, exact=True), layout.rows(tape, exact=False)
    if rounded.shape[0] == 0:
        return old.grid.restore(old.values)
    table = layout.flat(weight)
    targets = exact @ table.T
    table = table * output_gains(rounded @ table.T, targets)[:, None]
    scaled = layout.shaped(table, weight)
    limits = weight_bounds(node, item, activations, scheme) if scheme.shifts else None
    grid = weight_grid(np.asarray(scaled, np.float32), scheme, item.axis, limits)
    steps = np.broadcast_to(grid.scale.reshape(-1), (table.shape[0],))
    layer = Layer(rounded, targets, table, np.ascontiguousarray(steps, np.float32))
    stored = layout.shaped(fit_and_round(layer, grid), weight)
    constants[item.node, item.index] = Stored(grid, stored)
    return grid.restore(stored)


class _Layout:
    """How a layer reads as a matrix product."""

    def __init__(self, node: ir.Node, axis: int) -> None:
        self.node = node
        self.axis = axis

    @classmethod
    def of(cls, node: ir.Node, weight: Floats) -> _Layout | None:
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
        y = (place // columns * down)[:, None] + slow * np.arange(high)
        x = (place % columns * across)[:, None] + fast * np.arange(wide)
        picked = padded[image[:, None, None], :, y[:, :, None], x[:, None, :]]
        return np.ascontiguousarray(np.moveaxis(picked, -1, 1).reshape(index.size, -1), np.float32)


def _ints(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    found = attribute(node, name, default)
    return tuple(int(x) for x in found) if isinstance(found, (list, tuple)) else default  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def _spread(count: int, wanted: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Evenly spread positions; the golden ratio keeps them from lining up with image columns."""
    wanted = max(wanted, 1)
    if count <= wanted:
        return np.arange(count, dtype=np.int64)
    fractions = (np.arange(wanted) * 0.6180339887498949) % 1.0
    return np.unique((fractions * count).astype(np.int64))
