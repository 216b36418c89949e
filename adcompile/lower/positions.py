"""Bring power-of-two grids within the shifts that the XINT8 integer kernels can do.

Positions are ``-log2(scale)``. An accumulator has position ``weight + input``; writing it to the output
shifts right by ``weight + input - output``, adding the bias shifts it left by ``weight + input - bias``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir

from adcompile.lower.grid import Grid
from adcompile.lower.points import Constant, Points, final_value
from adcompile.lower.scheme import Scheme

CUT = (0, 16)
BIAS_TOP = 15
ACCUMULATOR = 24  # bits that the shifted bias must stay within
ADD_SPREAD = 7
ADD_SHIFT = (-7, 25)
MUL_SHIFT = (0, 32)
SWISH_SHIFT = (0, 15)
HARD_SIGMOID_IN = (0, 15)
HARD_SIGMOID_OUT = 7
ROUNDS = 8

_Move = Callable[[str, int], bool]


def legal_activations(
    model: ir.Model, points: Points, grids: Mapping[str, Grid], scheme: Scheme
) -> dict[str, Grid]:
    """Activation grids that the additions, products and hard sigmoids can work with.

    Only ever moves a grid to a coarser one (or, for hard sigmoids, to the position they need); tied
    values move together.
    """
    positions = {name: grid.position for name, grid in grids.items()}
    group_of = {name: group for group in points.groups for name in group}

    def move(name: str, position: int) -> bool:
        changed = positions[name] != position
        for member in group_of[name]:
            positions[member] = position
        return changed

    for _ in range(ROUNDS):
        moved = [
            _RULES[node.op_type](node, positions, scheme, move)
            for node in model.graph
            if node.op_type in _RULES and not node.domain
        ]
        if not any(moved):
            break
    return {
        name: grid if grid.position == positions[name] else grid.moved_to(positions[name])
        for name, grid in grids.items()
    }


def _inputs(node: ir.Node, positions: Mapping[str, int]) -> list[str]:
    names = [(v.name if v is not None else "") or "" for v in node.inputs]
    return [n for n in names if n in positions]


def _output(node: ir.Node, positions: Mapping[str, int], scheme: Scheme) -> str | None:
    name = final_value(node, scheme).name or ""
    return name if name in positions else None


def _add(node: ir.Node, positions: dict[str, int], scheme: Scheme, move: _Move) -> bool:
    names = _inputs(node, positions)
    if not names:
        return False
    low = min(positions[n] for n in names)
    changed = False
    for name in names:
        if positions[name] > low + ADD_SPREAD:
            changed |= move(name, low + ADD_SPREAD)
    out = _output(node, positions, scheme)
    if out is not None:
        changed |= move(out, _clamp(positions[out], low - ADD_SHIFT[1], low - ADD_SHIFT[0]))
    return changed


def _mul(node: ir.Node, positions: dict[str, int], scheme: Scheme, move: _Move) -> bool:
    names = _inputs(node, positions)
    out = _output(node, positions, scheme)
    if len(names) != 2 or out is None:
        return False
    total = sum(positions[n] for n in names)
    low, high = SWISH_SHIFT if _reads_hard_sigmoid(node) else MUL_SHIFT
    return move(out, _clamp(positions[out], total - high, total - low))


def _reads_hard_sigmoid(node: ir.Node) -> bool:
    for value in node.inputs:
        made = value.producer() if value is not None else None
        if made is not None and made.op_type == "Mul":
            first = made.inputs[0]
            made = first.producer() if first is not None else None
        if made is not None and made.op_type == "HardSigmoid":
            return True
    return False


def _hard_sigmoid(node: ir.Node, positions: dict[str, int], scheme: Scheme, move: _Move) -> bool:
    names = _inputs(node, positions)
    changed = False
    for name in names:
        changed |= move(name, _clamp(positions[name], *HARD_SIGMOID_IN))
    out = _output(node, positions, scheme)
    if out is not None and names:
        top = 14 + positions[names[0]]
        changed |= move(out, _clamp(positions[out], max(HARD_SIGMOID_OUT, top - 31), top))
    return changed


def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))


_RULES = {
    "Add": _add,
    "Sub": _add,
    "Mul": _mul,
    "HardSigmoid": _hard_sigmoid,
}


def weight_bounds(
    node: ir.Node, item: Constant, activations: Mapping[str, Grid], scheme: Scheme
) -> tuple[int, int] | None:
    """Smallest and largest position of a weight for a legal shift to the output."""
    source = node.inputs[0]
    data = activations.get((source.name if source is not None else "") or "")
    out = activations.get(final_value(node, scheme).name or "")
    if data is None or out is None or item.kind != "weight":
        return None
    base = out.position - data.position
    return base + CUT[0], base + CUT[1]


def bias_bounds(
    node: ir.Node, weight: Grid, activations: Mapping[str, Grid], scheme: Scheme
) -> tuple[int, int] | None:
    """Smallest and largest position of a bias for a legal shift into the accumulator."""
    source = node.inputs[0]
    data = activations.get((source.name if source is not None else "") or "")
    final = final_value(node, scheme)
    out = activations.get(final.name or "")
    if data is None or out is None:
        return None
    accumulator = weight.position + data.position
    cut = accumulator - out.position
    maker = final.producer()
    leaky = maker is not None and maker.op_type == "LeakyRelu"
    low = 0 if leaky else min(0, -(ACCUMULATOR - (8 + cut)))
    return accumulator - BIAS_TOP, accumulator - low
