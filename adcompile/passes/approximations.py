"""approximations: other functions that a device computes faster. Each must be allowed by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from adcompile.interfaces import Exactness
from adcompile.rewrite.driver import RewritePass
from adcompile.rewrite.pattern import Any, Const, Match, op
from adcompile.rewrite.rules import Refuse, Rule, rule, typed_like

_SQRT_2 = float(np.sqrt(2.0))


@rule(
    op("Mul", Any("x"), op("Sigmoid", Any("x")), any_order=True),
    exactness=Exactness.APPROXIMATE,
    opset=14,
)
def silu_as_hard_swish(m: Match) -> ir.Node:
    """x * sigmoid(x) becomes HardSwish: piecewise, off by at most 0.14 near -3 and 3."""
    return typed_like(ir.Node("", "HardSwish", [m["x"]]), m.output)


@rule(op("Sigmoid", Any("x")), exactness=Exactness.APPROXIMATE)
def sigmoid_as_hard_sigmoid(m: Match) -> ir.Node:
    """Sigmoid becomes HardSigmoid with slope 1/6: off by at most 0.07."""
    attributes = [ir.AttrFloat32("alpha", 1 / 6), ir.AttrFloat32("beta", 0.5)]
    return typed_like(ir.Node("", "HardSigmoid", [m["x"]], attributes), m.output)


@rule(
    op(
        "Mul",
        op("Mul", Any("x"), op("Add", op("Erf", op("Div", Any("x"), Const("root"))), Const("one"),
                               any_order=True), any_order=True),
        Const("half"),
        any_order=True,
    ),
    exactness=Exactness.APPROXIMATE,
    opset=20,
)  # fmt: skip
def gelu_as_tanh_gelu(m: Match) -> ir.Node:
    """The exact GELU, written with Erf, becomes Gelu with the tanh formula: off by 0.0005."""
    wanted = {"root": _SQRT_2, "one": 1.0, "half": 0.5}
    for name, number in wanted.items():
        array = m.array(name)
        if array.size != 1 or not np.allclose(array, number, rtol=1e-3):
            raise Refuse(f"a constant is not {number:.4g}")
    return typed_like(
        ir.Node("", "Gelu", [m["x"]], [ir.AttrString("approximate", "tanh")]), m.output
    )


RULES: Sequence[Rule] = (silu_as_hard_swish, gelu_as_tanh_gelu, sigmoid_as_hard_sigmoid)


@dataclass(frozen=True)
class Approximations(RewritePass):
    """Applies those approximate rules that are allowed by name; without any it does nothing."""

    name: ClassVar[str] = "approximations"
    summary: ClassVar[str] = "cheaper activations, each only when allowed by name"
    rules: ClassVar[Sequence[Rule]] = RULES
