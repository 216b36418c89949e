"""A user's passes inside a build: held to what they say, and named when they fail."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import onnx_ir as ir
import pytest

from adcompile.cli import main
from adcompile.compiler import BuildOptions, compile
from adcompile.errors import PassError, UsageError
from adcompile.interfaces import Exactness, Pass, Report
from tests.compile.models import cnn

QUICK = BuildOptions(golden_count=1, host_code=False, cache=False, precision="fp32")


@dataclass(frozen=True)
class Swap(Pass):
    """Writes another function in the place of the first Relu."""

    name: ClassVar[str] = "swap"
    to: str = "Sigmoid"

    def run(self, model: ir.Model, report: Report) -> bool:
        node = next(node for node in model.graph if node.op_type == "Relu")
        node.op_type = self.to
        report.applied(self.name, node.name or "", self.exactness)
        return True


class Honest(Swap):
    """The same, and says so."""

    name: ClassVar[str] = "honest"
    exactness: ClassVar[Exactness] = Exactness.APPROXIMATE


def test_a_pass_that_is_not_exact_is_named(tmp_path: Path) -> None:
    """It is refused where it ran, not found at the end; an honest one needs to be allowed."""
    with pytest.raises(PassError, match="pass swap changes what the model computes") as caught:
        compile(cnn(), "npu", tmp_path / "b", replace(QUICK, passes=(Swap(),)))
    assert "SNR" in caught.value.why
    assert compile(cnn(), "npu", tmp_path / "c", replace(QUICK, passes=(Swap("Relu"),))).ok
    with pytest.raises(UsageError, match="honest is approximate"):
        compile(cnn(), "npu", tmp_path / "d", replace(QUICK, passes=(Honest(),)))


def test_a_pass_that_fails_is_shown_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """File and line of the user's own code; a file without a class lists its classes."""
    ir.save(ir.from_proto(cnn()), tmp_path / "m.onnx")
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import dataclass\nfrom adcompile import Pass\n\n"
        "@dataclass(frozen=True)\nclass Boom(Pass):\n    name = 'boom'\n"
        "    def run(self, model, report):\n        return 1 / 0 > 1\n"
    )
    command = ["check", str(tmp_path / "m.onnx"), "-t", "npu", "--pass"]
    assert main([*command, f"{file}:Boom"]) == 4
    said = capsys.readouterr().err
    assert f"{file}:8, in run" in said
    assert "ZeroDivisionError" in said
    assert main([*command, str(file)]) == 2
    assert f"{file}:NAME; its classes: Boom" in capsys.readouterr().err
