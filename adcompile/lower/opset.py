"""Bring a model to another opset without changing what it computes.

Only moves that are provably neutral are made: the op's schema is the same in both opsets, or the
difference is one this table knows how to bridge. Anything else is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir

from adcompile.errors import ModelError
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
_REDUCTIONS = frozenset({"ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2"})


def retarget(model: ir.Model, version: int, ir_version: int) -> bool:
    """Set the default opset of *model* to *version*; True when it changed.

    Raises ModelError naming the first op that does not exist there in the same meaning.
    """
    now = opset(model)
    changed = now != version or model.ir_version != ir_version
    if now != version:
        for node in list(ir.traversal.RecursiveGraphIterator(model.graph)):
            if node.domain == "":
                _move(model, node, now, version)
    model.opset_imports[""] = version
    model.graph.opset_imports[""] = version
    model.ir_version = ir_version
    return changed


def _move(model: ir.Model, node: ir.Node, now: int, version: int) -> None:
    before, after = _since(node.op_type, now), _since(node.op_type, version)
    if before == after and before:
        return
    if not after:
        raise _refusal(node, version, f"{node.op_type} does not exist in opset {version}")
    known = _TYPES_ONLY.get(node.op_type, frozenset())
    if before in known and after in known:
        return
    bridge = _BRIDGES.get(node.op_type)
    if bridge is None or not bridge(model, node, before, after):
        why = f"its meaning changed between version {before} and {after}"
        raise _refusal(node, version, why)


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


def _drop_defaults(model: ir.Model, node: ir.Node, before: int, after: int) -> bool:
    """Remove attributes that have their default meaning; refuse when one has another."""
    del model
    if node.op_type == "Resize" and min(before, after) < 11:
        return False
    for name, neutral in _ADDED.get(node.op_type, {}).items():
        found = node.attributes.get(name)
        if found is None or after > before:
            continue
        value: object = found.value  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        if isinstance(value, (list, tuple)):
            ones = list(value) == [1] * len(value)  # pyright: ignore[reportUnknownArgumentType]
            if neutral != "ones" or not ones:
                return False
        elif isinstance(neutral, str) and isinstance(value, str):
            if value not in neutral.split():
                return False
            if name == "mode":
                continue
        elif value != neutral:
            return False
        del node.attributes[name]
    return True


def _split(model: ir.Model, node: ir.Node, before: int, after: int) -> bool:
    """``num_outputs`` (18) to explicit sizes and back."""
    del before
    if after >= 18 and len(node.inputs) < 2 and "num_outputs" not in node.attributes:
        node.attributes["num_outputs"] = ir.AttrInt64("num_outputs", len(node.outputs))
        return True
    if after >= 18:
        return True
    if after < 13:
        return False
    if "num_outputs" in node.attributes:
        shapes = [v.shape for v in node.outputs]
        axis_attr = node.attributes.get("axis")
        axis = int(axis_attr.as_int()) if axis_attr is not None else 0
        sizes = [s[axis] if s is not None else None for s in shapes]
        if not all(isinstance(x, int) for x in sizes):
            return False
        array = np.array([x for x in sizes if isinstance(x, int)], np.int64)
        name = f"{node.outputs[0].name}_sizes"
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        model.graph.register_initializer(value)
        del node.attributes["num_outputs"]
        node.resize_inputs(2)
        node.replace_input_with(1, value)
    return True


def _reduction(model: ir.Model, node: ir.Node, before: int, after: int) -> bool:
    """``axes`` moved from an attribute (13) to an input (18)."""
    if before >= 18 and after < 18:
        axes = node.inputs[1] if len(node.inputs) > 1 else None
        if axes is None:
            return True
        array = constant(axes)
        if array is None:
            return False
        node.attributes["axes"] = ir.AttrInt64s("axes", [int(x) for x in array.reshape(-1)])
        node.resize_inputs(1)
        node.attributes.pop("noop_with_empty_axes", None)
        return True
    if before < 18 <= after:
        attribute = node.attributes.pop("axes", None)
        if attribute is None:
            return True
        name = f"{node.outputs[0].name}_axes"
        array = np.array(list(attribute.as_ints()), np.int64)
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        model.graph.register_initializer(value)
        node.resize_inputs(2)
        node.replace_input_with(1, value)
        return True
    return True


_BRIDGES: dict[str, Callable[[ir.Model, ir.Node, int, int], bool]] = {
    **dict.fromkeys(_ADDED, _drop_defaults),
    **dict.fromkeys(_REDUCTIONS, _reduction),
    "Split": _split,
}
