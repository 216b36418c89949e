"""Shapes through operators, with open dimensions as symbols: transfer functions for ``Flow``."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from adcompile.ir.attributes import int_of, ints_of
from adcompile.ir.dataflow import Dims, Flow, Info, Transfer, same
from adcompile.ir.symbols import Elem

SAME_AS_FIRST = [
    "Abs",
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BatchNormalization",
    "Bernoulli",
    "BitwiseNot",
    "Cast",
    "CastLike",
    "Ceil",
    "Celu",
    "Clip",
    "Cos",
    "Cosh",
    "CumSum",
    "DequantizeLinear",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "GroupNormalization",
    "HardSigmoid",
    "HardSwish",
    "Hardmax",
    "Identity",
    "InstanceNormalization",
    "IsInf",
    "IsNaN",
    "LRN",
    "LayerNormalization",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "LpNormalization",
    "MeanVarianceNormalization",
    "Mish",
    "Neg",
    "Not",
    "QuantizeLinear",
    "Reciprocal",
    "Relu",
    "Round",
    "ScatterElements",
    "ScatterND",
    "Scatter",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softmax",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "Trilu",
]

BROADCAST = [
    "Add",
    "And",
    "BitShift",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Mean",
    "Min",
    "Mod",
    "Mul",
    "Or",
    "PRelu",
    "Pow",
    "Sub",
    "Sum",
    "Where",
    "Xor",
]

REDUCE = [
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
]

SPATIAL = [
    "AveragePool",
    "Conv",
    "ConvTranspose",
    "LpPool",
    "MaxPool",
    "MaxUnpool",
    "ConvInteger",
    "QLinearConv",
]


def axes_of(flow: Flow, node: ir.Node, index: int = 1) -> list[int] | None:
    """The ``axes`` of a node, from its attribute (old opsets) or its input; None when unknown."""
    given = ints_of(node, "axes")
    if given is not None:
        return list(given)
    if index < len(node.inputs) and node.inputs[index] is not None:
        return flow.numbers(node.inputs[index])
    return []


def broadcast(shapes: Sequence[Dims | None], owner: ir.Value, flow: Flow) -> Dims | None:
    """The broadcast of several shapes; a dimension that cannot be decided is a new symbol."""
    known = [shape for shape in shapes if shape is not None]
    if len(known) != len(shapes) or not known:
        return None
    size = max(map(len, known))
    result: list[Elem] = []
    for axis in range(size):
        place = axis - size
        dims = [s[place] for s in known if len(s) >= -place]
        result.append(_joined(dims, owner, axis, flow))
    return tuple(result)


def _joined(dims: Sequence[Elem], owner: ir.Value, axis: int, flow: Flow) -> Elem:
    others = [d for d in dims if not (isinstance(d, int) and d == 1)]
    if not others:
        return 1
    number = next((d for d in others if isinstance(d, int)), None)
    if number is not None:
        return number
    return others[0] if all(d is others[0] for d in others) else flow.symbols.dim(owner, axis)


def _first(flow: Flow, node: ir.Node) -> list[Info]:
    return [Info(flow.shape(node.inputs[0]))]


def _broadcast(flow: Flow, node: ir.Node) -> list[Info]:
    shapes = [flow.shape(v) for v in node.inputs]
    return [Info(broadcast(shapes, node.outputs[0], flow))]


def _reduce(flow: Flow, node: ir.Node) -> list[Info] | None:
    shape, axes = flow.shape(node.inputs[0]), axes_of(flow, node)
    if shape is None or axes is None:
        return None
    if not axes and int_of(node, "noop_with_empty_axes"):
        return [Info(shape)]
    chosen = {a % len(shape) for a in axes} if axes else set(range(len(shape)))
    return [Info(_reduced(shape, chosen, bool(int_of(node, "keepdims", 1))))]


def _reduced(shape: Dims, axes: set[int], keep: bool) -> Dims:
    if keep:
        return tuple(1 if i in axes else d for i, d in enumerate(shape))
    return tuple(d for i, d in enumerate(shape) if i not in axes)


def _arg(flow: Flow, node: ir.Node) -> list[Info] | None:
    shape = flow.shape(node.inputs[0])
    if not shape:
        return None
    axis = int_of(node, "axis") % len(shape)
    return [Info(_reduced(shape, {axis}, bool(int_of(node, "keepdims", 1))))]


def _spatial(flow: Flow, node: ir.Node) -> list[Info] | None:
    """Batch from the data; channels from the weight; the rest as inferred by ONNX."""
    data, declared = flow.shape(node.inputs[0]), flow.declared(node.outputs[0])
    if data is None or declared is None or len(declared) != len(data):
        return None
    return [Info((data[0], *declared[1:]))] * len(node.outputs)


def _matmul(flow: Flow, node: ir.Node) -> list[Info] | None:
    a, b = flow.shape(node.inputs[0]), flow.shape(node.inputs[1])
    if a is None or b is None or len(a) < 2 or len(b) < 2:
        return None
    batch = broadcast([a[:-2], b[:-2]], node.outputs[0], flow)
    return None if batch is None else [Info((*batch, a[-2], b[-1]))]


def _gemm(flow: Flow, node: ir.Node) -> list[Info] | None:
    a, b = flow.shape(node.inputs[0]), flow.shape(node.inputs[1])
    if a is None or b is None or len(a) != 2 or len(b) != 2:
        return None
    return [Info((a[1 if int_of(node, "transA") else 0], b[0 if int_of(node, "transB") else 1]))]


def _roi_align(flow: Flow, node: ir.Node) -> list[Info] | None:
    data, rois = flow.shape(node.inputs[0]), flow.shape(node.inputs[1])
    if not data or not rois or len(data) != 4:
        return None
    size = (int_of(node, "output_height", 1), int_of(node, "output_width", 1))
    return [Info((rois[0], data[1], *size))]


def _non_zero(flow: Flow, node: ir.Node) -> list[Info] | None:
    data = flow.shape(node.inputs[0])
    return None if data is None else [Info((len(data), flow.symbols.dim(node.outputs[0], 1)))]


def _nms(flow: Flow, node: ir.Node) -> list[Info]:
    return [Info((flow.symbols.dim(node.outputs[0], 0), 3))]


def _top_k(flow: Flow, node: ir.Node) -> list[Info] | None:
    data = flow.shape(node.inputs[0])
    if not data or len(node.inputs) < 2:
        return None
    count = flow.content(node.inputs[1])
    axis = int_of(node, "axis", -1) % len(data)
    size = count.ravel()[0] if count is not None and count.size else None
    if size is None:
        size = flow.symbols.dim(node.outputs[0], axis)
    return [Info((*data[:axis], size, *data[axis + 1 :]))] * 2


def _gather_elements(flow: Flow, node: ir.Node) -> list[Info]:
    return [Info(flow.shape(node.inputs[1]))]


def _gather_nd(flow: Flow, node: ir.Node) -> list[Info] | None:
    data, index = flow.shape(node.inputs[0]), flow.shape(node.inputs[1])
    batch = int_of(node, "batch_dims")
    if data is None or not index or not isinstance(index[-1], int):
        return None
    return [Info((*index[:-1], *data[batch + index[-1] :]))]


def _resize(flow: Flow, node: ir.Node) -> list[Info] | None:
    sizes = flow.content(node.inputs[3]) if len(node.inputs) > 3 else None
    plain = "axes" not in node.attributes and "keep_aspect_ratio_policy" not in node.attributes
    return [Info(tuple(sizes.tolist()))] if sizes is not None and plain else None


def _pad(flow: Flow, node: ir.Node) -> list[Info] | None:
    shape = flow.shape(node.inputs[0])
    given = ints_of(node, "pads")
    pads = list(given) if given is not None else None
    if pads is None and len(node.inputs) > 1:
        pads = flow.numbers(node.inputs[1])
    if shape is None or pads is None:
        return None
    axes = list(range(len(shape)))
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        chosen = flow.numbers(node.inputs[3])
        if chosen is None:
            return None
        axes = [a % len(shape) for a in chosen]
    if len(pads) != 2 * len(axes):
        return None
    result = list(shape)
    for i, axis in enumerate(axes):
        total = pads[i] + pads[i + len(axes)]
        grown = flow.symbols.add(shape[axis], total) if total else shape[axis]
        result[axis] = flow.symbols.dim(node.outputs[0], axis) if grown is None else grown
    return [Info(tuple(result))]


def _if(flow: Flow, node: ir.Node) -> list[Info] | None:
    branches = [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]
    if len(branches) != 2:
        return None
    results: list[Info] = []
    for owner, one, two in zip(
        node.outputs, branches[0].outputs, branches[1].outputs, strict=False
    ):
        a, b = flow.shape(one), flow.shape(two)
        if a is None or b is None or len(a) != len(b):
            results.append(Info())
            continue
        dims = [
            x if same((x,), (y,)) else flow.symbols.dim(owner, i)
            for i, (x, y) in enumerate(zip(a, b, strict=True))
        ]
        results.append(Info(tuple(dims)))
    return results


SHAPES: dict[str, Transfer] = {
    **dict.fromkeys(SAME_AS_FIRST, _first),
    **dict.fromkeys(BROADCAST, _broadcast),
    **dict.fromkeys(REDUCE, _reduce),
    **dict.fromkeys(SPATIAL, _spatial),
    "ArgMax": _arg,
    "ArgMin": _arg,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "RoiAlign": _roi_align,
    "NonZero": _non_zero,
    "NonMaxSuppression": _nms,
    "TopK": _top_k,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Resize": _resize,
    "Pad": _pad,
    "If": _if,
}
