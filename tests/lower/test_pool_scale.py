"""AveragePool with its kernel's scaling fused behind it keeps one grid from end to end."""

from __future__ import annotations

import onnx_ir as ir

from adcompile.backends.npu.schemes import XINT8
from adcompile.ir.constants import lift_constants
from adcompile.ir.shapes import infer_shapes
from adcompile.lower.points import plan_points


def test_the_value_behind_a_fused_scaling_is_tied() -> None:
    """The kernel writes past the scaling, so that value shares the grid of the pool's input."""
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y) {
      a = Relu (x)
      p = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (a)
      c = Constant <value_float = 0.98> ()
      s = Mul (p, c)
      y = Relu (s)
    }""")
    lift_constants(model)
    infer_shapes(model)
    group = next(g for g in plan_points(model, XINT8).groups if "a" in g)
    assert "s" in group or "y" in group
