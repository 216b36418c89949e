"""Opsets: what can be moved is moved and computes the same; what cannot stays on the host."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from adcompile.compiler import BuildOptions, compile
from adcompile.errors import ModelError
from adcompile.ir.evaluate import evaluate
from adcompile.ir.graph import opset
from adcompile.ir.model_io import from_bytes, load_model
from adcompile.ir.opset import obstacle, retarget, settled
from adcompile.place.targets import resolve_target
from tests.rewrite.build import assert_same, feeds, model

QUICK = BuildOptions(precision="fp32", golden_count=1, host_code=False, cache=False)


@pytest.mark.parametrize(
    ("now", "to", "body"),
    [
        (13, 18, "y = ReduceMean <axes = [1]> (x)"),
        (18, 13, "y = ReduceMean(x, a)"),
        (18, 13, "y = ReduceMax <keepdims = 0> (x)"),
        (17, 18, "y, z = Split <axis = 1> (x)"),
        (18, 17, "y, z = Split <axis = 1, num_outputs = 2> (x)"),
        (21, 13, "w = Relu(x) v = Add(w, x) y = Reshape <allowzero = 0> (v, s)"),
        (9, 13, "w = Sigmoid(x) y = MatMul(w, m)"),
    ],
)
def test_what_can_be_moved_computes_the_same(now: int, to: int, body: str) -> None:
    """Both directions over the changes of interface that the bridges know."""
    outputs = "(float[2, h] y, float[2, k] z)" if "y, z" in body else "(float[A, B] y)"
    if "keepdims" in body:
        outputs = "(float y)"
    weights = {
        name: array
        for name, array in {
            "a": np.array([1]),
            "s": np.array([4, 2]),
            "m": np.ones((4, 3), np.float32),
        }.items()
        if f", {name})" in body
    }
    before = model(f"g (float[2, 4] x) => {outputs} {{ {body} }}", weights, opset=now)
    moved = settled(before, to, to)
    assert moved is not before
    assert (opset(before), opset(moved)) == (now, to)
    assert_same(before, moved, feeds(before))
    back = settled(moved, now, now)
    assert_same(before, back, feeds(before))


@pytest.mark.parametrize(
    ("now", "to", "body", "why"),
    [
        (20, 17, "y = Gelu(x)", "does not exist"),
        (18, 13, "y = ReduceMax <noop_with_empty_axes = 1> (x)", "meaning"),
        (22, 17, 'y = Pad <mode = "wrap"> (x, p)', "meaning"),
        (10, 13, "y = Softmax(x)", "meaning"),
    ],
)
def test_what_cannot_be_moved_is_refused_by_name(now: int, to: int, body: str, why: str) -> None:
    """The error names the node, and nothing was changed half-way in the caller's model."""
    weights = {"p": np.array([0, 1, 0, 1])} if "Pad" in body else {}
    m = model(f"g (float[2, 4] x) => (float[A, B] y) {{ {body} }}", weights, opset=now)
    node = m.graph[0]
    assert why in obstacle(node, now, to)
    with pytest.raises(ModelError) as caught:
        settled(m, to, to)
    assert node.op_type in str(caught.value)
    assert opset(m) == now
    with pytest.raises(ModelError):
        retarget(m, to, 8)


def chain(version: int, middle: str) -> onnx.ModelProto:
    """Three convolutions with *middle* between the second and the third."""
    text = f"""<ir_version: 8, opset_import: ["" : {version}]>
    g (float[1, 3, 32, 32] x) => (float[1, 8, 32, 32] y) {{
      a = Conv <pads = [1, 1, 1, 1]> (x, w) b = Conv <pads = [1, 1, 1, 1]> (a, u)
      c = {middle} y = Conv <pads = [1, 1, 1, 1]> (c, u)
    }}"""
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, inside in (("w", 3), ("u", 8)):
        array = (rng.normal(size=(8, inside, 3, 3)) / 9).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return proto


@pytest.mark.parametrize("target", ["trt:orin-nx", "npu", "drpai"])
@pytest.mark.parametrize(("version", "middle"), [(8, "Relu(b)"), (25, "Relu(b)"), (25, "Gelu(b)")])
def test_device_parts_have_an_opset_that_the_target_reads(
    target: str, version: int, middle: str, tmp_path: Path
) -> None:
    """Older and newer models build, verify, and give the vendor a file of a legal opset."""
    result = compile(chain(version, middle), target, tmp_path / "b", QUICK)
    assert result.ok
    limits = resolve_target(target).limits
    device = [part for part in result.manifest.parts if part.placement == "device"]
    assert device
    for part in device:
        written = opset(load_model(tmp_path / "b" / part.files["simulation"]))
        assert limits["opset_min"] <= written <= limits["opset_max"], part.name


@pytest.mark.parametrize("version", [0, 26, 1000])
def test_impossible_opsets_are_refused_on_loading(version: int) -> None:
    """What the installed onnx package does not know is an error that says what it knows."""
    proto = chain(17, "Relu(b)")
    proto.opset_import[0].version = (
        version if version != 26 else onnx.defs.onnx_opset_version() + 1
    )
    with pytest.raises(ModelError, match="is not supported"):
        from_bytes(proto.SerializeToString())


def test_a_type_that_is_newer_than_the_opset_stays() -> None:
    """Only the element types of Cast changed, and one of the new ones is in use."""
    m = model("g (float[2] x) => (float8e8m0[2] y) { y = Cast <to = 24> (x) }", opset=25)
    assert "float8e8m0" in obstacle(m.graph[0], 25, 21)
    assert obstacle(m.graph[0], 25, 24) == ""


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(
    "scales", [(1, 1, 2, 2), (1, 1, 1.5, 2.5), (1, 1, 3, 1), (1, 1, 1.7, 1.3)]
)
def test_upsample_becomes_the_resize_that_computes_the_same(
    mode: str, scales: tuple[float, ...]
) -> None:
    """The op ended with opset 9: every element equal in ONNX Runtime, other scales included."""
    node = f'y = Upsample <mode = "{mode}"> (x, s)'
    body = f"g (float[1, 2, 5, 7] x) => (float[a, b, c, d] y) {{ {node} }}"
    before = model(body, {"s": np.array(scales, np.float32)}, opset=9)
    moved = settled(before, 13, 17)
    assert [n.op_type for n in moved.graph] == ["Resize"]
    assert [n.op_type for n in before.graph] == ["Upsample"]
    given = feeds(before)
    assert evaluate(moved, given)["y"].tobytes() == evaluate(before, given)["y"].tobytes()


@pytest.mark.parametrize("target", ["npu:stx", "drpai:v2h", "trt:orin-nx@10.3"])
def test_upsample_reaches_the_device(target: str, tmp_path: Path) -> None:
    """A network of opset 9 that enlarges is one device part, and its bundle verifies."""
    body = """g (float[1, 3, 16, 16] x) => (float[1, 8, 32, 32] y) {
      a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w)
      b = Upsample <mode = "nearest"> (a, s)
      y = Relu (b) }"""
    weights = {
        "w": np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(np.float32),
        "s": np.array([1, 1, 2, 2], np.float32),
    }
    options = replace(QUICK, backend_options={"keep_small": "true"})
    result = compile(model(body, weights, opset=9), target, tmp_path / "b", options)
    assert result.ok
    assert [p.placement for p in result.manifest.parts] == ["device"]


def test_upsample_that_has_no_resize_stays() -> None:
    """Computed scales, and opsets whose Resize is another op."""
    body = "g (float[1, 2, 5, 7] x, float[4] s) => (float[a, b, c, d] y) { y = Upsample (x, s) }"
    (node,) = model(body, {}, opset=9).graph
    assert "meaning" in obstacle(node, 9, 17)
    constant = "g (float[1, 2, 5, 7] x) => (float[a, b, c, d] y) { y = Upsample (x, s) }"
    (node,) = model(constant, {"s": np.ones(4, np.float32)}, opset=9).graph
    assert "meaning" in obstacle(node, 9, 11)
    assert obstacle(node, 9, 13) == ""
