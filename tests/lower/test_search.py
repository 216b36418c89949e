"""Accuracy search: the fewest promoted nodes that hold a budget."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adcompile.backends.npu.dialect import violations
from adcompile.backends.npu.schemes import A8W8, XINT8
from adcompile.errors import UsageError
from adcompile.interfaces import Trial
from adcompile.lower.choices import kernels
from adcompile.lower.draft import Draft
from adcompile.lower.insert import name_nodes
from adcompile.lower.quantize import quantize
from adcompile.lower.scheme import Scheme
from adcompile.lower.search import (
    Noise,
    Search,
    Step,
    decibels,
    fewest,
    pareto,
    parse_budget,
    sensitivity,
)
from tests.lower.networks import head, residual, samples


def test_sensitivity_names_every_computing_node() -> None:
    """Isolated error is smaller than that of the whole; the last cumulative one is the whole's."""
    model = residual()
    name_nodes(model)
    draft = Draft(model, samples(model), XINT8)
    noise = Noise(model, samples(model, 2, seed=5))
    trial = Trial(draft.nodes, draft)
    rows = {s.node: s for s in sensitivity(model, trial, noise, noise)}
    assert tuple(rows) != draft.nodes  # worst first, not in order
    assert set(rows) == {"n_c1", "n_c2", "n_c3", "n_sum", "n_gap", "n_y"}
    whole = decibels(noise(draft(frozenset())))
    assert min(s.isolated for s in rows.values()) > whole
    assert {name for name, s in rows.items() if s.macs} == {"n_c1", "n_c2", "n_c3", "n_y"}
    assert rows["n_y"].cumulative == pytest.approx(whole, abs=0.2)


@pytest.mark.parametrize("scheme", [XINT8, A8W8], ids=lambda s: s.name)
def test_a_draft_is_the_quantizer_with_nodes_taken_out(scheme: Scheme) -> None:
    """With nothing taken out it is the plain model; every variant obeys the dialect."""
    model = residual()
    name_nodes(model)
    data = samples(model)
    noise = Noise(model, data)
    draft = Draft(model, data, scheme)
    plain = replace(scheme, refine_rounding=False)
    assert noise(draft(frozenset())) == noise(quantize(model, data, plain))
    for names in draft.sets:
        variant = draft(frozenset(names))
        assert violations(variant, scheme.name) == []
        assert noise(variant) < 0.02
    everything = frozenset(n.name or "" for n in model.graph)
    assert noise(draft(everything)) < 1e-9


def test_region_heads_have_candidates() -> None:
    """A free number of rows does not hide the work of a head."""
    model = head()
    name_nodes(model)
    assert kernels(model, XINT8) == ["n_c1", "n_c2", "n_fc", "n_y"]


def _count(number: int) -> Step:
    return Step((), (), number, number / 20, {"snr": float(number)})


def test_the_search_finds_the_smallest_count() -> None:
    """With a metric that grows with every promotion, exactly the needed number is promoted."""
    found = fewest(20, _count, parse_budget("snr >= 13"))
    assert found.chosen is not None
    assert found.chosen.promoted == 13
    assert len(found.steps) < 12


def test_an_impossible_budget_says_so() -> None:
    """No step holds: none is chosen, all are kept."""
    found = fewest(1, _count, parse_budget("snr>=9"))
    assert found == Search(None, (_count(0), _count(1)))


def test_an_upper_bound_is_a_budget_too() -> None:
    """A loss may be limited instead of a score; an unknown metric names those there are."""
    budget = parse_budget("segm_loss <= 0.02")
    assert budget.holds({"segm_loss": 0.02})
    assert not budget.holds({"segm_loss": 0.03})
    assert str(budget) == "segm_loss<=0.02"
    with pytest.raises(UsageError, match="no metric"):
        budget.holds({"snr": 3.0})


@pytest.mark.parametrize(
    "text", ["", "snr", "snr>30", "snr>=x", "1>=2", "snr>=1;rm", "snr>=1.2.3"]
)
def test_a_wrong_budget_is_refused(text: str) -> None:
    """Only NAME>=NUMBER and NAME<=NUMBER."""
    with pytest.raises(UsageError):
        parse_budget(text)


def test_pareto_drops_what_is_beaten() -> None:
    """More promoted nodes without a better metric are not on the list."""
    steps = [Step((), (), n, 0.0, {"m": m}) for n, m in ((0, 1.0), (2, 1.0), (4, 3.0))]
    assert [s.promoted for s in pareto(steps, parse_budget("m>=9"))] == [0, 4]
    assert [s.promoted for s in pareto(steps, parse_budget("m<=0"))] == [0]
