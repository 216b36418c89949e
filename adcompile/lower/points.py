"""Where a scheme wants Q/DQ: the values to put on a grid, who shares one, and the constants."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from adcompile.ir.graph import constant, is_constant
from adcompile.lower.scheme import WEIGHTED, Scheme

# inputs that carry data, by op; ops not named here have one, at index 0
DATA_INPUTS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "MatMul", "PRelu", "Pow", "Gemm"), (0, 1)),
    "Where": (1, 2),
}
VARIADIC = frozenset({"Concat", "Sum", "Min", "Max", "Mean"})
# constant operands of these are quantized too
CONSTANT_OPERANDS = frozenset({"Add", "Sub", "Mul", "Div", "Min", "Max", "PRelu", "Concat"})


@dataclass(frozen=True)
class Constant:
    """A learned constant: weight, bias or operand, at one input of one node."""

    node: str
    index: int
    kind: str  # "weight", "bias" or "operand"
    axis: int = 0  # output channels
    partner: str = ""  # bias: the activation value that the weight multiplies


@dataclass(frozen=True)
class Points:
    """``readers`` of a value: None means all of them (and the graph output, if it is one)."""

    readers: dict[str, tuple[tuple[str, int], ...] | None]
    groups: tuple[tuple[str, ...], ...]
    constants: tuple[Constant, ...]


def attribute(node: ir.Node, name: str, default: object = None) -> object:
    """The plain value of an attribute, *default* when it is absent."""
    found = node.attributes.get(name)
    return default if found is None else found.value  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def data_inputs(node: ir.Node) -> Iterator[tuple[int, ir.Value]]:
    """The inputs of a node that are quantized as activations."""
    count = len(node.inputs)
    wanted = range(count) if node.op_type in VARIADIC else DATA_INPUTS.get(node.op_type, (0,))
    for index in wanted:
        value = node.inputs[index] if index < count else None
        if value is not None and value.dtype == ir.DataType.FLOAT and not is_constant(value):
            yield index, value


def is_scalar_operand(node: ir.Node) -> bool:
    """True for a two-input op with a one-element constant operand."""
    return len(node.inputs) == 2 and any(
        (array := constant(value)) is not None and array.size == 1 for value in node.inputs
    )


def fused_follower(value: ir.Value, scheme: Scheme) -> ir.Node | None:
    """The node that runs together with *value*'s producer, so that *value* gets no Q/DQ."""
    producer = value.producer()
    uses = list(value.uses())
    if producer is None or len(uses) != 1 or value.is_graph_output():
        return None
    node = uses[0].node
    if (producer.op_type, node.op_type) not in scheme.fuse or node.domain:
        return None
    if uses[0].idx != 0:
        return None
    scalar_only = node.op_type == "Mul" and not is_scalar_operand(node)
    return None if scalar_only else node


def final_value(node: ir.Node, scheme: Scheme) -> ir.Value:
    """What a node's kernel writes: past the activation or scaling fused to it."""
    value = node.outputs[0]
    follower = fused_follower(value, scheme)
    return value if follower is None else final_value(follower, scheme)


def fused_chains(model: ir.Model, scheme: Scheme) -> list[list[ir.Node]]:
    """Nodes that run in one kernel, with no Q/DQ between them: lists of two or more, in order."""
    found: dict[ir.Node, list[ir.Node]] = {}
    for node in model.graph:
        follower = fused_follower(node.outputs[0], scheme)
        if follower is None:
            continue
        chain = found.pop(node, [node])
        found[follower] = [*chain, follower]
    return list(found.values())


def with_fused(model: ir.Model, floats: frozenset[str], scheme: Scheme) -> frozenset[str]:
    """*floats*, and what would run in one kernel behind a node of them."""
    if not floats:
        return floats
    chains = [[n.name or "" for n in chain] for chain in fused_chains(model, scheme)]
    return floats.union(*(chain for chain in chains if chain[0] in floats))


def is_quantized(node: ir.Node, scheme: Scheme, floats: frozenset[str]) -> bool:
    """True when the scheme quantizes this op and the node is not pinned to float."""
    if node.domain or node.op_type not in scheme.ops or node.name in floats:
        return False
    return node.outputs[0].dtype in (ir.DataType.FLOAT, None)


def plan_points(model: ir.Model, scheme: Scheme, floats: frozenset[str] = frozenset()) -> Points:
    """Decide for every value and constant of the main graph. *floats*: nodes to leave alone."""
    nodes = [n for n in model.graph if is_quantized(n, scheme, floats)]
    everywhere = scheme.placement == "everywhere"
    readers = _everywhere(nodes, scheme) if everywhere else _inputs_only(nodes)
    groups = _groups(nodes, readers, scheme)
    constants = [c for n in nodes for c in _constants(n, scheme)]
    return Points(readers, groups, tuple(constants))


def _everywhere(
    nodes: list[ir.Node], scheme: Scheme
) -> dict[str, tuple[tuple[str, int], ...] | None]:
    found: dict[str, tuple[tuple[str, int], ...] | None] = {}
    chosen = set(nodes)
    for node in nodes:
        for _, value in data_inputs(node):
            if not _inside(value, scheme, chosen):
                found[value.name or ""] = None
        for value in node.outputs:
            typed = value.dtype in (ir.DataType.FLOAT, None)
            if value.name and typed and not _inside(value, scheme, chosen):
                found[value.name] = None
    return found


def _inside(value: ir.Value, scheme: Scheme, chosen: set[ir.Node]) -> bool:
    follower = fused_follower(value, scheme)
    return follower is not None and follower in chosen and value.producer() in chosen


def _inputs_only(nodes: list[ir.Node]) -> dict[str, tuple[tuple[str, int], ...] | None]:
    found: dict[str, list[tuple[str, int]]] = {}
    for node in nodes:
        edges = list(data_inputs(node))
        if node.op_type == "Add":
            edges = _shortcuts(edges)
        for index, value in edges:
            found.setdefault(value.name or "", []).append((node.name or "", index))
    return {name: tuple(edges) for name, edges in found.items()}


def _shortcuts(edges: list[tuple[int, ir.Value]]) -> list[tuple[int, ir.Value]]:
    """Of a residual Add, all inputs but the last one computed by a convolution or product.

    That one runs fused with the Add, and reads full-precision accumulators.
    """
    weighted = [i for i, v in edges if _made_by_weights(v)]
    return [] if not weighted else [(i, v) for i, v in edges if i != weighted[-1]]


def _made_by_weights(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type in WEIGHTED and len(list(value.uses())) == 1


def _groups(
    nodes: list[ir.Node],
    readers: dict[str, tuple[tuple[str, int], ...] | None],
    scheme: Scheme,
) -> tuple[tuple[str, ...], ...]:
    parent = {name: name for name in readers}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    def join(names: list[str]) -> None:
        names = [n for n in names if n in parent]
        for name in names[1:]:
            parent[root(name)] = root(names[0])

    for node in nodes:
        inputs = [v.name or "" for _, v in data_inputs(node)]
        if node.op_type in scheme.tied:
            written = final_value(node, scheme)  # past a scaling that is fused to it
            join([*inputs, *(v.name or "" for v in node.outputs), written.name or ""])
        if node.op_type in scheme.tied_inputs:
            join(inputs)
    members: dict[str, list[str]] = {}
    for name in readers:
        members.setdefault(root(name), []).append(name)
    return tuple(tuple(names) for names in members.values())


def _constants(node: ir.Node, scheme: Scheme) -> Iterator[Constant]:
    name = node.name or ""
    if node.op_type in WEIGHTED:
        weight, bias = WEIGHTED[node.op_type]
        if _floating(node, weight):
            yield Constant(name, weight, "weight", _channel_axis(node))
            if scheme.bias != "float" and bias > 0 and _floating(node, bias):
                partner = node.inputs[0]
                yield Constant(name, bias, "bias", 0, (partner.name if partner else "") or "")
        return
    fused_scale = node.op_type == "Mul" and is_scalar_operand(node) and _follows(node, scheme)
    if node.op_type in CONSTANT_OPERANDS and scheme.placement == "everywhere" and not fused_scale:
        for index in range(len(node.inputs)):
            if _floating(node, index):
                yield Constant(name, index, "operand")


def _follows(node: ir.Node, scheme: Scheme) -> bool:
    first = node.inputs[0]
    return first is not None and fused_follower(first, scheme) is node


def _floating(node: ir.Node, index: int) -> bool:
    value = node.inputs[index] if index < len(node.inputs) else None
    array = constant(value)
    return array is not None and array.dtype == np.float32 and array.size > 0


def _channel_axis(node: ir.Node) -> int:
    if node.op_type == "ConvTranspose":
        return 1
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    if node.op_type == "MatMul":
        weight = constant(node.inputs[1])
        return weight.ndim - 1 if weight is not None else 1
    return 0
