"""float32 to float16 in the graph, with inputs and outputs kept in float32.

A typed graph is the only portable way to ask for half precision (new TensorRT versions have no
flag for it). Nodes whose values do not fit, or whose sums need the range, stay in float32 between
Casts: nothing overflows silently.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from adcompile.ir.constants import add_constant
from adcompile.ir.graph import constant, set_provenance
from adcompile.ir.shapes import infer_shapes
from adcompile.lower.insert import name_nodes
from adcompile.lower.observe import Observation
from adcompile.lower.scheme import words

RULE = "half"
ASKED = "asked for"
LARGEST = 65504.0
HEADROOM = 0.5  # calibration has not seen everything
SMALLEST_NORMAL = 6.104e-05

# long sums and powers leave the range of float16 although inputs and outputs may fit
_KEEP = words(
    """Exp Pow Log CumSum ReduceSum ReduceSumSquare ReduceL1 ReduceL2 ReduceMean ReduceProd
    ReduceLogSum ReduceLogSumExp LayerNormalization InstanceNormalization GroupNormalization
    NonMaxSuppression RoiAlign NonZero TopK Cast QuantizeLinear DequantizeLinear Einsum"""
)
# inputs that must stay float32, by op
_FLOAT_INPUTS: dict[str, tuple[int, ...]] = {"Resize": (1, 2), "Upsample": (1,)}


@dataclass(frozen=True, slots=True)
class Kept:
    """A node left in float32, and why."""

    node: str
    why: str


def to_half(
    model: ir.Model, seen: Mapping[str, Observation], floats: frozenset[str] = frozenset()
) -> tuple[ir.Model, list[Kept]]:
    """A float16 copy of *model*; *seen* are observed ranges of inner values (may be empty).

    Returns the copy and the nodes that stay in float32. Inputs, outputs and everything that is not
    float32 keep their types.
    """
    copy = model.clone()
    name_nodes(copy)
    infer_shapes(copy)
    kept: list[Kept] = []
    chosen: set[ir.Node] = set()
    for node in copy.graph:
        why = _why_float(node, seen, floats)
        if why is None:
            chosen.add(node)
        elif why:
            kept.append(Kept(node.name or "", why))
    _convert(copy, chosen)
    return copy, kept


def _why_float(
    node: ir.Node, seen: Mapping[str, Observation], floats: frozenset[str]
) -> str | None:
    """None: convert. Empty text: nothing to convert. Else the reason to keep float32."""
    values = [v for v in (*node.inputs, *node.outputs) if v is not None]
    if not any(value.dtype == ir.DataType.FLOAT for _, value in _halved_inputs(node)):
        return ""  # such as Constant: its type does not follow an input
    if node.name in floats:
        return ASKED
    if node.domain or any(a.type in _GRAPHS for a in node.attributes.values()):
        return "not a plain operator"
    if node.op_type in _KEEP:
        return f"{node.op_type} needs the range of float32"
    for value in values:
        observed = seen.get(value.name or "")
        if observed is not None and observed.count:
            peak = max(abs(observed.low), abs(observed.high))
            if peak > LARGEST * HEADROOM:
                return f"{value.name} reaches {peak:.4g}"
        array = constant(value)
        if array is not None and array.dtype == np.float32 and array.size:
            peak = float(np.abs(array).max())
            if peak > LARGEST * HEADROOM:
                return f"constant {value.name} reaches {peak:.4g}"
    return None


_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def _convert(model: ir.Model, chosen: set[ir.Node]) -> None:
    graph = model.graph
    down: dict[ir.Value, ir.Value] = {}
    up: dict[ir.Value, ir.Value] = {}
    for node in list(graph):
        if node in chosen:
            _halve(graph, node, down)
    for node in list(graph):
        for index, value in _float_readers(node, chosen):
            if value is not None and _was_halved(value, chosen):
                node.replace_input_with(index, _float_of(graph, value, up))
    for index, value in enumerate(list(graph.outputs)):
        if _was_halved(value, chosen):
            name = value.name
            value.name = f"{name}_half"
            back = _float_of(graph, value, up)
            back.name = name
            graph.outputs[index] = back
    for name, value in list(graph.initializers.items()):
        if not list(value.uses()) and not value.is_graph_output():
            del graph.initializers[name]


def _halve(graph: ir.Graph, node: ir.Node, done: dict[ir.Value, ir.Value]) -> None:
    for index, value in _halved_inputs(node):
        if value.dtype == ir.DataType.FLOAT:
            node.replace_input_with(index, _half_of(graph, value, done))
    for value in node.outputs:
        if value.dtype == ir.DataType.FLOAT:
            value.type = ir.TensorType(ir.DataType.FLOAT16)


def _halved_inputs(node: ir.Node) -> list[tuple[int, ir.Value]]:
    """The inputs of *node* that are float16 when it is."""
    skip = _FLOAT_INPUTS.get(node.op_type, ())
    return [(i, v) for i, v in enumerate(node.inputs) if v is not None and i not in skip]


def _float_readers(node: ir.Node, chosen: set[ir.Node]) -> list[tuple[int, ir.Value | None]]:
    """The inputs of *node* that must be float32."""
    if node in chosen:
        skip = _FLOAT_INPUTS.get(node.op_type, ())
        return [(i, node.inputs[i]) for i in skip if i < len(node.inputs)]
    if node.metadata_props.get(_MARK):
        return []
    return list(enumerate(node.inputs))


def _was_halved(value: ir.Value, chosen: set[ir.Node]) -> bool:
    return value.dtype == ir.DataType.FLOAT16 and value.producer() in chosen


_MARK = "adcompile.half"


def _half_of(graph: ir.Graph, value: ir.Value, done: dict[ir.Value, ir.Value]) -> ir.Value:
    if value in done:
        return done[value]
    array = constant(value)
    if array is not None:
        made = add_constant(graph, f"{value.name}_half", _round_half(np.asarray(array)))
        done[value] = made
        return made
    cast = _cast(value, ir.DataType.FLOAT16, f"{value.name}_half")
    producer = value.producer()
    if producer is not None:
        graph.insert_after(producer, cast)
    else:
        graph.insert_before(graph[0], cast)
    done[value] = cast.outputs[0]
    return cast.outputs[0]


def _round_half(
    array: np.ndarray[tuple[int, ...], np.dtype[np.generic]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float16]]:
    """Rounded to float16; what would become a denormal goes to zero as on the device."""
    small = np.abs(array.astype(np.float32)) < SMALLEST_NORMAL / 2
    return np.where(small, 0.0, array).astype(np.float16)


def _float_of(graph: ir.Graph, value: ir.Value, done: dict[ir.Value, ir.Value]) -> ir.Value:
    if value not in done:
        cast = _cast(value, ir.DataType.FLOAT, f"{value.name}_float")
        producer = value.producer()
        if producer is not None:
            graph.insert_after(producer, cast)
        done[value] = cast.outputs[0]
    return done[value]


def _cast(value: ir.Value, kind: ir.DataType, name: str) -> ir.Node:
    out = ir.Value(name=name, shape=value.shape, type=ir.TensorType(kind))
    node = ir.Node(
        "", "Cast", [value], [ir.AttrInt64("to", int(kind))], outputs=[out], name=f"{name}_cast"
    )
    node.metadata_props[_MARK] = "1"
    producer = value.producer()
    if producer is not None:
        set_provenance(node, [producer], RULE)
    return node
