"""Our quantizer: legal files, small errors, same bytes every time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from adcompile.backends.drpai.dialect import violations as drpai_violations
from adcompile.backends.drpai.schemes import INT8 as DRPAI
from adcompile.backends.npu.dialect import violations as npu_violations
from adcompile.backends.npu.schemes import SCHEMES, XINT8
from adcompile.backends.trt.dialect import violations as trt_violations
from adcompile.backends.trt.schemes import INT8 as TRT
from adcompile.errors import InputError
from adcompile.ir.model_io import to_bytes
from adcompile.ir.shapes import infer_shapes
from adcompile.lower.calibration import MemoryCalibration
from adcompile.lower.equalize import equalize
from adcompile.lower.insert import name_nodes
from adcompile.lower.observe import observe
from adcompile.lower.quantize import quantize
from tests.lower.networks import Net, residual, samples, snr

TEST = 9


@pytest.mark.parametrize(("name", "least"), [("xint8", 20.0), ("a8w8", 25.0), ("a16w8", 32.0)])
def test_npu_formats_are_legal_and_close(name: str, least: float) -> None:
    """No rule is broken, and unseen inputs come out close to float."""
    model = residual()
    quantized = quantize(model, samples(model), SCHEMES[name])
    assert npu_violations(quantized, name) == []
    assert snr(model, quantized, samples(model, 2, seed=TEST)) > least


def test_trt_and_drpai_formats_are_legal_and_close() -> None:
    """The two other dialects, too."""
    model = residual()
    for scheme, check in ((TRT, trt_violations), (DRPAI, drpai_violations)):
        quantized = quantize(model, samples(model), scheme)
        assert check(quantized) == []
        assert snr(model, quantized, samples(model, 2, seed=TEST)) > 22.0


@pytest.mark.parametrize("opset", [19, 21, 25])
def test_models_newer_than_the_scheme_s_opset(opset: int) -> None:
    """The Q/DQ nodes belong to the scheme's opset, whatever opset the model was exported with."""
    model = residual(opset)
    for scheme in (XINT8, TRT, DRPAI):
        quantized = quantize(model, samples(model), scheme)
        assert quantized.opset_imports[""] == scheme.opset
        assert snr(model, quantized, samples(model, 2, seed=TEST)) > 20.0


def test_corrections_pay() -> None:
    """Equalisation and reconstruction give less error than plain rounding."""
    model = residual()
    plain = replace(XINT8, equalize=False, refine_rounding=False)
    test = samples(model, 3, seed=TEST)
    rough = snr(model, quantize(model, samples(model, 8), plain), test)
    assert snr(model, quantize(model, samples(model, 8), XINT8), test) > rough


def test_the_same_build_gives_the_same_bytes() -> None:
    """Nothing depends on time, order of sets, or memory addresses."""
    model = residual()
    first, second = (to_bytes(quantize(model, samples(model), XINT8)) for _ in range(2))
    assert first == second


def test_the_float_model_is_not_changed() -> None:
    """Quantizing works on a copy."""
    model = residual()
    before = to_bytes(model)
    quantize(model, samples(model), XINT8)
    assert to_bytes(model) == before


def test_equalisation_changes_no_value() -> None:
    """Gains on streams cancel out."""
    model = residual()
    copy = model.clone()
    name_nodes(copy)
    infer_shapes(copy)
    names = [v.name for n in copy.graph for v in n.outputs if v.name]
    equalize(copy, observe(copy, names, samples(model)), XINT8)
    assert snr(model, copy, samples(model, 2)) > 100.0


def test_nodes_can_stay_in_float() -> None:
    """A pinned node has no quantized weight, and the rest stays legal."""
    model = residual()
    quantized = quantize(model, samples(model), XINT8, frozenset({"n_c2"}))
    node = next(n for n in quantized.graph if n.name == "n_c2")
    made = node.inputs[1].producer() if node.inputs[1] is not None else None
    assert made is None
    assert [v.rule for v in npu_violations(quantized)] == []


def test_bad_calibration_is_named() -> None:
    """Empty data, NaN and a missing input are input errors."""
    model = residual()
    with pytest.raises(InputError, match="empty"):
        quantize(model, MemoryCalibration([]), XINT8)
    with pytest.raises(InputError, match="lacks an input"):
        quantize(model, MemoryCalibration([{}]), XINT8)
    bad = {"x": np.full((1, 3, 16, 16), np.nan, np.float32)}
    with pytest.raises(InputError, match="not finite") as error:
        quantize(model, MemoryCalibration([bad]), XINT8)
    assert error.value.where == "input x"
    huge = {"x": np.full((1, 3, 16, 16), 3e38, np.float32)}
    with pytest.raises(InputError, match="not finite") as error:
        quantize(model, MemoryCalibration([huge]), XINT8)
    assert error.value.where == "r1, written by Relu n_r1"


def test_constant_calibration_still_gives_a_legal_file() -> None:
    """All samples equal and zero: grids fall back, nothing divides by zero."""
    model = residual()
    zeros = MemoryCalibration([{"x": np.zeros((1, 3, 16, 16), np.float32)}] * 2)
    assert npu_violations(quantize(model, zeros, XINT8)) == []


def test_a_constant_without_dimensions() -> None:
    """A division by a scalar, as behind the boxes of many detectors."""
    net = Net()
    net.conv("image", "c", 3, 4)
    net.node("Div", ["c", net.constant("two", np.array(2.0, np.float32))], "half")
    net.conv("half", "out", 4, 4)
    shape: list[int | str] = [1, 3, 8, 8]
    model = net.model({"image": shape}, {"out": [1, 4, 8, 8]})
    name_nodes(model)
    infer_shapes(model)
    quantized = quantize(model, samples(model), SCHEMES["a8w8"])
    assert snr(model, quantized, samples(model, 2, seed=TEST)) > 20.0
