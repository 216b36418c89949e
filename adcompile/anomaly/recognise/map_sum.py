"""A map that is a sum of two scaled error maps, however the scaling is spelt.

EfficientAD adds ``0.05 · (map - low) / (high - low)`` of its student/teacher map and of its
autoencoder map. Exporters write that with any mix of Sub, Mul, Div and Add, and share equal
constants between nodes; so the sum is read as ``Σ gain · map + offset``, and written anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from adcompile.anomaly.recognise.algebra import addends, scalar, scaled
from adcompile.errors import ModelError
from adcompile.interfaces import Part
from adcompile.ir.constants import add_constant
from adcompile.ir.graph import DOMAIN, set_provenance
from adcompile.rewrite.surgery import Names, inherit, remove_dead_nodes, take_over

RULE = "quantiles-of-maps"


@dataclass(frozen=True, eq=False)
class ScaledMap:
    """``gain · large``; ``large`` is the error map ``error`` [N, 1, h, w], enlarged or not."""

    error: ir.Value
    large: ir.Value
    gain: float

    @property
    def sources(self) -> str:
        """Names of the graph inputs that the error map compares, joined by " against "."""
        pending, found = [self.error], dict[str, None]()
        while pending:
            value = pending.pop()
            node = value.producer()
            if value.is_graph_input():
                found[value.name or ""] = None
            pending += [v for v in (node.inputs if node else ()) if v is not None]
        return " against ".join(sorted(found))


@dataclass(frozen=True, eq=False)
class MapSum:
    """``whole = Σ gain · large + offset``; the maps in the order in which the graph makes them."""

    whole: ir.Value
    maps: tuple[ScaledMap, ...]


def find_map_sum(model: ir.Model, name: str) -> MapSum | str:
    """The value called *name* as a sum of two scaled error maps, else why it is none.

    The reason is "" when the model has no two error maps, or does not make the value.
    """
    errors = [n for n in model.graph if n.domain == DOMAIN and n.op_type == "SquaredErrorMap"]
    whole = next((v for n in model.graph for v in n.outputs if v.name == name), None)
    if len(errors) < 2 or whole is None:
        return ""
    found: dict[ir.Node, ScaledMap] = {}
    for each in addends(whole):
        if scalar(each.value) is not None:
            continue
        made = _error_behind(each.value)
        if made is None:
            return f"the map adds {each.value.name}, which is no scaled error map"
        node, factor = made
        if node in found or not each.factor * factor > 0.0:
            return f"{node.name} enters the map twice, or with a negative factor"
        found[node] = ScaledMap(node.outputs[0], each.value, each.factor * factor)
    if len(found) != 2 or len(errors) != 2:
        return f"the map adds {len(found)} of {len(errors)} error maps; the formula has two"
    passing = _passes_by(whole, [node.outputs[0] for node in errors])
    if passing:
        return f"{passing} is made from the error maps without their sum"
    return MapSum(whole, tuple(found[node] for node in errors))


def _error_behind(value: ir.Value) -> tuple[ir.Node, float] | None:
    """The SquaredErrorMap that *value* enlarges, and the factor between them."""
    factor = 1.0
    while True:
        part = scaled(value)
        factor *= part.factor
        node = part.value.producer()
        if node is None or node.domain != DOMAIN or node.inputs[0] is None:
            return None
        if node.op_type == "SquaredErrorMap":
            return node, factor
        if node.op_type != "MapUpsampleBlur":
            return None
        value = node.inputs[0]


def _passes_by(whole: ir.Value, errors: Sequence[ir.Value]) -> str:
    """A graph output that depends on an error map by another way than *whole*; "" without one."""
    pending, seen = list(errors), set(errors)
    while pending:
        value = pending.pop()
        if value is whole:
            continue
        if value.is_graph_output():
            return value.name or "an output"
        made = [v for node in value.consumers() for v in node.outputs if v not in seen]
        seen.update(made)
        pending += made
    return ""


def with_scales(part: Part, name: str, scales: Sequence[tuple[float, float]]) -> Part:
    """The part with ``Σ (gain · map - shift)`` for *scales*, (gain, shift) of each error map."""
    model = part.model.clone()
    found = find_map_sum(model, name)
    if isinstance(found, str):
        raise ModelError("no sum of scaled error maps", where=f"{part.name}: {name}", why=found)
    names = Names(model)
    old = found.whole
    last = old.producer()
    assert last is not None
    made: list[ir.Node] = []

    def add(op_type: str, *inputs: ir.Value) -> ir.Value:
        node = ir.node(op_type, inputs)
        node.name = names.fresh(f"{last.name}/{op_type.lower()}")
        node.outputs[0].name = names.fresh(f"{node.name}_out")
        inherit(node.outputs[0], old)
        set_provenance(node, [last], RULE)
        made.append(node)
        return node.outputs[0]

    def number(label: str, value: float) -> ir.Value:
        return add_constant(model.graph, names.fresh(label), np.array(value, np.float32))

    terms: list[ir.Value] = []
    for each, (gain, shift) in zip(found.maps, scales, strict=True):
        # the factor may stand before or behind the enlargement: keep what lies between
        between = _error_behind(each.large)
        assert between is not None
        grown = add("Mul", each.large, number("map_gain", gain / between[1]))
        terms.append(add("Sub", grown, number("map_shift", shift)))
    whole = add("Add", *terms)
    model.graph.insert_before(last, made)
    take_over(old, whole, names)
    if whole.name != name:  # it was no graph output; others still look for it by its name
        old.name = names.fresh(f"{name}_replaced")
        whole.name = name
    remove_dead_nodes(model.graph)
    return replace(part, model=model)
