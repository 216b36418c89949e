"""Which values count regions of interest along axis 0, and which nodes treat those rows alone.

A detector's box and mask heads see as many rows as there are proposals in the image. Their row
count depends on the data, everything else about them is static, and every row is computed by
itself. Such a head can run on a device row by row or in fixed batches, so the support checks accept
a free leading dimension exactly where this analysis says that it counts regions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet

import onnx_ir as ir

from adcompile.ir.graph import constant, rank

Rows = AbstractSet[str]
_Rule = Callable[[ir.Node, Rows], bool]

ROI_OPS = frozenset({"RoiAlign", "MaxRoiPool", "MultiScaleRoiAlign"})

# Not row by row, but what comes out is again rows: op -> inputs that carry the data
_REGATHER: Mapping[str, tuple[int, ...]] = {
    "ScatterElements": (0, 2),
    "ScatterND": (0, 2),
    "Gather": (0,),
    "GatherND": (0,),
    "Slice": (0,),
    "Compress": (0,),
    "Where": (1, 2),
    "Concat": tuple(range(64)),
    "Pad": (0,),
}


def roi_rows(nodes: Iterable[ir.Node]) -> frozenset[str]:
    """Names of the values whose axis 0 counts regions of interest. *nodes* in execution order."""
    found: set[str] = set()
    for node in nodes:
        if node.op_type in ROI_OPS or _carries_rows(node, found):
            found.update(out.name for out in node.outputs if out.name)
    return frozenset(found)


def _carries_rows(node: ir.Node, rows: Rows) -> bool:
    if not any(_in(value, rows) for value in node.inputs):
        return False
    if is_rowwise(node, rows):
        return True
    places = _REGATHER.get(node.op_type, ()) if node.domain == "" else ()
    if not any(_in(node.inputs[i], rows) for i in places if i < len(node.inputs)):
        return False
    shape = node.outputs[0].shape
    return (
        shape is not None
        and len(shape) >= 2
        and not isinstance(shape.dims[0], int)
        and all(isinstance(d, int) for d in shape.dims[1:])
    )


def is_rowwise(node: ir.Node, rows: Rows) -> bool:
    """True when the node computes every row of its inputs by itself and keeps their order."""
    rule = _ROWWISE.get(node.op_type) if node.domain == "" else None
    return rule is not None and rule(node, rows)


def _in(value: ir.Value | None, rows: Rows) -> bool:
    return value is not None and value.name is not None and value.name in rows


def _elementwise(node: ir.Node, rows: Rows) -> bool:
    out = rank(node.outputs[0])
    if out is None or out == 0:
        return False
    for value in node.inputs:
        if value is None:
            continue
        if _in(value, rows):
            if rank(value) != out:
                return False
        elif not _same_for_every_row(value, out):
            return False
    return True


def _same_for_every_row(value: ir.Value, out_rank: int) -> bool:
    shape = value.shape
    return shape is not None and (len(shape) < out_rank or shape.dims[0] == 1)


def _data_first(node: ir.Node, rows: Rows) -> bool:
    """Only input 0 has rows; the others are parameters."""
    return _in(node.inputs[0], rows) and not any(_in(v, rows) for v in node.inputs[1:])


def _gemm(node: ir.Node, rows: Rows) -> bool:
    if not _data_first(node, rows) or _int(node, "transA", 0) != 0:
        return False
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return bias is None or _same_for_every_row(bias, 2)


def _matmul(node: ir.Node, rows: Rows) -> bool:
    left, right = rank(node.inputs[0]), rank(node.inputs[1])
    if not _data_first(node, rows) or left is None or right is None:
        return False
    return left >= 2 and right <= 2


def _axis_behind_rows(default: int) -> _Rule:
    def rule(node: ir.Node, rows: Rows) -> bool:
        size = rank(node.inputs[0])
        if size is None or not _data_first(node, rows):
            return False
        axis = _int(node, "axis", default)
        return (axis + size if axis < 0 else axis) >= 1

    return rule


def _flatten(node: ir.Node, rows: Rows) -> bool:
    return _data_first(node, rows) and _int(node, "axis", 1) == 1


def _transpose(node: ir.Node, rows: Rows) -> bool:
    perm = _ints(node, "perm")
    return _data_first(node, rows) and perm is not None and perm[:1] == [0]


def _concat(node: ir.Node, rows: Rows) -> bool:
    size = rank(node.outputs[0])
    axis = _int(node, "axis", 0)
    if size is None or not all(_in(value, rows) for value in node.inputs):
        return False
    return (axis + size if axis < 0 else axis) >= 1


def _reshape(node: ir.Node, rows: Rows) -> bool:
    target, shape = _const_ints(node, 1), node.inputs[0].shape if node.inputs[0] else None
    if target is None or shape is None or not target or not _data_first(node, rows):
        return False
    per_row = [d for d in shape.dims[1:] if isinstance(d, int)]
    if len(per_row) != len(shape.dims) - 1:
        return False
    if target[0] == 0 and _int(node, "allowzero", 0) == 0:
        return True
    rest = target[1:]
    same_size = all(d > 0 for d in rest) and math.prod(rest) == math.prod(per_row)
    return same_size and target[0] in {-1, shape.dims[0]}


def _axes_behind_rows(node: ir.Node, rows: Rows) -> bool:
    """Reductions, Squeeze, Unsqueeze: no listed axis is 0, and "all axes" is refused."""
    size = rank(node.outputs[0] if node.op_type == "Unsqueeze" else node.inputs[0])
    axes = _ints(node, "axes")
    if axes is None:
        axes = _const_ints(node, 1)
    if size is None or not axes or not _data_first(node, rows):
        return False
    return all((a + size if a < 0 else a) >= 1 for a in axes)


def _slice(node: ir.Node, rows: Rows) -> bool:
    size, axes = rank(node.inputs[0]), _ints(node, "axes")
    if axes is None:
        axes = _const_ints(node, 3)
    if size is None or axes is None or not _data_first(node, rows):
        return False
    return all((a + size if a < 0 else a) >= 1 for a in axes)


def _pad(node: ir.Node, rows: Rows) -> bool:
    size = rank(node.inputs[0])
    pads = _ints(node, "pads")
    if pads is None:
        pads = _const_ints(node, 1)
    axes = _const_ints(node, 3)
    if size is None or pads is None or not _data_first(node, rows):
        return False
    padded = axes if axes is not None else list(range(size))
    begin, end = pads[: len(padded)], pads[len(padded) :]
    return all(
        (a + size if a < 0 else a) >= 1 or (b == 0 and e == 0)
        for a, b, e in zip(padded, begin, end, strict=False)
    )


def _resize(node: ir.Node, rows: Rows) -> bool:
    """Scale 1 along the rows, or sizes for later axes only (opset 18 ``axes``)."""
    axes = _ints(node, "axes")
    if not _data_first(node, rows):
        return False
    if axes is not None:
        return 0 not in axes and -(rank(node.inputs[0]) or 0) not in axes
    place = 1 if node.op_type == "Upsample" else 2
    scales = constant(node.inputs[place]) if len(node.inputs) > place else None
    return scales is not None and scales.size > 0 and float(scales.reshape(-1)[0]) == 1.0


def _tile(node: ir.Node, rows: Rows) -> bool:
    repeats = _const_ints(node, 1)
    return _data_first(node, rows) and repeats is not None and repeats[:1] == [1]


def _per_tensor(node: ir.Node, rows: Rows) -> bool:
    size = rank(node.inputs[1])
    return _data_first(node, rows) and (size == 0 or _int(node, "axis", 1) != 0)


def _int(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    value = attribute.value if attribute is not None else default
    return value if isinstance(value, int) else default


def _ints(node: ir.Node, name: str) -> list[int] | None:
    attribute = node.attributes.get(name)
    return list(attribute.as_ints()) if attribute is not None else None


def _const_ints(node: ir.Node, place: int) -> list[int] | None:
    array = constant(node.inputs[place]) if len(node.inputs) > place else None
    return [int(x) for x in array.reshape(-1)] if array is not None else None


_POINTWISE = """Abs Acos Acosh Add And Asin Asinh Atan Atanh Cast Ceil Celu Clip Cos Cosh Div Elu
Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu
Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Shrink
Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Tan Tanh ThresholdedRelu Where Xor"""
_PER_IMAGE = """AveragePool BatchNormalization Conv ConvTranspose DepthToSpace Dropout
GlobalAveragePool GlobalMaxPool GroupNormalization InstanceNormalization LRN LpPool MaxPool
SpaceToDepth"""
_REDUCTIONS = """ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
ReduceProd ReduceSum ReduceSumSquare Squeeze Unsqueeze"""

_ROWWISE: Mapping[str, _Rule] = {
    **dict.fromkeys(_POINTWISE.split(), _elementwise),
    **dict.fromkeys(_PER_IMAGE.split(), _data_first),
    **dict.fromkeys(_REDUCTIONS.split(), _axes_behind_rows),
    **dict.fromkeys(
        ("Softmax", "LogSoftmax", "Hardmax", "LayerNormalization"), _axis_behind_rows(-1)
    ),
    **dict.fromkeys(("ArgMax", "ArgMin", "Split", "Gather"), _axis_behind_rows(0)),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), _per_tensor),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    "TopK": _axis_behind_rows(-1),
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Concat": _concat,
    "Reshape": _reshape,
    "Slice": _slice,
    "Pad": _pad,
    "Tile": _tile,
}
