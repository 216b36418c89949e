"""Bring a model to another opset without changing what it computes.

Only moves that are provably neutral are made: the op's schema is the same in both opsets, or the
difference is one this table knows how to bridge. Anything else is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from adcompile.errors import ModelError
from adcompile.ir.constants import add_constant
from adcompile.ir.graph import constant, opset

# between these versions the op changed only in the element types it accepts
_TYPES_ONLY: dict[str, frozenset[int]] = {
    "Abs": frozenset({6, 13}),
    "Add": frozenset({7, 13, 14}),
    "Cast": frozenset({9, 13, 19, 21, 23, 24, 25}),
    "Ceil": frozenset({6, 13}),
    "Clip": frozenset({11, 12, 13}),
    "Concat": frozenset({11, 13}),
    "Constant": frozenset({11, 12, 13, 19, 21, 23, 24, 25}),
    "ConstantOfShape": frozenset({9, 20, 21, 23, 24, 25}),
    "Conv": frozenset({1, 11, 22}),
    "ConvTranspose": frozenset({1, 11, 22}),
    "DequantizeLinear": frozenset({10, 13}),
    "Div": frozenset({7, 13, 14}),
    "Elu": frozenset({6, 22}),
    "Erf": frozenset({9, 13}),
    "Exp": frozenset({6, 13}),
    "Expand": frozenset({8, 13}),
    "Flatten": frozenset({9, 11, 13, 21, 23, 24, 25}),
    "Gather": frozenset({11, 13}),
    "Gemm": frozenset({9, 11, 13}),
    "GlobalAveragePool": frozenset({1, 22}),
    "GlobalMaxPool": frozenset({1, 22}),
    "HardSigmoid": frozenset({6, 22}),
    "Identity": frozenset({1, 13, 14, 16, 19, 21, 23, 24, 25}),
    "LeakyRelu": frozenset({6, 16}),
    "MatMul": frozenset({9, 13}),
    "Max": frozenset({8, 12, 13}),
    "MaxPool": frozenset({8, 10, 11, 12, 22}),
    "Min": frozenset({8, 12, 13}),
    "Mul": frozenset({7, 13, 14}),
    "Neg": frozenset({6, 13}),
    "PRelu": frozenset({9, 16}),
    "Pow": frozenset({12, 13, 15}),
    "QuantizeLinear": frozenset({10, 13}),
    "Reciprocal": frozenset({6, 13}),
    "Relu": frozenset({6, 13, 14}),
    "Shape": frozenset({1, 13}),
    "Sigmoid": frozenset({6, 13}),
    "Slice": frozenset({10, 11, 13}),
    "Softmax": frozenset({13}),
    "Softplus": frozenset({1, 22}),
    "Sqrt": frozenset({6, 13}),
    "Squeeze": frozenset({13, 21, 23, 24, 25}),
    "Sub": frozenset({7, 13, 14}),
    "Sum": frozenset({8, 13}),
    "Tanh": frozenset({6, 13}),
    "Tile": frozenset({6, 13}),
    "Transpose": frozenset({1, 13, 21, 23, 24, 25}),
    "Unsqueeze": frozenset({13, 21, 23, 24, 25}),
    "Where": frozenset({9, 16}),
}

# attributes that a later version added, with the value that means the earlier behaviour
_ADDED: dict[str, dict[str, object]] = {
    "Reshape": {"allowzero": 0},
    "AveragePool": {"dilations": "ones"},
    "Resize": {"antialias": 0, "keep_aspect_ratio_policy": "stretch", "axes": "absent"},
    "BatchNormalization": {"training_mode": 0},
    "Cast": {"saturate": 1, "round_mode": "up"},
    "Split": {"num_outputs": "absent"},
    "Pad": {"mode": "constant reflect edge"},
}
# before this version the op had another interface (attributes instead of inputs, other names)
_OLDEST = {
    "AveragePool": 7,
    "BatchNormalization": 7,
    "Cast": 6,
    "Pad": 11,
    "Reshape": 5,
    "Resize": 11,
    "Split": 13,
}
_REDUCTIONS = frozenset({"ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2"})


def retarget(model: ir.Model, version: int, ir_version: int) -> bool:
    """Set the default opset of *model* to *version*; True when it changed.

    Raises ModelError naming the first op that does not exist there in the same meaning.
    """
    now = opset(model)
    changed = now != version or model.ir_version != ir_version
    if now != version:
        for node in list(ir.traversal.RecursiveGraphIterator(model.graph)):
            why = obstacle(node, now, version)
            if why:
                raise _refusal(node, version, why)
            bridge = _bridge(node, now, version)
            if bridge is not None:
                bridge.move(model, node, _since(node.op_type, version))
    model.opset_imports[""] = version
    model.graph.opset_imports[""] = version
    model.ir_version = ir_version
    return changed


def settled(model: ir.Model, low: int, high: int, ir_version: int = 8) -> ir.Model:
    """*model* itself when its opset is *low* to *high*, else a copy brought to the nearest of them.

    Raises ModelError like :func:`retarget`.
    """
    version = min(max(opset(model), low), high)
    if version == opset(model):
        return model
    moved = model.clone()
    retarget(moved, version, max(ir_version, min(model.ir_version, 10)))
    return moved


def reachable(model: ir.Model, versions: Sequence[int]) -> int:
    """The first of *versions* in which every node has an equal; the last one when none is."""
    now = opset(model)
    nodes = list(ir.traversal.RecursiveGraphIterator(model.graph))
    for version in versions:
        if not any(obstacle(node, now, version) for node in nodes):
            return version
    return versions[-1]


def obstacle(node: ir.Node, now: int, version: int) -> str:
    """Why *node* of opset *now* has no equal in opset *version*; "" when it has."""
    if node.domain != "" or now == version:
        return ""
    before, after = _since(node.op_type, now), _since(node.op_type, version)
    if before == after and before:
        return ""
    if not after:
        return f"{node.op_type} does not exist in opset {version}"
    known = _TYPES_ONLY.get(node.op_type, frozenset())
    if before in known and after in known:
        return "" if after > before else _foreign_type(node, after)
    bridge = _BRIDGES.get(node.op_type)
    too_old = min(before, after) < _OLDEST.get(node.op_type, 1)
    if (
        bridge is None
        or too_old
        or version < bridge.least
        or not bridge.possible(node, before, after)
    ):
        return f"the meaning of {node.op_type} changed between version {before} and {after}"
    return ""


def _foreign_type(node: ir.Node, version: int) -> str:
    """Why an older version does not take the main input or give the main output; "" when it does."""
    schema = onnx.defs.get_schema(node.op_type, max_inclusive_version=version)
    allowed = {text for item in schema.type_constraints for text in item.allowed_type_strs}
    for value in (*node.inputs[:1], *node.outputs[:1]):
        kind = None if value is None or value.dtype is None else value.dtype.name.lower()
        if kind is not None and allowed and f"tensor({kind})" not in allowed:
            return f"{node.op_type} of version {version} does not know {kind}"
    return ""


def _bridge(node: ir.Node, now: int, version: int) -> _Bridge | None:
    """What has to be done to move *node*, which nothing keeps from moving."""
    before, after = _since(node.op_type, now), _since(node.op_type, version)
    known = _TYPES_ONLY.get(node.op_type, frozenset())
    if node.domain != "" or before == after or (before in known and after in known):
        return None
    return _BRIDGES.get(node.op_type)


def _refusal(node: ir.Node, version: int, why: str) -> ModelError:
    return ModelError(
        f"cannot bring the model to opset {version}",
        where=f"node {node.name!r} ({node.op_type})",
        why=why,
        fix=f"export the model with opset {version}",
    )


def _since(op: str, version: int) -> int:
    try:
        return onnx.defs.get_schema(op, max_inclusive_version=version).since_version
    except onnx.defs.SchemaError:
        return 0


@dataclass(frozen=True)
class _Bridge:
    """A change of meaning between versions: when it can be undone, and how."""

    possible: Callable[[ir.Node, int, int], bool]  # node, version before, version after
    move: Callable[[ir.Model, ir.Node, int], None]  # model, node, version after
    least: int = 0  # the result does not exist in older opsets


def _has_defaults(node: ir.Node, before: int, after: int) -> bool:
    """True when all attributes that a later version added have their default meaning."""
    return after > before or all(
        _is_neutral(node, *item) for item in _ADDED.get(node.op_type, {}).items()
    )


def _is_neutral(node: ir.Node, name: str, neutral: object) -> bool:
    found = node.attributes.get(name)
    if found is None:
        return True
    value: object = found.value  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if isinstance(value, (list, tuple)):
        ones = list(value) == [1] * len(value)  # pyright: ignore[reportUnknownArgumentType]
        return neutral == "ones" and ones
    if isinstance(neutral, str) and isinstance(value, str):
        return value in neutral.split()
    return value == neutral


def _drop_defaults(model: ir.Model, node: ir.Node, after: int) -> None:
    """Remove the attributes that *after* does not have."""
    del model
    schema = onnx.defs.get_schema(node.op_type, max_inclusive_version=after)
    for name in _ADDED.get(node.op_type, {}):
        if name not in schema.attributes:
            node.attributes.pop(name, None)


def _can_split(node: ir.Node, before: int, after: int) -> bool:
    del before
    return after >= 18 or ("num_outputs" not in node.attributes or bool(_split_sizes(node)))


def _split_sizes(node: ir.Node) -> list[int]:
    """Sizes of the outputs along the axis; empty when one is not known."""
    attribute = node.attributes.get("axis")
    axis = int(attribute.as_int()) if attribute is not None else 0
    sizes = [v.shape[axis] if v.shape is not None else None for v in node.outputs]
    known = [size for size in sizes if isinstance(size, int)]
    return known if len(known) == len(sizes) else []


def _split(model: ir.Model, node: ir.Node, after: int) -> None:
    """``num_outputs`` (18) to explicit sizes and back."""
    if after >= 18:
        if len(node.inputs) < 2 and "num_outputs" not in node.attributes:
            node.attributes["num_outputs"] = ir.AttrInt64("num_outputs", len(node.outputs))
        return
    if "num_outputs" in node.attributes:
        _add_list(model, node, "sizes", _split_sizes(node))
        del node.attributes["num_outputs"]


def _can_reduce(node: ir.Node, before: int, after: int) -> bool:
    del before
    computed = len(node.inputs) > 1 and node.inputs[1] is not None
    if after >= 18:
        return True
    if not computed:
        noop = node.attributes.get("noop_with_empty_axes")
        return noop is None or noop.as_int() == 0
    return constant(node.inputs[1]) is not None


def _reduction(model: ir.Model, node: ir.Node, after: int) -> None:
    """``axes`` moved from an attribute (13) to an input (18)."""
    if after < 18:
        array = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        if array is not None and array.size:
            node.attributes["axes"] = ir.AttrInt64s("axes", [int(x) for x in array.reshape(-1)])
        node.resize_inputs(1)
        node.attributes.pop("noop_with_empty_axes", None)
        return
    attribute = node.attributes.pop("axes", None)
    if attribute is not None:
        _add_list(model, node, "axes", attribute.as_ints())


def _add_list(model: ir.Model, node: ir.Node, what: str, numbers: Sequence[int]) -> None:
    """Give *node* a constant second input."""
    name = f"{node.outputs[0].name}_{what}"
    graph = node.graph if isinstance(node.graph, ir.Graph) else model.graph
    value = add_constant(graph, name, np.array(list(numbers), np.int64))
    node.resize_inputs(2)
    node.replace_input_with(1, value)


def _can_resize(node: ir.Node, before: int, after: int) -> bool:
    scales = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    enlarges = scales is not None and bool((scales.astype(np.float64) >= 1).all())
    return (before, after) == (9, 10) and enlarges


def _resize(model: ir.Model, node: ir.Node, after: int) -> None:
    """Upsample, which ended with opset 9, as the Resize that computes the same (ONNX: Resize-11's
    ``asymmetric`` is Upsample's coordinate, and Upsample's nearest pixel is the one below)."""
    del model, after
    node.op_type = "Resize"
    node.resize_inputs(3)
    node.replace_input_with(2, node.inputs[1])
    node.replace_input_with(1, None)
    mode = node.attributes.get("mode")
    if mode is None or mode.as_string() == "nearest":
        node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", "floor")
    transformation = "coordinate_transformation_mode"
    node.attributes[transformation] = ir.AttrString(transformation, "asymmetric")


_BRIDGES: dict[str, _Bridge] = {
    **dict.fromkeys(_ADDED, _Bridge(_has_defaults, _drop_defaults)),
    **dict.fromkeys(_REDUCTIONS, _Bridge(_can_reduce, _reduction)),
    "Split": _Bridge(_can_split, _split),
    "Upsample": _Bridge(_can_resize, _resize, least=13),
}
