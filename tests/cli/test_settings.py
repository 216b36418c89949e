"""``--set NODE attribute=value`` on the verbs that see a model: the changed model is the reference."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import adcompile
from adcompile.cli import main
from adcompile.compiler import BuildOptions, compile
from tests.compile.models import cnn

QUICK = BuildOptions(precision="fp32", golden_count=1, host_code=False, cache=False)


def conv_names(model: onnx.ModelProto) -> list[str]:
    return [node.name for node in model.graph.node if node.op_type == "Conv"]


def test_a_build_with_a_changed_attribute_verifies_against_the_changed_model(
    tmp_path: Path,
) -> None:
    """Dilation changes the numbers; the bundle agrees with the changed model and records the change."""
    model = cnn()
    name = conv_names(model)[0]
    options = replace(QUICK, settings=(f"{name} dilations=2,2", f"{name} pads=2,2,2,2"))
    result = compile(model, "npu", tmp_path / "b", options)
    assert result.ok
    changes = [r for r in result.manifest.rewrites if r.rule == "set-attribute"]
    assert [(r.node, r.exactness) for r in changes] == [(name, "approximate")] * 2
    assert "set-attribute" in result.manifest.pipeline
    compile(model, "npu", tmp_path / "a", QUICK)
    with adcompile.load(tmp_path / "a") as plain, adcompile.load(tmp_path / "b") as changed:
        shape = [d for d in plain.inputs[0].shape if isinstance(d, int)]
        image = np.random.default_rng(0).random(shape, dtype=np.float32)
        feeds = {plain.inputs[0].name: image}
        (a,), (b,) = plain.run(feeds).outputs.values(), changed.run(feeds).outputs.values()
    assert a.shape == b.shape
    assert abs(a.astype(float) - b.astype(float)).max() > 1e-4


@pytest.mark.parametrize("verb", ["check", "plan", "build"])
@pytest.mark.parametrize(
    ("text", "words"),
    [("nothing", "cannot read --set"), ("nobody a=1", "no node called 'nobody'")],
)
def test_wrong_settings_are_usage_errors(
    verb: str, text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and how to write it."""
    path = tmp_path / "m.onnx"
    onnx.save(cnn(), path)
    assert main([verb, str(path), "-t", "npu", "--set", text]) == 2
    assert words in capsys.readouterr().err


def test_plan_and_build_read_pins_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name, an op and a regular expression; the plan that ``plan`` prints is the one of ``build``."""
    path = tmp_path / "m.onnx"
    onnx.save(cnn(), path)
    first = conv_names(cnn())[0]
    for pin in (f"{first}=host", "op:Conv=host", f"re:^{first}$=host"):
        main(["plan", str(path), "-t", "npu", "--precision", "fp32", "--pin", pin, "--json"])
        planned = json.loads(capsys.readouterr().out)
        name, _, where = pin.rpartition("=")
        options = replace(QUICK, force=True, pins={name: where})
        result = compile(path, "npu", tmp_path / "b", options)
        built = [(p.name, p.placement, p.nodes) for p in result.manifest.parts]
        assert built == [(p["name"], p["placement"], len(p["nodes"])) for p in planned["parts"]]
        assert "host" in {placement for _, placement, _ in built}
