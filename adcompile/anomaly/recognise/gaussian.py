"""The Mahalanobis form with constant statistics, and mean squared errors over channels."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from adcompile.anomaly.recognise.algebra import axes_of, made_by, square_of, without_clamp
from adcompile.anomaly.statistics import ROLES
from adcompile.anomaly.whiten import factor_of
from adcompile.errors import InputError
from adcompile.ir.attributes import int_of
from adcompile.ir.constants import const
from adcompile.ir.graph import DOMAIN, constant, rank, static_shape
from adcompile.rewrite.pattern import Any, Const, Match, Maybe, op
from adcompile.rewrite.rules import Refuse, Rule, rule, typed_like

_GAP = op(
    "Transpose",
    op("Sub", Any("x"), Const("mean"), shared=True),
    attrs={"perm": (2, 0, 1)},
    shared=True,
    name="gap",
)


@rule(
    op(
        "ReduceSum",
        op("Mul", op("MatMul", _GAP, Const("inverse")), _GAP, any_order=True),
        Maybe(Const("axes")),
    ),
    opset=13,
)
def mahalanobis_form(m: Match) -> ir.Value:
    """(x - mean)ᵀ · inverse · (x - mean) per patch, with constant statistics."""
    inverse, mean = m.array("inverse"), m.array("mean")
    if axes_of(m.root) != (2,) or int_of(m.root, "keepdims", 1):
        raise Refuse("it does not sum over channels")
    if inverse.ndim != 3 or inverse.shape[1] != inverse.shape[2]:
        raise Refuse(f"the inverse covariance has shape {inverse.shape}")
    patches, channels = inverse.shape[:2]
    mean = mean.reshape(mean.shape[-2:]) if mean.ndim == 3 and mean.shape[0] == 1 else mean
    if mean.shape != (channels, patches):
        raise Refuse(f"the mean has shape {mean.shape}, the covariances are {inverse.shape}")
    embedding, count, grid = _embedding(m["x"], channels, patches)
    statistics = [const(mean, "mean") if mean.shape != static_shape(m["mean"]) else m["mean"]]
    node = ir.node("MahalanobisMap", [embedding, *statistics, m["inverse"]], domain=DOMAIN)
    node.outputs[0].dtype = ir.DataType.FLOAT
    node.outputs[0].shape = ir.Shape([count, 1, *grid])
    flat = const(np.array([count, patches], np.int64), "patches_shape")
    by_image = ir.node("Reshape", [node.outputs[0], flat])
    by_image.outputs[0].dtype = ir.DataType.FLOAT
    by_image.outputs[0].shape = ir.Shape([count, patches])
    if count == 1:  # one row: turning it is a reshape
        turned = ir.node("Reshape", [by_image.outputs[0], const(np.array([patches, 1]), "turned")])
    else:
        turned = ir.node("Transpose", [by_image.outputs[0]], {"perm": [1, 0]})
    return typed_like(turned, m.output).outputs[0]


def _embedding(x: ir.Value, channels: int, patches: int) -> tuple[ir.Value, int, tuple[int, int]]:
    """The map [N, C, h, w] behind rows [N, C, P], its N and its grid."""
    shape = static_shape(x)
    if shape is None or len(shape) != 3 or shape[1:] != (channels, patches):
        raise Refuse("the rows have free dimensions: fix the input shape")
    flat = made_by(x, "Reshape")
    before = None if flat is None else static_shape(flat.inputs[0])
    if flat is not None and before is not None and before[:2] == shape[:2] and len(before) == 4:
        source = flat.inputs[0]
        assert source is not None
        return source, shape[0], (before[2], before[3])
    target = const(np.array([shape[0], channels, patches, 1], np.int64), "embedding_shape")
    node = ir.node("Reshape", [x, target])
    node.outputs[0].dtype = ir.DataType.FLOAT
    node.outputs[0].shape = ir.Shape([shape[0], channels, patches, 1])
    return node.outputs[0], shape[0], (patches, 1)


@rule(op("MahalanobisMap", Any("x"), Const("mean"), Const("inverse"), domain=DOMAIN))
def whitened_form(m: Match) -> ir.Value:
    """The Mahalanobis form through triangular factors of the inverse covariances."""
    try:
        factor = factor_of(np.asarray(m.array("inverse"), np.float32))
    except InputError as error:
        raise Refuse(f"{error.what}: {error.where}") from None
    node = ir.node("WhitenedMap", [m["x"], m["mean"], const(factor, "factor")], domain=DOMAIN)
    return typed_like(node, m.output).outputs[0]


@rule(op(("Clip", "Max", "Relu"), any_inputs=True))
def clamp_of_form(m: Match) -> ir.Value:
    """The Mahalanobis form is never negative: a clamp at zero does nothing."""
    inner = without_clamp(m.output)
    if inner is m.output:
        raise Refuse("it is no clamp at zero")
    source: ir.Value | None = inner
    while (node := made_by(source, "Reshape", "Transpose")) is not None:
        source = node.inputs[0]
    node = None if source is None else source.producer()
    if node is None or node.domain != DOMAIN or node.op_type not in ROLES:
        raise Refuse("its input is not a Mahalanobis form")
    return inner


@rule(op("ReduceMean", any_inputs=True), opset=13)
def squared_error(m: Match) -> ir.Value:
    """The mean over channels of a squared difference of two maps."""
    gap = square_of(m.root.inputs[0])
    difference = made_by(gap, "Sub")
    if difference is None or rank(gap) != 4:
        raise Refuse("it is not the mean of a squared difference of maps")
    if any(constant(v) is not None for v in difference.inputs):
        raise Refuse("one side is a constant")
    left, right = difference.inputs
    shape = static_shape(gap)
    if shape is None or static_shape(left) != shape or static_shape(right) != shape:
        raise Refuse("the shapes of the two maps are not known to be equal")
    if axes_of(m.root) not in {(1,), (1, 2, 3)}:
        raise Refuse("it does not average over channels")
    if _feeds_a_network(m.output):
        raise Refuse("a network goes on from it: it is no head")
    node = ir.node("SquaredErrorMap", [left, right], domain=DOMAIN)
    error = node.outputs[0]
    error.dtype, error.shape = ir.DataType.FLOAT, ir.Shape([shape[0], 1, *shape[2:]])
    if axes_of(m.root) == (1,):
        if int_of(m.root, "keepdims", 1):
            return error
        target = const(np.array([shape[0], *shape[2:]], np.int64), "map_shape")
        return typed_like(ir.node("Reshape", [error, target]), m.output).outputs[0]
    rest = [v for v in m.root.inputs[1:] if v is not None]
    attributes = list(m.root.attributes.values())
    mean = ir.Node("", "ReduceMean", [error, *rest], attributes)
    return typed_like(mean, m.output).outputs[0]


def _feeds_a_network(value: ir.Value) -> bool:
    """True when a convolution over several channels comes after *value*."""
    pending, seen = [value], {value}
    while pending:
        for node in pending.pop().consumers():
            weight = static_shape(node.inputs[1]) if len(node.inputs) > 1 else None
            if node.op_type in {"Conv", "ConvTranspose"} and weight and weight[1] > 1:
                return True
            for output in node.outputs:
                if output not in seen:
                    seen.add(output)
                    pending.append(output)
    return False


RULES: tuple[Rule, ...] = (mahalanobis_form, whitened_form, clamp_of_form, squared_error)
