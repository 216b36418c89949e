"""The contract of quantized files for the Ryzen AI NPU, checked rule by rule.

XINT8 is AMD's power-of-two format; the limits between positions (``pos = -log2(scale)``) come from
the shifts the integer kernels can do. A8W8 and A16W8 are symmetric with free scales.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction

import onnx_ir as ir

from adcompile.backends.npu.approximate import (
    HARD_SIGMOID_SCALE,
    is_kernel_sigmoid,
    leaky_slope,
    pool_ratio,
    scalar_operand,
)
from adcompile.errors import UsageError
from adcompile.ir.graph import is_constant, static_shape
from adcompile.lower.scheme import WEIGHTED
from adcompile.lower.violations import (
    DQ,
    Format,
    Q,
    Violation,
    input_format,
    is_qdq,
    only_reader,
    output_format,
    qdq_nodes,
    quantizers_of,
    read_format,
)

_FOLLOWERS = frozenset({"Relu", "Clip", "LeakyRelu"})
_FUSED_PRODUCERS = frozenset({"Conv", "ConvTranspose", "Gemm", "Add"})
_SCALED = frozenset({"AveragePool", "GlobalAveragePool", "HardSigmoid"})
_SAME_POSITION = frozenset(
    {"Concat", "MaxPool", "AveragePool", "GlobalAveragePool", "Pad", "Slice"}
)
_SHIFTED = frozenset({"Conv", "ConvTranspose", "Gemm"})

Check = Callable[[ir.Node], Iterator[Violation]]


def violations(model: ir.Model, precision: str = "xint8") -> list[Violation]:
    """Every broken rule of *precision*'s dialect, in graph order. bf16 and fp32 have no rules."""
    if precision in ("bf16", "fp32"):
        return []
    if precision not in ("xint8", "a8w8", "a16w8"):
        raise UsageError(f"no dialect for precision {precision!r}")
    found = list(_static(model))
    for node in qdq_nodes(model):
        found += _grid(node) if precision == "xint8" else _free_grid(node, precision)
    checks = _XINT8 if precision == "xint8" else _INTEGER
    for node in model.graph:
        if node.domain == "" and not is_qdq(node):
            for check in checks:
                found += check(node)
    return found


def _broken(rule: str, node: ir.Node, why: str) -> Violation:
    return Violation(rule, node.name or node.op_type, why)


def _static(model: ir.Model) -> Iterator[Violation]:
    """The integer flow compiles fixed shapes and batch 1 only."""
    for value in model.graph.inputs:
        shape = static_shape(value)
        if shape is None:
            yield Violation("static-shape", value.name or "", "an input dimension is free")
        elif len(shape) == 4 and shape[0] != 1:
            yield Violation("batch-one", value.name or "", f"batch is {shape[0]}")


def _role(node: ir.Node) -> str:
    """``activation``, ``weight`` or ``bias``: what the Q or DQ node stores."""
    if node.op_type == Q or not is_constant(node.inputs[0]):
        return "activation"
    for use in node.outputs[0].uses():
        if use.node.op_type in WEIGHTED and use.idx == WEIGHTED[use.node.op_type][1]:
            return "bias"
    return "weight"


_XINT8_TYPES: dict[str, dict[str, int]] = {
    "activation": {"uint8": 128, "int8": 0},
    "weight": {"int8": 0, "uint8": 128},
    "bias": {"int8": 0},
}


def _grid(node: ir.Node) -> Iterator[Violation]:
    """Rule 1: one power-of-two scale, the zero point of the type, standard domain."""
    if node.domain:
        yield _broken("domain", node, f"domain {node.domain!r}, standard wanted")
    grid = read_format(node)
    if grid is None:
        yield _broken("constant-grid", node, "scale or zero point is not a constant")
        return
    if not grid.per_tensor:
        yield _broken("per-tensor", node, f"{grid.scale.size} scales, one wanted")
    elif grid.position is None:
        yield _broken("power-of-two", node, f"scale {grid.step!r} is no power of two")
    role = _role(node)
    allowed = _XINT8_TYPES[role]
    if grid.dtype not in allowed:
        yield _broken("type", node, f"{role} stored as {grid.dtype}; allowed: {sorted(allowed)}")
    elif (grid.zero_point != allowed[grid.dtype]).any():
        zero = grid.zero_point.reshape(-1)[0]
        yield _broken("zero-point", node, f"{zero}, wanted {allowed[grid.dtype]}")


_FREE_TYPES = {"a8w8": ("int8",), "a16w8": ("int16",)}


def _free_grid(node: ir.Node, precision: str) -> Iterator[Violation]:
    """A8W8, A16W8: Microsoft domain, symmetric, one scale; int32 bias."""
    if node.domain != "com.microsoft":
        yield _broken("domain", node, "com.microsoft wanted")
    grid = read_format(node)
    if grid is None:
        yield _broken("constant-grid", node, "scale or zero point is not a constant")
        return
    if not grid.per_tensor:
        yield _broken("per-tensor", node, f"{grid.scale.size} scales, one wanted")
    if grid.zero_point.any():
        yield _broken("zero-point", node, "0 wanted")
    role = _role(node)
    activation = _FREE_TYPES[precision]
    allowed = {"activation": activation, "weight": ("int8", *activation), "bias": ("int32",)}
    if grid.dtype not in allowed[role]:
        wanted = " or ".join(allowed[role])
        yield _broken("type", node, f"{role} stored as {grid.dtype}, {wanted} wanted")


def _final(node: ir.Node) -> ir.Value:
    """The output of the kernel that *node* starts: past a fused activation or scaling."""
    value = node.outputs[0]
    follower = only_reader(value)
    if follower is None or follower.domain:
        return value
    fused = node.op_type in _FUSED_PRODUCERS and follower.op_type in _FOLLOWERS
    scaled = (
        node.op_type in _SCALED
        and follower.op_type == "Mul"
        and scalar_operand(follower) is not None
    )
    return follower.outputs[0] if fused or scaled else value


def _data_formats(node: ir.Node) -> list[Format]:
    formats = (input_format(v) for v in node.inputs if v is not None and not is_constant(v))
    return [f for f in formats if f is not None]


def _complete(node: ir.Node) -> Iterator[Violation]:
    """A weighted op has all of data, weight and bias quantized, or none."""
    if node.op_type not in WEIGHTED:
        return
    weight, bias = WEIGHTED[node.op_type]
    names = [("data", 0), ("weight", weight)] + ([("bias", bias)] if bias > 0 else [])
    present = [(n, node.inputs[i]) for n, i in names if i < len(node.inputs) and node.inputs[i]]
    state = {name: input_format(value) is not None for name, value in present}
    if not any(on for name, on in state.items() if name != "data"):
        return  # a float op behind quantized ones
    if len(set(state.values())) > 1:
        missing = ", ".join(n for n, quantized in state.items() if not quantized)
        yield _broken("partly-quantized", node, f"{missing} in float")


def _is_quantized(node: ir.Node) -> bool:
    """True when a kernel of the NPU computes *node*: its weight, or else its data, is quantized."""
    index = WEIGHTED[node.op_type][0] if node.op_type in WEIGHTED else 0
    return index < len(node.inputs) and input_format(node.inputs[index]) is not None


def _fusion(node: ir.Node) -> Iterator[Violation]:
    """Rule 6: nothing between Conv or Add and its activation."""
    if node.op_type not in _FOLLOWERS or node.inputs[0] is None:
        return
    restore = node.inputs[0].producer()
    if not is_qdq(restore, DQ) or restore is None:
        return
    source = restore.inputs[0].producer() if restore.inputs[0] is not None else None
    made = source.inputs[0].producer() if source is not None and source.inputs[0] else None
    if not is_qdq(source, Q) or made is None or made.op_type not in _FUSED_PRODUCERS:
        return
    if not _is_quantized(made):
        return
    if len(list(made.outputs[0].uses())) == 1 and len(list(restore.outputs[0].uses())) == 1:
        yield _broken("fused-activation", node, f"Q/DQ between it and {made.op_type} {made.name}")


def _shifts(node: ir.Node) -> Iterator[Violation]:
    """Rule 2: the accumulator's shift to the output, and the bias's shift to the accumulator."""
    if node.op_type not in _SHIFTED:
        return
    data, weight = input_format(node.inputs[0]), input_format(node.inputs[1])
    final = _final(node)
    out = output_format(final)
    if data is None or weight is None or out is None:
        return
    ipos, wpos, opos = data.position, weight.position, out.position
    if ipos is None or wpos is None or opos is None:
        return
    cut = wpos + ipos - opos
    if not 0 <= cut <= 16:
        yield _broken("shift-cut", node, f"{cut} is outside 0 … 16")
    bias = input_format(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is None or bias.position is None:
        return
    leaky = (producer := final.producer()) is not None and producer.op_type == "LeakyRelu"
    low = 0 if leaky else min(0, -(24 - (8 + cut)))
    shift = wpos + ipos - bias.position
    if not low <= shift <= 15:
        yield _broken("shift-bias", node, f"{shift} is outside {low} … 15")


def _sums(node: ir.Node) -> Iterator[Violation]:
    """Rule 3, Add and Sub: inputs within 7 positions of each other, result within reach."""
    if node.op_type not in ("Add", "Sub"):
        return
    positions = _positions(node)
    out = output_format(_final(node))
    if len(positions) < 2:
        return
    if max(positions) - min(positions) > 7:
        yield _broken("add-inputs", node, f"positions {positions} are more than 7 apart")
    if out is not None and out.position is not None:
        shift = min(positions) - out.position
        if not -7 <= shift <= 25:
            yield _broken("add-output", node, f"shift {shift} is outside -7 … 25")


def _positions(node: ir.Node) -> list[int]:
    formats = [input_format(v) for v in node.inputs if v is not None]
    return [f.position for f in formats if f is not None and f.position is not None]


def is_swish(node: ir.Node) -> bool:
    """True for ``x * hard_sigmoid(x)``, which has a kernel with a narrower shift."""
    for value in node.inputs:
        made: ir.Node | None = value.producer() if value is not None else None
        while made is not None and (is_qdq(made) or made.op_type == "Mul"):
            if made.op_type == "Mul" and scalar_operand(made) is None:
                break
            first = made.inputs[0]
            made = first.producer() if first is not None else None
        if made is not None and made.op_type == "HardSigmoid":
            return True
    return False


def _products(node: ir.Node) -> Iterator[Violation]:
    """Rule 3, Mul: the product's shift to the output."""
    if node.op_type != "Mul":
        return
    positions = _positions(node)
    out = output_format(node.outputs[0])
    if len(positions) != 2 or out is None or out.position is None:
        return
    shift, high = sum(positions) - out.position, 15 if is_swish(node) else 32
    if not 0 <= shift <= high:
        yield _broken("mul-shift", node, f"{shift} is outside 0 … {high}")


def _aligned(node: ir.Node) -> Iterator[Violation]:
    """Rule 4: ops that only move or average values keep their position."""
    if node.op_type not in _SAME_POSITION:
        return
    grids = [*_data_formats(node)]
    out = output_format(_final(node))
    if out is None or not grids:
        return
    found = sorted({f"{g.step!r}" for g in (*grids, out)})
    if len(found) > 1:
        yield _broken("same-position", node, f"scales {', '.join(found)} in and out")


def _hard_sigmoid(node: ir.Node) -> Iterator[Violation]:
    """Rule 5."""
    if node.op_type != "HardSigmoid":
        return
    data, out = input_format(node.inputs[0]), output_format(_final(node))
    if data is None or out is None or data.position is None or out.position is None:
        return
    ipos, opos = data.position, out.position
    if not 0 <= ipos <= 15:
        yield _broken("hard-sigmoid", node, f"input position {ipos} is outside 0 … 15")
    if opos < 7:
        yield _broken("hard-sigmoid", node, f"output position {opos} is below 7")
    if not 0 <= 14 + ipos - opos <= 31:
        yield _broken("hard-sigmoid", node, f"shift {14 + ipos - opos} is outside 0 … 31")


def _approximations(node: ir.Node) -> Iterator[Violation]:
    """Rule 7: the file computes what the kernels compute."""
    quantized = bool(_data_formats(node))
    if not quantized and not quantizers_of(_final(node)):
        return
    if node.op_type == "Sigmoid":
        yield _broken("sigmoid", node, "the kernel is HardSigmoid times a constant")
    elif node.op_type == "LeakyRelu":
        found = node.attributes.get("alpha")
        alpha = float(found.as_float()) if found is not None else 0.01
        if abs(alpha - leaky_slope(alpha)) > 1e-7:
            yield _broken("leaky-slope", node, f"alpha {alpha} is no multiple of 1/256")
    elif node.op_type in _SCALED and (node.op_type != "HardSigmoid" or is_kernel_sigmoid(node)):
        yield from _scaling(node)


def _scaling(node: ir.Node) -> Iterator[Violation]:
    wanted = HARD_SIGMOID_SCALE if node.op_type == "HardSigmoid" else pool_ratio(node)
    follower = only_reader(node.outputs[0])
    scale = scalar_operand(follower) if follower is not None else None
    if follower is None or follower.op_type != "Mul":
        scale = None
    if scale is None and wanted in (None, Fraction(1)):
        return
    if wanted is None or scale is None or abs(scale - float(wanted)) > 1e-6:
        text = f"{float(wanted):.7g}" if wanted is not None else "unknown"
        yield _broken("kernel-scale", node, f"followed by Mul {scale}, wanted {text}")


def _bias_scale(node: ir.Node) -> Iterator[Violation]:
    """A8W8, A16W8: the int32 bias is on the accumulator's grid."""
    if node.op_type not in WEIGHTED or len(node.inputs) < 3:
        return
    data, weight, bias = (input_format(node.inputs[i]) for i in range(3))
    if data is None or weight is None or bias is None:
        return
    wanted = data.step * weight.step
    if abs(bias.step - wanted) > 1e-5 * wanted:
        yield _broken("bias-scale", node, f"{bias.step!r}, wanted {wanted!r}")


def _aligned_concat(node: ir.Node) -> Iterator[Violation]:
    if node.op_type == "Concat":
        yield from _aligned(node)


_XINT8: tuple[Check, ...] = (
    _complete,
    _fusion,
    _shifts,
    _sums,
    _products,
    _aligned,
    _hard_sigmoid,
    _approximations,
)
_INTEGER: tuple[Check, ...] = (_complete, _fusion, _bias_scale, _aligned_concat)
