"""The Q/DQ form of the DRP-AI quantizer's files (RZ/V2H, RZ/V2N), checked node by node.

Read off a file that the vendor's quantizer wrote: int8 activations with zero point 0, int8 weights per
output channel within 64 steps, int32 bias on the accumulator's grid, Q/DQ after every op.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from adcompile.ir.graph import is_constant, opset, static_shape
from adcompile.lower.scheme import WEIGHTED
from adcompile.lower.violations import (
    DQ,
    Violation,
    input_format,
    is_qdq,
    output_format,
    qdq_nodes,
    read_format,
    stored_constant,
)

OPSET, IR_VERSION = 13, 7
WEIGHT_LIMIT = 64
_ACTIVATIONS = frozenset({"Relu", "Clip", "LeakyRelu", "PRelu", "HardSigmoid", "Sigmoid", "Tanh"})
_CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1}


def violations(model: ir.Model) -> list[Violation]:
    """Every broken rule, in graph order."""
    found = list(_file(model))
    for node in qdq_nodes(model):
        found += _grid(node)
    for node in model.graph:
        if node.domain == "" and not is_qdq(node):
            for check in (_weighted, _ties, _between):
                found += check(node)
    return found


def _broken(rule: str, node: ir.Node, why: str) -> Violation:
    return Violation(rule, node.name or node.op_type, why)


def _file(model: ir.Model) -> Iterator[Violation]:
    if opset(model) != OPSET:
        yield Violation("opset", model.graph.name or "", f"{opset(model)}, {OPSET} wanted")
    if model.ir_version != IR_VERSION:
        yield Violation(
            "ir-version", model.graph.name or "", f"{model.ir_version}, {IR_VERSION} wanted"
        )
    for value in model.graph.inputs:
        shape = static_shape(value)
        if shape is None:
            yield Violation("static-shape", value.name or "", "a dimension is free")
        elif shape and shape[0] != 1:
            yield Violation("batch-one", value.name or "", f"batch is {shape[0]}")


def _is_bias(node: ir.Node) -> bool:
    return any(
        u.node.op_type in WEIGHTED and u.idx == WEIGHTED[u.node.op_type][1]
        for u in node.outputs[0].uses()
    )


def _grid(node: ir.Node) -> Iterator[Violation]:
    if node.domain:
        yield _broken("domain", node, f"domain {node.domain!r}, standard wanted")
    grid = read_format(node)
    if grid is None:
        yield _broken("constant-grid", node, "scale or zero point is not a constant")
        return
    if grid.zero_point.any():
        yield _broken("zero-point", node, "0 wanted")
    if not grid.positive:
        yield _broken("positive-scale", node, "a scale is zero or negative")
    constant_data = node.op_type == DQ and is_constant(node.inputs[0])
    bias = constant_data and _is_bias(node)
    wanted = "int32" if bias else "int8"
    if grid.dtype != wanted:
        yield _broken("type", node, f"{grid.dtype}, {wanted} wanted")
    if not constant_data and not grid.per_tensor:
        yield _broken("per-tensor", node, "an activation has one scale")


def _weighted(node: ir.Node) -> Iterator[Violation]:
    if node.op_type not in WEIGHTED or len(node.inputs) < 2:
        return
    weight_index, bias_index = WEIGHTED[node.op_type]
    data, weight = input_format(node.inputs[0]), input_format(node.inputs[weight_index])
    if data is None and weight is not None:
        yield _broken("partly-quantized", node, "data in float")
    if data is None or weight is None:
        return
    stored = stored_constant(node.inputs[weight_index])
    if stored is not None:
        peak = int(np.abs(stored.astype(np.int32)).max(initial=0))
        if peak > WEIGHT_LIMIT:
            yield _broken(
                "weight-range", node, f"weights reach {peak}, {WEIGHT_LIMIT} is the limit"
            )
        axis = _CHANNEL_AXIS.get(node.op_type)
        if axis is not None and stored.shape[axis] > 1 and weight.per_tensor:
            yield _broken("per-channel", node, "one scale for all output channels")
        elif axis is not None and not weight.per_tensor and weight.axis != axis:
            yield _broken("channel-axis", node, f"axis {weight.axis}, {axis} wanted")
    bias = node.inputs[bias_index] if 0 < bias_index < len(node.inputs) else None
    if bias is None:
        return
    grid = input_format(bias)
    if grid is None:
        yield _broken("partly-quantized", node, "bias in float")
        return
    wanted = data.step * weight.scale.reshape(-1).astype(np.float64)
    have = grid.scale.reshape(-1).astype(np.float64)
    if have.size not in (1, wanted.size) or not np.allclose(have, wanted, rtol=1e-5, atol=0.0):
        yield _broken("bias-scale", node, "not input scale times weight scale")


def _ties(node: ir.Node) -> Iterator[Violation]:
    if node.op_type == "Add":
        grids = [g for v in node.inputs if (g := input_format(v)) is not None]
        if len(grids) == 2 and not grids[0].same(grids[1]):
            yield _broken("tied-add", node, f"inputs have scales {grids[0].step}, {grids[1].step}")
    elif node.op_type == "MaxPool":
        data, out = input_format(node.inputs[0]), output_format(node.outputs[0])
        if data is not None and out is not None and not data.same(out):
            yield _broken("tied-pool", node, f"scales {data.step} in, {out.step} out")


def _between(node: ir.Node) -> Iterator[Violation]:
    """Q/DQ stands between a compute op and its activation, too."""
    if node.op_type not in _ACTIVATIONS or node.inputs[0] is None:
        return
    made = node.inputs[0].producer()
    if made is None or is_qdq(made, DQ) or made.op_type not in WEIGHTED | {"Add": (0, 0)}:
        return
    index = WEIGHTED[made.op_type][0] if made.op_type in WEIGHTED else 0
    quantized = input_format(made.inputs[index]) is not None
    if quantized:
        yield _broken("between", node, f"no Q/DQ between {made.op_type} {made.name} and it")
