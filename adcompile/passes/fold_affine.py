"""fold-affine: put BatchNormalization and per-channel factors and offsets into weights.

All arithmetic is done in double precision and rounded once, to the weight's own type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from adcompile.ir.attributes import float_of, int_of
from adcompile.ir.constants import const
from adcompile.ir.graph import rank, static_shape
from adcompile.rewrite.driver import RewritePass
from adcompile.rewrite.pattern import Any, Const, Match, Maybe, Op, op
from adcompile.rewrite.rules import Refuse, Rule, rule, typed_like

Wide = npt.NDArray[np.float64]
_FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16)

LINEAR = op(
    ("Conv", "ConvTranspose", "Gemm"), Any("x"), Const("w"), Maybe(Const("b")), name="linear"
)


def _wide(m: Match, name: str) -> Wide:
    return np.asarray(m.array(name), dtype=np.float64)


def _out_channels(m: Match) -> int:
    """Number of output channels of the matched linear node."""
    weight, node = m.array("w"), m.node("linear")
    if m["w"].dtype not in _FLOATS:
        raise Refuse(f"weights of type {m['w'].dtype}")
    if node.op_type == "Conv":
        return int(weight.shape[0])
    if node.op_type == "ConvTranspose":
        return int(weight.shape[1]) * int_of(node, "group", 1)
    if weight.ndim != 2:
        raise Refuse("the weight is not a matrix")
    return int(weight.shape[0 if int_of(node, "transB") else 1])


def _scaled_weight(m: Match, scale: Wide) -> Wide:
    """The weight with output channel i multiplied by scale[i]."""
    weight, node = _wide(m, "w"), m.node("linear")
    if node.op_type == "Conv":
        return weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    if node.op_type == "ConvTranspose":
        groups = int_of(node, "group", 1)
        split = weight.reshape(groups, -1, *weight.shape[1:])
        factor = scale.reshape(groups, 1, weight.shape[1], *[1] * (weight.ndim - 2))
        return (split * factor).reshape(weight.shape)
    return weight * (scale.reshape(-1, 1) if int_of(node, "transB") else scale.reshape(1, -1))


def _bias(m: Match, channels: int) -> Wide:
    """The bias as one number per channel; a Gemm's factors are not included."""
    if m.get("b") is None:
        return np.zeros(channels)
    bias = _wide(m, "b")
    if bias.size == 1:
        return np.full(channels, float(bias.ravel()[0]))
    if bias.size != channels or bias.shape[-1] != channels:
        raise Refuse("the bias is not one number per channel")
    return bias.reshape(channels)


def _rebuilt(m: Match, scale: Wide, offset: Wide) -> ir.Node:
    """The linear node computing scale * old + offset, per output channel."""
    node = m.node("linear")
    if not (np.all(np.isfinite(scale)) and np.all(np.isfinite(offset))):
        raise Refuse("a factor or offset is not finite")
    weight = _scaled_weight(m, scale)
    beta = float_of(node, "beta", 1.0) if node.op_type == "Gemm" else 1.0
    bias = _bias(m, scale.size) * beta * scale + offset
    dtype = m.array("w").dtype
    stem = m["w"].name or "weight"
    made = [weight.astype(dtype), bias.astype(dtype)]
    if not all(np.all(np.isfinite(array)) for array in made):
        raise Refuse("the folded weights do not fit their type")
    names = (f"{stem}_folded", f"{stem}_bias_folded")
    values = [const(array, name) for array, name in zip(made, names, strict=True)]
    attributes = [a for a in node.attributes.values() if a.name != "beta"]
    new = ir.Node("", node.op_type, [m["x"], *values], attributes, name=node.name or None)
    return typed_like(new, m.output)


def _batch_norm(inner: Op) -> Op:
    parts = [Const(name) for name in ("gamma", "shift", "mean", "variance")]
    return op("BatchNormalization", inner, *parts)


def _check_inference(node: ir.Node) -> None:
    if len([v for v in node.outputs if v.name and (v.uses() or v.is_graph_output())]) > 1:
        raise Refuse("its statistics are read")
    if int_of(node, "training_mode") or not int_of(node, "spatial", 1):
        raise Refuse("it is in training mode, or not spatial")
    if "is_test" in node.attributes and not int_of(node, "is_test"):
        raise Refuse("it is in training mode")


def _affine(m: Match) -> tuple[Wide, Wide]:
    """Factor and offset per channel of the matched BatchNormalization."""
    _check_inference(m.root)
    gamma, shift = _wide(m, "gamma"), _wide(m, "shift")
    mean, variance = _wide(m, "mean"), _wide(m, "variance")
    epsilon = float(np.float32(float_of(m.root, "epsilon", 1e-5)))
    if bool(np.any(variance + epsilon <= 0)):
        raise Refuse("a variance is not positive")
    scale = gamma / np.sqrt(variance + epsilon)
    return scale, shift - mean * scale


@rule(_batch_norm(LINEAR))
def batch_norm_after_linear(m: Match) -> ir.Node:
    """BatchNormalization after Conv, ConvTranspose or Gemm goes into weight and bias."""
    scale, offset = _affine(m)
    if scale.size != _out_channels(m):
        raise Refuse("the channels do not fit")
    return _rebuilt(m, scale, offset)


def _per_channel(m: Match, name: str) -> Wide:
    """A constant operand as one number per output channel of the linear node."""
    channels, array = _out_channels(m), _wide(m, name)
    size = rank(m.node("linear").outputs[0])
    if size is None:
        raise Refuse("the rank is unknown")
    if m[name].dtype != m["w"].dtype:
        raise Refuse("the types differ")
    if array.ndim > size:
        raise Refuse("the constant enlarges the result")
    shape = (1,) * (size - array.ndim) + array.shape
    expected = [1] * size
    expected[1] = channels
    if any(d not in (1, e) for d, e in zip(shape, expected, strict=True)):
        raise Refuse("the constant is not one number per channel")
    return np.broadcast_to(array.reshape(shape), expected).reshape(channels)


@rule(op("Mul", LINEAR, Const("c"), any_order=True))
def mul_after_linear(m: Match) -> ir.Node:
    """A per-channel factor after Conv, ConvTranspose or Gemm goes into weight and bias."""
    factor = _per_channel(m, "c")
    return _rebuilt(m, factor, np.zeros(factor.size))


@rule(op("Div", LINEAR, Const("c")))
def div_after_linear(m: Match) -> ir.Node:
    """A per-channel divisor after Conv, ConvTranspose or Gemm goes into weight and bias."""
    divisor = _per_channel(m, "c")
    if bool(np.any(divisor == 0)):
        raise Refuse("a divisor is 0")
    return _rebuilt(m, 1 / divisor, np.zeros(divisor.size))


@rule(op("Add", LINEAR, Const("c"), any_order=True))
def add_after_linear(m: Match) -> ir.Node:
    """A per-channel offset after Conv, ConvTranspose or Gemm goes into the bias."""
    offset = _per_channel(m, "c")
    return _rebuilt(m, np.ones(offset.size), offset)


@rule(op("Sub", LINEAR, Const("c")))
def sub_after_linear(m: Match) -> ir.Node:
    """A per-channel subtrahend after Conv, ConvTranspose or Gemm goes into the bias."""
    offset = _per_channel(m, "c")
    return _rebuilt(m, np.ones(offset.size), -offset)


@rule(op("Add", op("MatMul", Any("x"), Const("w"), name="matmul"), Const("b"), any_order=True))
def matmul_with_bias(m: Match) -> ir.Node:
    """MatMul of two matrices and a bias is Gemm."""
    if rank(m["x"]) != 2 or m.array("w").ndim != 2:
        raise Refuse("not a product of two matrices")
    shape, channels = static_shape(m["b"]), m.array("w").shape[1]
    if (
        shape is None
        or len(shape) > 2
        or shape[-1:] != (channels,)
        or shape[:-1] not in ((), (1,))
    ):
        raise Refuse("the bias is not one number per column")
    if not m["x"].dtype == m["w"].dtype == m["b"].dtype or m["w"].dtype not in _FLOATS:
        raise Refuse("the types differ, or Gemm does not know them")
    return typed_like(ir.Node("", "Gemm", [m["x"], m["w"], m["b"]]), m.output)


@rule(op("Conv", op("Pad", Any("x"), Const("pads"), Maybe(Const("fill")), name="pad"),
         Const("w"), Maybe(Const("b")), name="linear"), opset=11)  # fmt: skip
def pad_before_conv(m: Match) -> ir.Node:
    """Zero padding before a Conv goes into its pads."""
    node = m.root
    mode = m.node("pad").attributes.get("mode")
    if mode is not None and mode.as_string() != "constant":
        raise Refuse("the padding is not constant")
    if m.get("fill") is not None and bool(np.any(m.array("fill") != 0)):
        raise Refuse("the padding is not zero")
    auto = node.attributes.get("auto_pad")
    if auto is not None and auto.as_string() not in ("NOTSET", "VALID"):
        raise Refuse("the Conv pads by itself")
    pads = [int(p) for p in m.array("pads").tolist()]
    size = len(pads) // 2
    if any(p < 0 for p in pads) or any((*pads[:2], *pads[size : size + 2])):
        raise Refuse("it cuts, or pads batch or channels")
    old = node.attributes.get("pads")
    present = list(old.as_ints()) if old is not None else [0] * (2 * size - 4)
    extra = pads[2:size] + pads[size + 2 :]
    total = [a + b for a, b in zip(present, extra, strict=True)]
    attributes = [a for a in node.attributes.values() if a.name not in ("pads", "auto_pad")]
    attributes.append(ir.AttrInt64s("pads", total))
    inputs = [m["x"], *node.inputs[1:]]
    return typed_like(ir.Node("", "Conv", inputs, attributes, name=node.name or None), m.output)


RULES: Sequence[Rule] = (
    batch_norm_after_linear,
    mul_after_linear,
    div_after_linear,
    add_after_linear,
    sub_after_linear,
    matmul_with_bias,
    pad_before_conv,
)


@dataclass(frozen=True)
class FoldAffine(RewritePass):
    """Folds BatchNormalization, Mul, Div, Add, Sub and zero Pad into Conv, ConvTranspose, Gemm.

    The same real-valued function; rounding differs in the last bits.
    """

    name: ClassVar[str] = "fold-affine"
    summary: ClassVar[str] = (
        "put batch norm, per-channel factors, offsets and padding into weights"
    )
    rules: ClassVar[Sequence[Rule]] = RULES
