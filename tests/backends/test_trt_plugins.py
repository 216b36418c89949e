"""Plugin surgery: TensorRT's file has the plugin, everything else keeps the standard operator."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from adcompile.backends.trt.plugins import Plugin, read_plugins
from adcompile.cli import main
from adcompile.compiler import BuildOptions, compile
from adcompile.errors import ToolMissing, UsageError

TEXT = """<ir_version: 8, opset_import: ["" : 17]>
g (float[1, 3, 16, 16] x) => (float[1, 8, 16, 16] y) {
  a = Conv <pads = [1, 1, 1, 1]> (x, w)
  b = InstanceNormalization <epsilon = 0.01> (a, s, s)
  y = Relu(b)
}"""


def model() -> onnx.ModelProto:
    proto = onnx.parser.parse_model(TEXT)
    rng = np.random.default_rng(0)
    for name, shape in (("w", (8, 3, 3, 3)), ("s", (8,))):
        array = rng.normal(size=shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return proto


def options(target_options: dict[str, str]) -> BuildOptions:
    return BuildOptions(
        precision="fp32",
        golden_count=1,
        host_code=False,
        cache=False,
        backend_options=target_options,
    )


def test_the_recipe_builds_the_file_with_the_plugin(tmp_path: Path) -> None:
    """Name, version and fields are in the file that trtexec reads; the simulation verifies."""
    asked = {
        "plugins": "InstanceNormalization=Norm_TRT@2:relu=1,slope=0.5",
        "plugin_library": "libnorm.so",
    }
    result = compile(model(), "trt:orin-nx", tmp_path / "b", options(asked))
    assert result.ok
    (part,) = result.manifest.parts
    changed = onnx.load(tmp_path / "b" / part.files["plugins"])
    (node,) = [n for n in changed.graph.node if n.op_type == "Norm_TRT"]
    found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    assert found["plugin_version"] == b"2"
    assert (found["relu"], found["slope"]) == (1, 0.5)
    assert found["epsilon"] == pytest.approx(0.01)
    plain = onnx.load(tmp_path / "b" / part.files["simulation"])
    assert "InstanceNormalization" in [n.op_type for n in plain.graph.node]
    script = (tmp_path / "b" / part.files["recipe"]).read_text()
    assert "model.plugins.onnx" in script
    assert "--staticPlugins=libnorm.so" in script


def test_a_plugin_that_is_not_there_leaves_a_bundle_that_says_so(tmp_path: Path) -> None:
    """The builder on this machine does not know the plugin: the action failed, the rest stands."""
    asked = {"plugins": "InstanceNormalization=NoSuchPlugin"}
    result = compile(model(), "trt:rtx-ada", tmp_path / "b", options(asked))
    assert result.ok
    (action,) = result.manifest.actions
    assert action.state == "failed"
    assert "plan" not in result.manifest.parts[0].files


@pytest.mark.parametrize("text", ["Norm", "Norm=", "=X", "Norm=X:a", "Norm=X Y"])
def test_wrong_plugins_are_usage_errors(text: str) -> None:
    """The message shows how to write it."""
    with pytest.raises(UsageError) as caught:
        read_plugins(text)
    assert "OP=PLUGIN" in str(caught.value)


def test_several_plugins() -> None:
    """Semicolons separate them; the version is 1 unless given."""
    assert read_plugins("a::B=C; D=E@3:x=1") == (
        Plugin("a::B", "C", "1"),
        Plugin("D", "E", "3", (("x", 1),)),
    )


def test_without_graphsurgeon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing package is exit code 3 with the extra to install, and no bundle."""
    monkeypatch.setitem(sys.modules, "onnx_graphsurgeon", None)
    asked = {"plugins": "InstanceNormalization=Norm_TRT"}
    with pytest.raises(ToolMissing, match="adcompile"):
        compile(model(), "trt:orin-nx", tmp_path / "b", options(asked))
    onnx.save(model(), tmp_path / "m.onnx")
    command = ["build", str(tmp_path / "m.onnx"), "-t", "trt:orin-nx", "--precision", "fp32"]
    arguments = ["-O", f"plugins={asked['plugins']}", "-o", str(tmp_path / "b")]
    assert main([*command, *arguments]) == 3
    assert not (tmp_path / "b").exists()
