"""explain: what a name means, and at which stage a rule or pass stops at a node, in words."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

import adcompile
from adcompile.cli import main
from adcompile.errors import UsageError
from adcompile.interfaces import Report
from adcompile.ir import model_io
from adcompile.ir.dump import dump
from adcompile.passes.set_attribute import SetAttribute
from adcompile.passes.upsample_to_resize import UpsampleToResize
from adcompile.rewrite.explain import Explanation, explain, explain_pass, find_node
from adcompile.rewrite.named import find_named, named
from tests.rewrite.build import model

TEXT = "g (float[2] x) => (float[2] y) { a = Mul(x, one) b = Mul(a, two) y = Sigmoid(b) }"
WEIGHTS = {"one": np.ones(1, np.float32), "two": np.full(1, 2, np.float32)}


@pytest.mark.parametrize(
    ("rule", "value", "opset", "stage", "why"),
    [
        ("mul-by-one", "a", 17, "", "it applies here"),
        ("mul-by-one", "b", 17, "condition", "the constant is not 1"),
        ("mul-by-one", "y", 17, "pattern", "is not Mul"),
        ("silu-as-hard-swish", "a", 13, "opset", "the rule knows 14"),
        ("sigmoid-as-hard-sigmoid", "y", 17, "permission", "--allow sigmoid-as-hard-sigmoid"),
    ],
)
def test_stages(rule: str, value: str, opset: int, stage: str, why: str) -> None:
    """Opset, pattern, permission, condition, or that it applies; the model stays as it was."""
    m = model(TEXT, WEIGHTS, opset=opset)
    before = dump(m)
    found = find_named(rule).rule
    assert found is not None
    answer = explain(found, find_node(m, value), m, Report())
    assert answer.stage == stage
    assert why in answer.why
    assert answer.applies == (stage == "")
    assert dump(m) == before
    assert len(m.graph.inputs[0].uses()) == 1


def test_unknown_names() -> None:
    """Unknown rules and nodes come with the closest known ones."""
    with pytest.raises(UsageError) as error:
        find_named("mul-by-two")
    assert "mul-by-one" in error.value.fix
    m = model(TEXT, WEIGHTS)
    m.graph[0].name = "first"
    assert find_node(m, "first") is m.graph[0]
    with pytest.raises(UsageError) as error:
        find_node(m, "frst")
    assert "first" in error.value.fix
    assert find_named("mul-by-one").holder == "clean-up"


def upsampled(op_type: str = "Upsample", also: str = "Relu") -> onnx.ModelProto:
    """An opset 9 model with a node called "up" and another one called "other"."""
    scales = onnx.numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    inputs = ["x", "scales"] if op_type == "Upsample" else ["x"]
    nodes = [
        onnx.helper.make_node(op_type, inputs, ["a"], name="up"),
        onnx.helper.make_node(also, ["a"], ["y"], name="other"),
    ]
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 1, side, side])
        for name, side in (("x", 2), ("y", 4))
    ]
    graph = onnx.helper.make_graph(nodes, "g", values[:1], values[1:], [scales])
    opsets = [onnx.helper.make_opsetid("", 9)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=6)


def asked(proto: onnx.ModelProto, node: str) -> Explanation:
    """What upsample-to-resize does at a node."""
    m = model_io.from_proto(proto)
    before = dump(m)
    found = explain_pass(UpsampleToResize, UpsampleToResize.name, find_node(m, node), m, Report())
    assert dump(m) == before
    return found


def test_a_pass_is_tried_at_a_node() -> None:
    """It applies, it applies elsewhere, it refuses with its reason, or there is nothing to do."""
    assert asked(upsampled(), "up").applies
    assert "changes 1 other" in asked(upsampled(), "other").why
    assert asked(upsampled("Relu"), "up").why == "it changes nothing here"
    refused = asked(upsampled(also="Softmax"), "up")
    assert "Softmax changed" in refused.why
    assert "refused at other" in refused.why
    assert not refused.applies


def test_a_pass_that_needs_options_says_so() -> None:
    """Nothing can be tried without them."""
    m = model(TEXT, WEIGHTS)
    answer = explain_pass(SetAttribute, "set-attribute", find_node(m, "a"), m, Report())
    assert answer.stage == "options"
    assert "nodes called" in answer.why


def reported() -> Iterator[str]:
    """Every literal name that the package reports a rewrite under."""
    for path in Path(adcompile.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".applied"):
                name = node.args[0]
                if isinstance(name, ast.Constant):
                    yield str(name.value)


def test_every_reported_name_is_explained() -> None:
    """Rules, passes, steps of passes and lowering: nothing in a report is unknown."""
    known = named()
    literal = set(reported())
    assert {"half", "decided-if", "roi-mosaic"} <= literal
    assert literal - set(known) == set()
    assert {"mul-by-one", "upsample-to-resize", "quantize:xint8", "npu-kernels"} <= set(known)
    assert all(each.summary for each in known.values())


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Alone it explains; with node and model it tries; exit code 1 when it does not apply."""
    file = tmp_path / "m.onnx"
    file.write_bytes(upsampled().SerializeToString())
    assert main(["explain-rule", "upsample-to-resize"]) == 0
    assert "pass, exact" in capsys.readouterr().out
    assert main(["explain-rule", "upsample-to-resize", "up", str(file)]) == 0
    assert "applies at up" in capsys.readouterr().out
    assert main(["explain-rule", "upsample-to-resize", "other", str(file)]) == 1
    assert main(["explain-rule", "half"]) == 0
    assert "lowering for trt, drpai" in capsys.readouterr().out
    assert main(["explain-rule", "half", "up", str(file)]) == 2
    assert main(["explain-rule", "half", "up"]) == 2
    assert main(["list", "rules", "--json"]) == 0
    assert "decided-if" in capsys.readouterr().out
