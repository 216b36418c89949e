"""Models of the onnx package's backend tests, optimised and executed: a sample of all of them.

``python benchmarks/conformance.py`` runs every one and lists what ONNX Runtime itself cannot run.
"""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from benchmarks import conformance

SAMPLED = 40  # every Nth case of the onnx package in the default run


@pytest.mark.parametrize("mode", ["plain", "constants"])
def test_sample(mode: str) -> None:
    """No optimised model gives other results, and none fails."""
    chosen = itertools.islice(conformance.cases(("node", "simple")), 7, None, SAMPLED)
    outcomes = [o for case in chosen for o in conformance.check(case, mode, verify=True)]
    wrong = [(o.case, o.state, o.why) for o in outcomes if o.state in ("different", "error")]
    assert wrong == []
    assert Counter(o.state for o in outcomes)["same"] > 25


@pytest.mark.parametrize("group", ["pytorch-converted", "pytorch-operator"])
def test_old_exports(group: str) -> None:
    """Models of opset 6 keep their results too."""
    chosen = itertools.islice(conformance.cases((group,)), 3, None, 12)
    outcomes = [o for case in chosen for o in conformance.check(case, "plain", verify=True)]
    assert [o for o in outcomes if o.state in ("different", "error")] == []
    assert any(o.state == "same" for o in outcomes)


def test_the_comparison_can_fail() -> None:
    """A harness that finds every result equal would prove nothing."""

    a = np.asarray([1.0, 2.0], np.float32)
    assert conformance.same(a, a) == ""
    assert conformance.same(a, a + 0.1) != ""
    assert conformance.same(a, a.astype(np.float64)) != ""
    assert conformance.same(a, a[None]) != ""
    assert conformance.same([a], [a, a]) != ""
    assert conformance.same(None, a) != ""
    assert conformance.same(a > 1, a > 0) != ""
