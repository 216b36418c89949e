"""Operators of domains that nobody knows: a verdict, an early error, or a bundle that says so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from adcompile.cli import main
from adcompile.compiler import BuildOptions, compile
from adcompile.errors import ModelError


def model(domain: str, op: str, *, body: bool = False) -> onnx.ModelProto:
    """A convolution, one operator of *domain*, a Relu; with *body*, the operator is a function."""
    weight = onnx.numpy_helper.from_array(np.full((8, 3, 3, 3), 0.1, np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node(op, ["c"], ["f"], "odd", domain=domain),
        helper.make_node("Relu", ["f"], ["y"], "relu"),
    ]
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 16, 16])],
        [weight],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(domain, 1)]
    inner = helper.make_node("Neg", ["a"], ["b"])
    function = helper.make_function(domain, op, ["a"], ["b"], [inner], opsets[:1])
    functions = [function] if body else []
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=9)


@pytest.mark.parametrize(("domain", "op"), [("my.ops", "Foo"), ("com.microsoft", "Nonsense")])
def test_the_build_stops_before_any_work(domain: str, op: str, tmp_path: Path) -> None:
    """Exit code 2 with node and operator; no bundle."""
    seen: list[str] = []
    with pytest.raises(ModelError) as caught:
        compile(model(domain, op), "npu", tmp_path / "b", watch=seen.append)
    assert f"{domain}::{op}" in str(caught.value)
    assert "odd" in str(caught.value)
    assert seen == ["load"]
    assert not (tmp_path / "b").exists()


def test_the_verdict_is_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`check` answers for the rest of the graph and calls the operator unknown."""
    path = tmp_path / "m.onnx"
    onnx.save(model("my.ops", "Foo"), path)
    assert main(["check", str(path), "-t", "trt,npu,drpai", "--json"]) == 1
    for target in json.loads(capsys.readouterr().out)["targets"]:
        (odd,) = [n for n in target["nodes"] if n["name"] == "odd"]
        assert odd["state"] == "unknown"
        assert "function" in odd["fix"]


def test_it_can_be_built_unverified(tmp_path: Path) -> None:
    """Whoever has the operator elsewhere gets the bundle, and is told that nothing ran."""
    options = BuildOptions(precision="fp32", verify="none", cache=False)
    result = compile(model("my.ops", "Foo"), "npu", tmp_path / "b", options)
    assert any("never executed" in note for note in result.notes)
    assert result.manifest.verified_on == ""


def test_a_function_body_is_compiled_like_the_rest(tmp_path: Path) -> None:
    """The same operator with a body is no stranger."""
    options = BuildOptions(precision="fp32", golden_count=1, host_code=False, cache=False)
    result = compile(model("my.ops", "Foo", body=True), "npu", tmp_path / "b", options)
    assert result.ok
    assert [part.placement for part in result.manifest.parts] == ["device"]
