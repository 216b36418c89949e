"""Our own quantizer: ranges from calibration, grids by the scheme, corrections, Q/DQ in the graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from adcompile.errors import InputError
from adcompile.interfaces import Array, CalibrationData
from adcompile.ir.graph import constant
from adcompile.ir.shapes import infer_shapes
from adcompile.lower.grid import Grid, activation_grid, bias_grid, weight_grid
from adcompile.lower.insert import Assignment, Stored, insert
from adcompile.lower.observe import Observation, observe
from adcompile.lower.opset import retarget
from adcompile.lower.points import Constant, Points, plan_points
from adcompile.lower.scheme import Scheme


@dataclass(frozen=True)
class Prepared:
    """A float model ready for insertion, with what calibration saw in it."""

    model: ir.Model
    points: Points
    seen: dict[str, Observation]


def quantize(
    model: ir.Model,
    data: CalibrationData,
    scheme: Scheme,
    floats: frozenset[str] = frozenset(),
) -> ir.Model:
    """A Q/DQ copy of *model* in *scheme*; nodes named in *floats* stay in float.

    Raises InputError when there is no calibration data or it is not finite.
    """
    prepared = prepare(model, data, scheme, floats)
    return finish(prepared, assign(prepared, scheme), scheme)


def prepare(
    model: ir.Model, data: CalibrationData, scheme: Scheme, floats: frozenset[str] = frozenset()
) -> Prepared:
    """Copy, name, infer shapes, find the points and observe them."""
    copy = model.clone()
    name_nodes(copy)
    infer_shapes(copy)
    points = plan_points(copy, scheme, floats)
    seen = observe(copy, list(points.readers), data) if points.readers else {}
    return Prepared(copy, points, seen)


def assign(prepared: Prepared, scheme: Scheme) -> Assignment:
    """Choose the grid of every point and the integers of every constant."""
    activations: dict[str, Grid] = {}
    for group in prepared.points.groups:
        grid = activation_grid([prepared.seen[name] for name in group], scheme)
        activations |= dict.fromkeys(group, grid)
    constants: dict[tuple[str, int], Stored] = {}
    for item in prepared.points.constants:
        constants[item.node, item.index] = _store(prepared, item, activations, constants, scheme)
    return Assignment(activations, constants)


def _store(
    prepared: Prepared,
    item: Constant,
    activations: dict[str, Grid],
    done: dict[tuple[str, int], Stored],
    scheme: Scheme,
) -> Stored:
    array = array_of(prepared.model, item)
    if item.kind != "bias":
        grid = weight_grid(array, scheme, item.axis)
    else:
        source = activations.get(item.partner)
        weight = done[item.node, 1].grid
        product = weight.scale if source is None else source.scale * weight.scale
        grid = bias_grid(array, scheme, product)
    return Stored(grid, grid.store(array))


def array_of(model: ir.Model, item: Constant) -> Array:
    """The float value of a constant."""
    node = next(n for n in model.graph if n.name == item.node)
    array = constant(node.inputs[item.index])
    if array is None:
        raise InputError("a weight has no value", where=item.node)
    return np.asarray(array, np.float32)


def finish(prepared: Prepared, assignment: Assignment, scheme: Scheme) -> ir.Model:
    """Insert the Q/DQ nodes and bring the model to the scheme's opset."""
    model = prepared.model.clone()
    insert(model, prepared.points, assignment, scheme)
    retarget(model, scheme.opset, scheme.ir_version)
    return model


def name_nodes(model: ir.Model) -> None:
    """Give every node of the main graph a name of its own."""
    taken: set[str] = set()
    for index, node in enumerate(model.graph):
        wanted = node.name or f"{node.op_type}_{index}"
        name, count = wanted, 2
        while name in taken:
            name, count = f"{wanted}_{count}", count + 1
        taken.add(name)
        node.name = name
