"""Long statements of the generated code are broken where a careful person would."""

from __future__ import annotations

from adcompile.backends.host.codegen.statements import WIDTH, wrap

OPERANDS = ", ".join(f"roi_heads_mask_roi_pool_Gather_{i}" for i in range(4))


def test_operands_after_a_lambda_are_broken() -> None:
    """The brace that closes a lambda opens no other depth than the call's."""
    text = wrap("op::map(out, [](float a) {\n    return a;\n  }, " + OPERANDS + ");", 2)
    assert max(map(len, text.split("\n"))) <= WIDTH
    assert " ".join(text.split()) == "op::map(out, [](float a) { return a; }, " + OPERANDS + ");"


def test_template_arguments_stay_together() -> None:
    """A call is broken between its own arguments first."""
    name = "a_long_name_of_a_value"
    text = wrap(f"const View<Index> {name} = op::reduce<op::ReduceProd, Index>({OPERANDS});", 2)
    assert "op::reduce<op::ReduceProd, Index>(roi_heads" in text
    assert max(map(len, text.split("\n"))) <= WIDTH
