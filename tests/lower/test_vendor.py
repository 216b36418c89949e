"""Other people's quantizers behind our interface: what they are called with, what comes back."""

from __future__ import annotations

import importlib.machinery
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adcompile.backends.npu.dialect import violations
from adcompile.backends.npu.schemes import A8W8, XINT8
from adcompile.errors import ToolMissing, UsageError
from adcompile.lower.insert import name_nodes
from adcompile.lower.quantize import quantize
from adcompile.lower.quantizers import QuantizeRequest, available, quantizer
from adcompile.lower.search import Noise, decibels
from tests.lower.networks import residual, samples


def request(folder: Path, scheme: Any = XINT8, floats: frozenset[str] = frozenset()) -> Any:
    model = residual()
    name_nodes(model)
    return QuantizeRequest(model, samples(model), scheme, floats, folder / "work")


def fake_vai_q_onnx(calls: list[dict[str, Any]]) -> types.ModuleType:
    """A module that looks like the vendor's and copies its input, quantized by us."""
    module: Any = types.ModuleType("vai_q_onnx")
    module.__spec__ = importlib.machinery.ModuleSpec("vai_q_onnx", None)
    module.QuantFormat = types.SimpleNamespace(QDQ="QDQ")
    module.PowerOfTwoMethod = types.SimpleNamespace(MinMSE="MinMSE", NonOverflow="NonOverflow")
    module.QuantType = types.SimpleNamespace(QUInt8="QUInt8", QInt8="QInt8")

    def quantize_static(source: str, target: str, reader: Any, **options: Any) -> None:
        from adcompile.ir.model_io import load_model, save_model

        fed = []
        while (sample := reader.get_next()) is not None:
            fed.append(sample)
        calls.append({**options, "fed": fed, "source": source})
        model = load_model(Path(source))
        save_model(quantize(model, samples(model), XINT8), Path(target))

    module.quantize_static = quantize_static
    return module


def test_vai_q_onnx_gets_the_documented_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Power-of-two scales by minimum squared error, QUInt8/QInt8, IPU rules, symmetric activations,
    and calibration tensors under the names of the model's inputs."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setitem(sys.modules, "vai_q_onnx", fake_vai_q_onnx(calls))
    assert "vai_q_onnx" in available()
    made = quantizer("vai_q_onnx")(request(tmp_path, floats=frozenset(["n_c1"])))
    (call,) = calls
    assert {k: v for k, v in call.items() if k not in ("fed", "source")} == {
        "quant_format": "QDQ",
        "calibrate_method": "MinMSE",
        "activation_type": "QUInt8",
        "weight_type": "QInt8",
        "enable_ipu_cnn": True,
        "nodes_to_exclude": ["n_c1"],
        "extra_options": {"ActivationSymmetric": True},
    }
    assert [set(sample) for sample in call["fed"]] == [{"x"}] * 4
    assert violations(made, "xint8") == []
    with pytest.raises(UsageError, match="xint8 only"):
        quantizer("vai_q_onnx")(request(tmp_path, A8W8))


def test_a_missing_quantizer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which package it comes with, and what to use instead; unknown names list the known ones."""
    monkeypatch.setitem(sys.modules, "vai_q_onnx", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ToolMissing, match="vai_q_onnx"):
        quantizer("vai_q_onnx")
    with pytest.raises(UsageError, match="known: own"):
        quantizer("magic")


def test_quark_and_ours_obey_the_same_dialect(tmp_path: Path) -> None:
    """Both XINT8 files have no violation; ours is not further from the float model."""
    pytest.importorskip("quark.onnx")
    asked = request(tmp_path)
    noise = Noise(asked.model, samples(asked.model, 2, seed=9))
    found = {name: quantizer(name)(asked) for name in ("quark", "own")}
    for model in found.values():
        assert violations(model, "xint8") == []
    assert decibels(noise(found["own"])) > decibels(noise(found["quark"])) - 1.0


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_onnxruntime_methods_share_the_interface(method: str, tmp_path: Path) -> None:
    """Same request, a Q/DQ model of the same inputs and outputs, nodes left in float included."""
    asked = request(tmp_path, A8W8, frozenset(["n_c2"]))
    made = quantizer(f"onnxruntime-{method}")(asked)
    assert [v.name for v in made.graph.outputs] == [v.name for v in asked.model.graph.outputs]
    (conv,) = [n for n in made.graph if n.name == "n_c2"]
    producer = conv.inputs[1].producer() if conv.inputs[1] is not None else None
    assert producer is None  # its weight is still a float constant
    assert decibels(Noise(asked.model, asked.data)(made)) > 20
    assert np.isfinite(decibels(Noise(asked.model, asked.data)(made)))
