"""explain: at which stage a rule stops at a node, in words, without changing the model."""

from __future__ import annotations

import numpy as np
import pytest

from adcompile.errors import UsageError
from adcompile.interfaces import Report
from adcompile.ir.dump import dump
from adcompile.rewrite.explain import explain, find_node, find_rule
from tests.rewrite.build import model

TEXT = "g (float[2] x) => (float[2] y) { a = Mul(x, one) b = Mul(a, two) y = Sigmoid(b) }"
WEIGHTS = {"one": np.ones(1, np.float32), "two": np.full(1, 2, np.float32)}


@pytest.mark.parametrize(
    ("rule", "value", "opset", "stage", "why"),
    [
        ("mul-by-one", "a", 17, "", "it applies here"),
        ("mul-by-one", "b", 17, "condition", "the constant is not 1"),
        ("mul-by-one", "y", 17, "pattern", "is not Mul"),
        ("silu-as-hard-swish", "a", 13, "opset", "the rule knows 14"),
        ("sigmoid-as-hard-sigmoid", "y", 17, "permission", "--allow sigmoid-as-hard-sigmoid"),
    ],
)
def test_stages(rule: str, value: str, opset: int, stage: str, why: str) -> None:
    """Opset, pattern, permission, condition, or that it applies; the model stays as it was."""
    m = model(TEXT, WEIGHTS, opset=opset)
    before = dump(m)
    _, found = find_rule(rule)
    answer = explain(found, find_node(m, value), m, Report())
    assert answer.stage == stage
    assert why in answer.why
    assert answer.applies == (stage == "")
    assert dump(m) == before
    assert len(m.graph.inputs[0].uses()) == 1


def test_unknown_names() -> None:
    """Unknown rules and nodes come with the closest known ones."""
    with pytest.raises(UsageError) as error:
        find_rule("mul-by-two")
    assert "mul-by-one" in error.value.fix
    m = model(TEXT, WEIGHTS)
    m.graph[0].name = "first"
    assert find_node(m, "first") is m.graph[0]
    with pytest.raises(UsageError) as error:
        find_node(m, "frst")
    assert "first" in error.value.fix
    assert find_rule("mul-by-one")[0] == "clean-up"
