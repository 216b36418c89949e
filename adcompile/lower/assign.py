"""Choose grids: one for every point of a prepared model, one for every constant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from adcompile.errors import InputError
from adcompile.ir.graph import constant
from adcompile.lower.grid import Bounds, Floats, Grid, activation_grid, bias_grid, weight_grid
from adcompile.lower.insert import Assignment, Stored
from adcompile.lower.observe import Observation
from adcompile.lower.points import Constant, Points
from adcompile.lower.positions import bias_bounds, legal_activations, weight_bounds
from adcompile.lower.scheme import Scheme


@dataclass(frozen=True)
class Prepared:
    """A float model ready for insertion, with what calibration saw in it."""

    model: ir.Model
    points: Points
    seen: dict[str, Observation]


@dataclass
class GridMemo:
    """Grids that were searched for already, for assignments that differ in their points only: the
    model, what was seen in it and the scheme stay the same."""

    activations: dict[tuple[str, ...], Grid] = field(default_factory=dict[tuple[str, ...], Grid])
    weights: dict[tuple[str, int, Bounds | None], Stored] = field(
        default_factory=dict[tuple[str, int, Bounds | None], Stored]
    )

    def activation(self, group: tuple[str, ...], prepared: Prepared, scheme: Scheme) -> Grid:
        """The grid that the values of *group* share."""
        if group not in self.activations:
            seen = [prepared.seen[name] for name in group]
            self.activations[group] = activation_grid(seen, scheme)
        return self.activations[group]

    def weight(
        self, item: Constant, array: Floats, scheme: Scheme, limits: Bounds | None
    ) -> Stored:
        """A weight or operand on its grid."""
        key = (item.node, item.index, limits)
        if key not in self.weights:
            grid = weight_grid(array, scheme, item.axis, limits)
            self.weights[key] = Stored(grid, grid.store(array))
        return self.weights[key]


def assign(prepared: Prepared, scheme: Scheme, memo: GridMemo | None = None) -> Assignment:
    """Choose the grid of every point and the integers of every constant."""
    memo = memo or GridMemo()
    activations: dict[str, Grid] = {}
    for group in prepared.points.groups:
        activations |= dict.fromkeys(group, memo.activation(group, prepared, scheme))
    if scheme.shifts:
        activations = legal_activations(prepared.model, prepared.points, activations, scheme)
    constants: dict[tuple[str, int], Stored] = {}
    nodes = {node.name or "": node for node in prepared.model.graph}
    for item in prepared.points.constants:
        node = nodes[item.node]
        array = array_of(node, item)
        if item.kind == "bias":
            weight = constants[item.node, item.index - 1].grid
            grid = grid_of_bias(node, item, array, weight, activations, scheme)
            constants[item.node, item.index] = Stored(grid, grid.store(array))
        else:
            limits = weight_bounds(node, item, activations, scheme) if scheme.shifts else None
            constants[item.node, item.index] = memo.weight(item, array, scheme, limits)
    return Assignment(activations, constants)


def grid_of_bias(
    node: ir.Node,
    item: Constant,
    bias: Floats,
    weight: Grid,
    activations: Mapping[str, Grid],
    scheme: Scheme,
) -> Grid:
    """The grid of a bias, given those of the layer's input and weight."""
    source = activations.get(item.partner)
    product = weight.scale if source is None else source.scale * weight.scale
    limits = bias_bounds(node, weight, activations, scheme) if scheme.shifts else None
    return bias_grid(bias, scheme, product, limits)


def array_of(node: ir.Node, item: Constant) -> Floats:
    """The float value of a constant."""
    array = constant(node.inputs[item.index])
    if array is None:
        raise InputError("a weight has no value", where=item.node)
    return np.asarray(array, np.float32)
