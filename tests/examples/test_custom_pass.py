"""The worked example of a pass and a rule of one's own does what its page says."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from adcompile import registry
from adcompile.cli import main
from adcompile.errors import UsageError
from adcompile.interfaces import Report
from adcompile.ir import model_io
from adcompile.rewrite.instruments import Verify
from adcompile.rewrite.pipeline import Pipeline, known_passes
from tests.rewrite.build import assert_same, feeds, model, ops

FILE = "examples/custom_pass/my_passes.py"
F = np.float32
TEXT = (
    "g (float[2,3] x) => (float[2,3] y, float[2,3] aux) "
    "{ a = Add(three, x) b = Clip(a, zero, six) c = Mul(b, x) y = Div(c, six) aux = Exp(x) }"
)
WEIGHTS = {"three": np.asarray(3, F), "zero": np.asarray(0, F), "six": np.asarray(6, F)}


def test_the_rule() -> None:
    """Four operators become HardSwish, with the same results; other constants stay."""
    m = model(TEXT, WEIGHTS)
    before = m.clone()
    Pipeline.parse(f'"{FILE}:FuseHardSwish"').run(m, Report(), [Verify([feeds(m)])])
    assert sorted(ops(m)) == ["Exp", "HardSwish"]
    assert_same(before, m, feeds(m))
    other = model(TEXT, WEIGHTS | {"three": np.asarray(2, F)})
    report = Report()
    assert not Pipeline.parse(f'"{FILE}:FuseHardSwish"').run(other, report)
    assert report.refusals[0][2] == "the constant called three is not 3"


def test_the_pass_and_its_option() -> None:
    """The named output goes, and with dead-code what only it needed; a wrong name is an error."""
    m = model(TEXT, WEIGHTS)
    Pipeline.parse(f'"{FILE}:DropOutput"{{output=aux}},dead-code').run(m, Report())
    assert [v.name for v in m.graph.outputs] == ["y"]
    assert "Exp" not in ops(m)
    with pytest.raises(UsageError, match="no output 'nose'"):
        Pipeline.parse(f'"{FILE}:DropOutput"{{output=nose}}').run(m, Report())


def test_the_commands_on_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``adcompile optimize`` takes both ways of naming a pass in a file."""
    source, target = tmp_path / "m.onnx", tmp_path / "out.onnx"
    model_io.save_model(model(TEXT, WEIGHTS), source)
    command = ["optimize", str(source), "-o", str(target)]
    assert main([*command, "--pass", f"{FILE}:FuseHardSwish", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["hits"]["hard-swish"] == 1
    assert "HardSwish" in ops(model_io.load_model(target))
    passes = f'"{FILE}:DropOutput"{{output=aux}},dead-code'
    assert main([*command, "--passes", passes, "--verify-passes"]) == 0
    assert [v.name for v in model_io.load_model(target).graph.outputs] == ["y"]


def test_the_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed plug-in's pass is listed and used by name."""

    def installed(group: str) -> list[EntryPoint]:
        found = EntryPoint("drop-output", f"{FILE}:DropOutput", group)
        return [found] if group == "adcompile.passes" else []

    monkeypatch.setattr(registry, "entry_points", installed)
    assert "drop-output" in known_passes()
    m = model(TEXT, WEIGHTS)
    Pipeline.parse("drop-output{output=aux}").run(m, Report())
    assert [v.name for v in m.graph.outputs] == ["y"]
