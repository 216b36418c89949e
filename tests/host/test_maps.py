"""Fused chains of elementwise operators: the same numbers, whichever operands are fixed along a row."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from adcompile.ir.evaluate import evaluate
from tests.host.support import CHECKED, Array, build, model

WHOLE, FIXED, ROW = "2, 3, 5, 7", "3, 1, 1", "7"
"""Shapes of an operand: all of the result, one number for a plane, one row for all."""
CHAINS = {
    2: "y = Sub (a, b)",
    3: "t = Sub (a, b)  y = Div (t, c)",
    4: "t = Sub (a, b)  u = Div (t, c)  y = Add (u, d)",
    5: "t = Sub (a, b)  u = Div (t, c)  v = Mul (u, d)  y = Add (v, e)",
}


def chain(shapes: tuple[str, ...]) -> ir.Model:
    inputs = ", ".join(
        f"float[{shape}] {name}" for shape, name in zip(shapes, "abcde", strict=False)
    )
    return model(f"net ({inputs}) => (float[{WHOLE}] y) {{ {CHAINS[len(shapes)]} }}")


def choices() -> dict[str, ir.Model]:
    """Every choice of fixed operands beside a whole one, and of rows for three."""
    kinds = {2: (WHOLE, FIXED), 3: (WHOLE, FIXED, ROW), 4: (WHOLE, FIXED), 5: (WHOLE, FIXED)}
    return {
        f"part_{count}_{number}": chain(shapes)
        for count, some in kinds.items()
        for number, shapes in enumerate(product(some, repeat=count))
        if WHOLE in shapes
    }


@pytest.mark.parametrize("flags", [CHECKED, ("-O3",)], ids=["checked", "optimised"])
def test_every_choice_of_fixed_operands(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """Bit-equal to ONNX Runtime."""
    models = choices()
    assert len(models) == 3 + 19 + 15 + 31
    library = build(list(models.items()), tmp_path, flags)
    rng = np.random.default_rng(0)
    for name, made in models.items():
        feeds: dict[str, Array] = {}
        for value in made.graph.inputs:
            assert value.shape is not None
            feeds[value.name or ""] = rng.normal(size=value.shape.numpy()).astype(np.float32)
        part = library.part(name)
        np.testing.assert_array_equal(part.run(feeds)["y"], evaluate(made, feeds)["y"], name)
        part.close()
