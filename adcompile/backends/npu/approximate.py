"""What the NPU's XINT8 kernels compute where they differ from ONNX, written as ONNX.

A file in this form gives on the CPU the numbers of the device: Sigmoid is a scaled HardSigmoid,
LeakyRelu's slope is a multiple of 1/256, an average divides by a fraction k / 2**n.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import onnx_ir as ir

from adcompile.interfaces import Exactness, Report
from adcompile.ir.constants import add_constant
from adcompile.ir.graph import constant, set_provenance, static_shape

HARD_SIGMOID_SCALE = Fraction(2731 * 6, 16384)
HARD_SIGMOID_ALPHA = 1.0 / 6.0
MAX_WINDOW = 255
# windows whose fraction the kernel library fixes; others follow the general search
_FIXED_AREAS = {
    (3, 3): Fraction(63, 64),
    (5, 5): Fraction(250, 256),
    (6, 6): Fraction(252, 256),
    (7, 7): Fraction(1029, 1024),
    (14, 14): Fraction(4116, 4096),
}
RULE = "npu-kernels"


def scalar_operand(node: ir.Node) -> float | None:
    """The one-element constant operand of a two-input op."""
    if len(node.inputs) != 2:
        return None
    for value in node.inputs:
        array = constant(value)
        if array is not None and array.size == 1:
            return float(array.reshape(-1)[0])
    return None


def is_kernel_sigmoid(node: ir.Node) -> bool:
    """True for the HardSigmoid that stands for a Sigmoid: slope 1/6, offset 1/2."""
    alpha, beta = node.attributes.get("alpha"), node.attributes.get("beta")
    slope = float(alpha.as_float()) if alpha is not None else 0.2
    offset = float(beta.as_float()) if beta is not None else 0.5
    return abs(slope - HARD_SIGMOID_ALPHA) < 1e-6 and offset == 0.5


def leaky_slope(alpha: float) -> float:
    """The nearest multiple of 1/256."""
    return float(np.rint(alpha * 256.0)) / 256.0


def area_ratio(height: int, width: int) -> Fraction:
    """The area times the kernel's fraction k / 2**n for dividing by it.

    Fixed for common windows; otherwise the closest fraction with at most seven bits more than the
    area has, the shortest of equals. Windows over 255 are averaged exactly.
    """
    if max(height, width) > MAX_WINDOW:
        return Fraction(1)
    fixed = _FIXED_AREAS.get((height, width))
    if fixed is not None:
        return fixed
    area = height * width
    bits = 7 + (area - 1).bit_length()
    fractions = [Fraction(round(Fraction(1 << n, area)), 1 << n) for n in range(bits)]
    return min(fractions, key=lambda f: abs(f - Fraction(1, area))) * area


def pool_ratio(node: ir.Node) -> Fraction | None:
    """The factor between the kernel's average and the exact one; None when the window is unknown."""
    if node.op_type == "GlobalAveragePool":
        shape = static_shape(node.inputs[0])
        return area_ratio(shape[2], shape[3]) if shape is not None and len(shape) == 4 else None
    if node.op_type == "AveragePool":
        found = node.attributes.get("kernel_shape")
        kernel = [int(x) for x in found.as_ints()] if found is not None else []
        return area_ratio(kernel[0], kernel[1]) if len(kernel) == 2 else None
    return None


def approximate_kernels(
    model: ir.Model, ops: frozenset[str], floats: frozenset[str], report: Report
) -> bool:
    """Rewrite *model* in place; records every change.

    *ops* are the quantized op types, *floats* the names of nodes that stay in float.
    """
    changed = False
    for node in list(model.graph):
        rewrite = _REWRITES.get(node.op_type) if node.domain == "" else None
        if rewrite is None or node.op_type not in ops or node.name in floats:
            continue
        detail = rewrite(model.graph, node)
        if detail:
            report.applied(RULE, node.name or node.op_type, Exactness.QUANTIZED, detail)
            changed = True
    return changed


def _sigmoid(graph: ir.Graph, node: ir.Node) -> str:
    attributes = [ir.AttrFloat32("alpha", HARD_SIGMOID_ALPHA), ir.AttrFloat32("beta", 0.5)]
    hard = ir.Node("", "HardSigmoid", [node.inputs[0]], attributes, name=node.name)
    _name_like(hard, node)
    graph.insert_before(node, hard)
    set_provenance(hard, [node], RULE)
    _scale_after(graph, hard, node, HARD_SIGMOID_SCALE)
    return "Sigmoid as HardSigmoid x 1.0001221"


def _name_like(new: ir.Node, old: ir.Node) -> None:
    value = new.outputs[0]
    value.name = f"{old.outputs[0].name}_unscaled"
    value.type = old.outputs[0].type
    value.shape = old.outputs[0].shape


def _hard_sigmoid(graph: ir.Graph, node: ir.Node) -> str:
    follower = list(node.outputs[0].uses())
    scaled = len(follower) == 1 and scalar_operand(follower[0].node) is not None
    if not is_kernel_sigmoid(node) or (scaled and follower[0].node.op_type == "Mul"):
        return ""
    copy = ir.Node("", node.op_type, node.inputs, list(node.attributes.values()), name=node.name)
    _name_like(copy, node)
    graph.insert_before(node, copy)
    set_provenance(copy, [node], RULE)
    _scale_after(graph, copy, node, HARD_SIGMOID_SCALE)
    return "HardSigmoid x 1.0001221"


def _leaky(graph: ir.Graph, node: ir.Node) -> str:
    del graph
    found = node.attributes.get("alpha")
    alpha = float(found.as_float()) if found is not None else 0.01
    slope = leaky_slope(alpha)
    if slope == alpha:
        return ""
    node.attributes["alpha"] = ir.AttrFloat32("alpha", slope)
    return f"slope {alpha:.6g} to {slope:.6g}"


def _average(graph: ir.Graph, node: ir.Node) -> str:
    ratio = pool_ratio(node)
    if ratio is None or ratio == 1:
        return ""
    copy = ir.Node("", node.op_type, node.inputs, list(node.attributes.values()), name=node.name)
    _name_like(copy, node)
    graph.insert_before(node, copy)
    set_provenance(copy, [node], RULE)
    _scale_after(graph, copy, node, ratio)
    return f"average times {float(ratio):.7g}"


def _scale_after(graph: ir.Graph, made: ir.Node, old: ir.Node, factor: Fraction) -> None:
    """Replace *old* by a Mul of *made*'s result."""
    name = f"{old.outputs[0].name}_kernel_scale"
    scale = add_constant(graph, name, np.asarray(float(factor), np.float32))
    mul = ir.Node("", "Mul", [made.outputs[0], scale], name=f"{old.name}_scale")
    set_provenance(mul, [old], RULE)
    graph.insert_before(old, mul)
    result, before = mul.outputs[0], old.outputs[0]
    result.name, result.type, result.shape = before.name, before.type, before.shape
    before.replace_all_uses_with(result, replace_graph_outputs=True)
    graph.remove(old, safe=True)


_REWRITES = {
    "Sigmoid": _sigmoid,
    "HardSigmoid": _hard_sigmoid,
    "LeakyRelu": _leaky,
    "AveragePool": _average,
    "GlobalAveragePool": _average,
}
