"""What TensorRT's parsers accept as explicit quantization, checked node by node.

Holds for TensorRT 8.5 to 11 and TensorRT-RTX; each rule was seen to be an error in one of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from adcompile.ir.graph import is_constant, opset
from adcompile.lower.scheme import WEIGHTED
from adcompile.lower.violations import (
    DQ,
    Q,
    Violation,
    input_format,
    is_qdq,
    qdq_nodes,
    read_format,
)

_CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1}
_AFTER = frozenset({"NonMaxSuppression", "TopK"})
_FP16_SCALES_FROM = 19


def violations(model: ir.Model) -> list[Violation]:
    """Every broken rule, in graph order."""
    found: list[Violation] = []
    version = opset(model)
    for node in qdq_nodes(model):
        found += _grid(node, version)
    for node in model.graph:
        if node.domain == "" and not is_qdq(node):
            found += _weights(node)
    return found


def _broken(rule: str, node: ir.Node, why: str) -> Violation:
    return Violation(rule, node.name or node.op_type, why)


def _grid(node: ir.Node, version: int) -> Iterator[Violation]:
    if node.domain:
        yield _broken("domain", node, f"domain {node.domain!r}, standard wanted")
    grid = read_format(node)
    if grid is None:
        yield _broken("constant-grid", node, "scale or zero point is not a constant")
        return
    if grid.zero_point.any():
        yield _broken("zero-point", node, "only 0 is supported")
    if grid.dtype == "int32":
        yield _broken("float-bias", node, "an int32 bias is a parse error; leave it in float")
    elif grid.dtype != "int8":
        yield _broken("type", node, f"{grid.dtype}, int8 wanted")
    if not grid.positive:
        yield _broken("positive-scale", node, "a scale is zero or negative")
    if grid.scale.dtype.name == "float16" and version < _FP16_SCALES_FROM:
        yield _broken("scale-type", node, "float16 scales need opset 19")
    if not grid.per_tensor and not is_constant(node.inputs[0]):
        yield _broken("per-tensor", node, "an activation has one scale")
    yield from _partners(node)


def _partners(node: ir.Node) -> Iterator[Violation]:
    for use in node.outputs[0].uses():
        if node.op_type == Q and not is_qdq(use.node, DQ):
            yield _broken("pair", node, f"read by {use.node.op_type}, not by a DequantizeLinear")
        elif node.op_type == DQ and use.node.op_type in _AFTER:
            yield _broken("float-selection", node, f"feeds {use.node.op_type}")


def _weights(node: ir.Node) -> Iterator[Violation]:
    """A quantized weight needs quantized data; bias is float."""
    if node.op_type not in WEIGHTED or len(node.inputs) < 2:
        return
    weight_index, bias_index = WEIGHTED[node.op_type]
    data, weight = input_format(node.inputs[0]), input_format(node.inputs[weight_index])
    if data is None and weight is not None:
        yield _broken("partly-quantized", node, "data in float")
    bias = node.inputs[bias_index] if 0 < bias_index < len(node.inputs) else None
    if bias is not None and input_format(bias) is not None:
        yield _broken("float-bias", node, "bias is quantized")
    wanted = _CHANNEL_AXIS.get(node.op_type)
    channels = weight is not None and not weight.per_tensor and wanted is not None
    if weight is not None and channels and weight.axis != wanted:
        yield _broken("channel-axis", node, f"axis {weight.axis}, {wanted} wanted")
