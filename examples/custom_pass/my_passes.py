"""Two passes of your own: one with rules, one with code. Copy this file and change it.

    adcompile optimize model.onnx -o out.onnx --pass my_passes.py:FuseHardSwish
    adcompile optimize model.onnx -o out.onnx --pass 'my_passes.py:DropOutput{output=aux}'

A package makes its passes known by name with an entry point in its pyproject.toml:

    [project.entry-points."adcompile.passes"]
    drop-output = "my_package.my_passes:DropOutput"
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from adcompile.errors import UsageError
from adcompile.interfaces import Exactness, Pass, Report
from adcompile.rewrite.driver import RewritePass
from adcompile.rewrite.pattern import Any, Const, Match, op
from adcompile.rewrite.rules import Refuse, Rule, rule, typed_like

# A rule: what to look for, and what to put in its place. The pattern reads like the expression it
# matches: x * clip(x + 3, 0, 6) / 6.


@rule(
    op(
        "Div",
        op(
            "Mul",
            Any("x"),
            op(
                "Clip",
                op("Add", Any("x"), Const("three"), any_order=True),
                Const("zero"),
                Const("six"),
            ),
            any_order=True,
        ),
        Const("divisor"),
    ),
    opset=14,
)
def hard_swish(m: Match) -> ir.Node:
    """x * clip(x + 3, 0, 6) / 6 is HardSwish(x)."""
    wanted = {"three": 3.0, "zero": 0.0, "six": 6.0, "divisor": 6.0}
    for name, number in wanted.items():
        if not np.all(m.array(name) == number) or m.array(name).size != 1:
            raise Refuse(f"the constant called {name} is not {number:g}")
    return typed_like(ir.Node("", "HardSwish", [m["x"]]), m.output)


@dataclass(frozen=True)
class FuseHardSwish(RewritePass):
    """Writes the four operators of an exported HardSwish as one."""

    name: ClassVar[str] = "fuse-hard-swish"
    summary: ClassVar[str] = "four operators to one HardSwish"
    rules: ClassVar[Sequence[Rule]] = (hard_swish,)


# A pass: any change of the model. Options are fields, and say on the command line what they are
# called here.


@dataclass(frozen=True)
class DropOutput(Pass):
    """Removes an output of the model, such as an auxiliary head that only training needs."""

    name: ClassVar[str] = "drop-output"
    summary: ClassVar[str] = "remove one output: drop-output{output=aux}"
    exactness: ClassVar[Exactness] = Exactness.EXACT  # what is left computes the same
    output: str = ""

    def run(self, model: ir.Model, report: Report) -> bool:
        """Take the output away; dead-code removes what only it needed."""
        outputs = list(model.graph.outputs)
        kept = [value for value in outputs if value.name != self.output]
        if len(kept) == len(outputs):
            known = ", ".join(str(value.name) for value in outputs)
            raise UsageError(f"the model has no output {self.output!r}", fix=f"it has {known}")
        model.graph.outputs.clear()
        model.graph.outputs.extend(kept)
        report.applied(self.name, self.output)
        return True
