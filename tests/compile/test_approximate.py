"""Rewrites that change the function: never unasked, and never without their measured error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from adcompile.compiler import BuildOptions, compile
from adcompile.errors import ModelError, UsageError
from adcompile.ir import model_io
from tests.compile.models import _weight, finish

QUICK = BuildOptions(golden_count=2, host_code=False, cache=False, precision="fp32")


def subsampled() -> onnx.ModelProto:
    """Two convolutions with a 1×1 stride-2 MaxPool between them, as a feature pyramid has it."""
    rng = np.random.default_rng(0)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "w0"], ["c0"], "first", pads=[1, 1, 1, 1]),
            helper.make_node(
                "MaxPool", ["c0"], ["p"], "pool", kernel_shape=[1, 1], strides=[2, 2]
            ),
            helper.make_node("Conv", ["p", "w1"], ["y"], "second", pads=[1, 1, 1, 1]),
        ],
        "subsampled",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 8, 8])],
        [_weight("w0", rng, 8, 3, 3, 3), _weight("w1", rng, 8, 8, 3, 3)],
    )
    return finish(graph)


def device_ops(bundle: Path) -> list[str]:
    (file,) = bundle.glob("parts/*/model.onnx")
    return [node.op_type for node in model_io.load_model(file).graph]


def test_the_npu_gets_an_exact_subsampling(tmp_path: Path) -> None:
    """Unasked, the 1×1 pool becomes an identity depthwise convolution: same numbers."""
    result = compile(subsampled(), "npu", tmp_path / "b", QUICK)
    assert result.ok
    assert device_ops(tmp_path / "b") == ["Conv", "Conv", "Conv"]
    assert {r.exactness for r in result.manifest.rewrites} <= {"exact"}
    assert result.manifest.results["output y max_abs"] == pytest.approx(0.0, abs=1e-6)


def test_the_3x3_replacement_needs_to_be_allowed_and_its_error_is_recorded(tmp_path: Path) -> None:
    """With --allow the pool is widened; the manifest has the measured error, verification fails."""
    options = replace(QUICK, allow=("maxpool-1x1-as-3x3",))
    result = compile(subsampled(), "npu", tmp_path / "b", options)
    (rewrite,) = [r for r in result.manifest.rewrites if r.exactness == "approximate"]
    assert rewrite.rule == "maxpool-1x1-as-3x3"
    assert rewrite.node == "pool"
    assert rewrite.error is not None
    assert rewrite.error > 0.01
    assert "MaxPool" in device_ops(tmp_path / "b")
    assert not result.ok  # fp32 tolerances: other numbers are other numbers
    assert any("changes the function" in note for note in result.notes)


def test_what_cannot_be_allowed_is_refused(tmp_path: Path) -> None:
    """A misspelt name is an error that lists what can be allowed."""
    with pytest.raises(UsageError, match="nothing approximate is called") as caught:
        compile(subsampled(), "npu", tmp_path / "b", replace(QUICK, allow=("maxpool-3x3",)))
    assert "maxpool-1x1-as-3x3" in caught.value.fix


def test_a_failed_verification_leaves_a_reproducer(tmp_path: Path) -> None:
    """The bundle that failed names its culprit and holds a graph that shows the difference."""
    options = replace(QUICK, allow=("maxpool-1x1-as-3x3",))
    result = compile(subsampled(), "npu", tmp_path / "b", options)
    assert "pool" in str(result.manifest.results["culprit"])
    assert list((tmp_path / "b" / "reproducer").glob("*.onnx"))


def test_nan_weights_are_refused_unless_allowed(tmp_path: Path) -> None:
    """A diverged or damaged weight stops the build; the user may insist."""
    model = subsampled()
    weights = np.full((8, 3, 3, 3), np.nan, dtype=np.float32)
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, "w0"))
    with pytest.raises(ModelError, match="contains NaN"):
        compile(model, "npu", tmp_path / "b", QUICK)
    allowed = replace(QUICK, allow=("nan-weights",), verify="none")
    assert any("NaN" in note for note in compile(model, "npu", tmp_path / "b", allowed).notes)
