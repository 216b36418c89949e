"""Dialect checkers find every seeded violation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from adcompile.backends.drpai.dialect import violations as drpai_violations
from adcompile.backends.drpai.schemes import INT8 as DRPAI
from adcompile.backends.npu.approximate import approximate_kernels
from adcompile.backends.npu.dialect import violations as npu_violations
from adcompile.backends.npu.schemes import A8W8, XINT8
from adcompile.backends.trt.dialect import violations as trt_violations
from adcompile.backends.trt.schemes import INT8 as TRT
from adcompile.interfaces import Report
from adcompile.lower.insert import name_nodes
from adcompile.lower.quantize import quantize
from adcompile.lower.violations import Violation
from tests.lower.networks import kernels, residual, samples

Change = Callable[[ir.Model], None]


def set_initializer(model: ir.Model, name: str, array: np.ndarray) -> None:
    value = model.graph.initializers[name]
    tensor = ir.tensor(array, name=name)
    value.const_value, value.type = tensor, ir.TensorType(tensor.dtype)
    value.shape = ir.Shape(array.shape)


def rescale(name: str, factor: float) -> Change:
    def change(model: ir.Model) -> None:
        old = model.graph.initializers[f"{name}_scale"].const_value
        assert old is not None
        set_initializer(model, f"{name}_scale", np.asarray(old.numpy() * np.float32(factor)))

    return change


def zero_point(name: str, value: int, dtype: str) -> Change:
    def change(model: ir.Model) -> None:
        set_initializer(model, f"{name}_zero_point", np.asarray(value, dtype))

    return change


def node(model: ir.Model, name: str) -> ir.Node:
    return next(n for n in model.graph if n.name == name)


def bypass(name: str, index: int) -> Change:
    """Read the float value instead of its dequantized form."""

    def change(model: ir.Model) -> None:
        reader = node(model, name)
        value = reader.inputs[index]
        restore = value.producer() if value is not None else None
        assert restore is not None
        quantize_node = restore.inputs[0].producer() if restore.inputs[0] else None
        if quantize_node is not None:
            reader.replace_input_with(index, quantize_node.inputs[0])
        else:
            floats = ir.tensor(np.zeros(restore.inputs[0].shape.numpy(), np.float32), name="f")  # type: ignore[union-attr]
            made = ir.Value(name="f", const_value=floats, type=ir.TensorType(ir.DataType.FLOAT))
            made.shape = ir.Shape(floats.shape)
            model.graph.register_initializer(made)
            reader.replace_input_with(index, made)

    return change


def domain(name: str, text: str) -> Change:
    def change(model: ir.Model) -> None:
        node(model, name).domain = text

    return change


def attribute(name: str, value: ir.Attr) -> Change:
    def change(model: ir.Model) -> None:
        node(model, name).attributes[value.name] = value

    return change


def free_batch(model: ir.Model) -> None:
    model.graph.inputs[0].shape = ir.Shape(["n", 3, 16, 16])


def batch_two(model: ir.Model) -> None:
    model.graph.inputs[0].shape = ir.Shape([2, 3, 16, 16])


def split_fusion(model: ir.Model) -> None:
    """Q/DQ between a convolution and its Relu."""
    conv, relu = node(model, "n_c1"), node(model, "n_r1")
    inputs = list(node(model, "x_QuantizeLinear").inputs[1:])
    q = ir.Node("", "QuantizeLinear", [conv.outputs[0], *inputs], name="bad_q")
    dq = ir.Node("", "DequantizeLinear", [q.outputs[0], *inputs], name="bad_dq")
    model.graph.insert_after(conv, [q, dq])
    relu.replace_input_with(0, dq.outputs[0])


def per_channel(model: ir.Model) -> None:
    old = model.graph.initializers["c2_w_scale"].const_value
    assert old is not None
    set_initializer(model, "c2_w_scale", np.full(8, old.numpy(), np.float32))
    set_initializer(model, "c2_w_zero_point", np.zeros(8, np.int8))


def weights_too_large(model: ir.Model) -> None:
    old = model.graph.initializers["c2_w_quantized"].const_value
    assert old is not None
    array = old.numpy().copy()
    array.reshape(-1)[0] = 100
    set_initializer(model, "c2_w_quantized", array)


NPU: list[tuple[str, Change]] = [
    ("power-of-two", rescale("r1", 1.5)),
    ("same-position", rescale("p1", 2.0)),
    ("same-position", rescale("gap", 2.0)),
    ("shift-cut", rescale("c2_w", 2.0**12)),
    ("shift-bias", rescale("c2_b", 2.0**20)),
    ("shift-bias", rescale("c2_b", 2.0**-30)),
    ("add-inputs", rescale("c3", 2.0**9)),
    ("add-output", rescale("r3", 2.0**-30)),
    ("zero-point", zero_point("x", 3, "uint8")),
    ("zero-point", zero_point("c1_w", 1, "int8")),
    ("type", zero_point("c1_b", 0, "int32")),
    ("per-tensor", per_channel),
    ("domain", domain("x_QuantizeLinear", "com.microsoft")),
    ("partly-quantized", bypass("n_c2", 1)),
    ("partly-quantized", bypass("n_c2", 2)),
    ("static-shape", free_batch),
    ("batch-one", batch_two),
    ("fused-activation", split_fusion),
]


@pytest.fixture(scope="module")
def xint8() -> ir.Model:
    model = residual()
    return quantize(model, samples(model, 2), XINT8)


@pytest.mark.parametrize(("rule", "change"), NPU, ids=[f"{r}-{i}" for i, (r, _) in enumerate(NPU)])
def test_npu_checker_finds(rule: str, change: Change, xint8: ir.Model) -> None:
    """Each seeded violation is reported under its rule."""
    model = xint8.clone()
    assert npu_violations(model) == []
    change(model)
    assert rule in rules(npu_violations(model))


def rules(found: list[Violation]) -> set[str]:
    return {v.rule for v in found}


@pytest.fixture(scope="module")
def swish() -> ir.Model:
    model = kernels()
    name_nodes(model)
    report = Report()
    approximate_kernels(model, XINT8.ops, frozenset(), report)
    assert {r.exactness for r in report.rewrites} == {"quantized"}
    return quantize(model, samples(model, 2), XINT8)


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("leaky-slope", attribute("n_l1", ir.AttrFloat32("alpha", 0.1))),
        ("hard-sigmoid", rescale("c2", 2.0**-20)),
        ("hard-sigmoid", rescale("sig", 2.0**6)),
        ("mul-shift", rescale("swish", 2.0**30)),
        ("mul-shift", rescale("swish", 2.0**-20)),
        ("same-position", rescale("cat", 2.0)),
    ],
)
def test_npu_checker_knows_the_kernels(rule: str, change: Change, swish: ir.Model) -> None:
    """Limits of sigmoid, swish, leaky slope and concat."""
    model = swish.clone()
    assert npu_violations(model) == []
    change(model)
    assert rule in rules(npu_violations(model))


def test_npu_checker_wants_the_kernels_written_out() -> None:
    """Sigmoid, a free slope and an exact average are not what the device computes."""
    model = kernels()
    quantized = quantize(model, samples(model, 2), XINT8)
    assert {"sigmoid", "leaky-slope", "kernel-scale"} <= rules(npu_violations(quantized))


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("zero-point", zero_point("x", 3, "int8")),
        ("type", zero_point("x", 0, "uint8")),
        ("bias-scale", rescale("c1_b", 2.0)),
        ("domain", domain("x_QuantizeLinear", "")),
        ("partly-quantized", bypass("n_c2", 1)),
    ],
)
def test_a8w8_checker_finds(rule: str, change: Change) -> None:
    """The integer format with free scales."""
    model = residual()
    quantized = quantize(model, samples(model, 2), A8W8)
    assert npu_violations(quantized, "a8w8") == []
    change(quantized)
    assert rule in rules(npu_violations(quantized, "a8w8"))


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("zero-point", zero_point("x", 5, "int8")),
        ("type", zero_point("x", 0, "uint8")),
        ("positive-scale", rescale("x", -1.0)),
        ("domain", domain("x_QuantizeLinear", "com.microsoft")),
        ("partly-quantized", bypass("n_c2", 0)),
    ],
)
def test_trt_checker_finds(rule: str, change: Change) -> None:
    """What TensorRT's parsers were seen to refuse."""
    model = residual()
    quantized = quantize(model, samples(model, 2), TRT)
    assert trt_violations(quantized) == []
    change(quantized)
    assert rule in rules(trt_violations(quantized))


def test_trt_checker_refuses_an_integer_bias() -> None:
    """A Q/DQ bias is a parse error: files of the other dialects are refused."""
    model = residual()
    other = quantize(model, samples(model, 2), DRPAI)
    assert "float-bias" in rules(trt_violations(other))


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("weight-range", weights_too_large),
        ("tied-add", rescale("c3", 2.0)),
        ("tied-pool", rescale("p1", 2.0)),
        ("bias-scale", rescale("c2_b", 2.0)),
        ("zero-point", zero_point("x", 5, "int8")),
        ("type", zero_point("x", 0, "uint8")),
        ("between", bypass("n_r1", 0)),
        ("static-shape", free_batch),
        ("batch-one", batch_two),
        ("opset", lambda m: m.opset_imports.update({"": 17})),
        ("ir-version", lambda m: setattr(m, "ir_version", 8)),
    ],
)
def test_drpai_checker_finds(rule: str, change: Change) -> None:
    """The form of the vendor's quantizer."""
    model = residual()
    quantized = quantize(model, samples(model, 2), DRPAI)
    assert drpai_violations(quantized) == []
    change(quantized)
    assert rule in rules(drpai_violations(quantized))
