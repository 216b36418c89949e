"""Accuracy search: the fewest float nodes that hold a budget."""

from __future__ import annotations

import pytest

from adcompile.backends.npu.schemes import XINT8
from adcompile.errors import UsageError
from adcompile.lower.insert import name_nodes
from adcompile.lower.quantize import quantize
from adcompile.lower.search import (
    Step,
    node_macs,
    pareto,
    parse_budget,
    search,
    sensitivity,
    snr_of,
)
from tests.lower.networks import residual, samples


def test_a_budget_is_met_with_few_nodes() -> None:
    """A bound above plain quantization keeps some nodes in float, not all."""
    model = residual()
    name_nodes(model)
    data, evaluate = samples(model), snr_of(model, samples(model, 2, seed=5))

    def run(floats: frozenset[str]) -> object:
        return quantize(model, data, XINT8, floats)

    rows = sensitivity(model, XINT8, run, evaluate)  # type: ignore[arg-type]
    assert len(rows) == 4
    plain = evaluate(quantize(model, data, XINT8))["snr"]
    work = node_macs(model)
    order = [r.node for r in rows]
    budget = parse_budget(f"snr>={plain + 0.1}")
    found = search(order, work, run, evaluate, budget)  # type: ignore[arg-type]
    if found.chosen is not None:
        assert found.chosen.floats
        assert budget.holds(found.chosen.metrics)
    assert found.steps[0].floats == ()


def test_the_search_finds_the_smallest_count() -> None:
    """With a metric that grows with every float node, exactly the needed number is kept."""
    order = [f"n{i}" for i in range(20)]
    found = search(
        order, dict.fromkeys(order, 1), lambda kept: kept, lambda kept: {"snr": float(len(kept))},  # type: ignore
        parse_budget("snr >= 13"),
    )  # fmt: skip
    assert found.chosen is not None
    assert len(found.chosen.floats) == 13
    assert len(found.steps) < 12


def test_an_impossible_budget_says_so() -> None:
    """No step holds: none is chosen, all are kept."""
    found = search(["a"], {"a": 1}, lambda k: k, lambda k: {"snr": 0.0}, parse_budget("snr>=9"))  # type: ignore
    assert found.chosen is None
    assert len(found.steps) == 2


@pytest.mark.parametrize("text", ["", "snr", "snr>30", "snr>=x", "1>=2", "snr>=1;rm"])
def test_a_wrong_budget_is_refused(text: str) -> None:
    """Only NAME>=NUMBER and NAME<=NUMBER."""
    with pytest.raises(UsageError):
        parse_budget(text)


def test_pareto_drops_what_is_beaten() -> None:
    """More float work without a better metric is not on the list."""
    steps = [Step((), 0.0, {"m": 1}), Step(("a",), 0.2, {"m": 1}), Step(("b",), 0.4, {"m": 3})]
    assert [s.floats for s in pareto(steps, "m")] == [(), ("b",)]
