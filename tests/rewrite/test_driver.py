"""The driver: names, types, provenance, graph outputs, subgraphs, fixed point, refusals."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from adcompile.errors import PassError
from adcompile.interfaces import Report
from adcompile.ir.constants import const
from adcompile.ir.graph import provenance
from adcompile.passes.clean_up import identity, undone
from adcompile.rewrite.driver import Driver
from adcompile.rewrite.pattern import Any, Match, op
from adcompile.rewrite.rules import Refuse, rule
from adcompile.rewrite.surgery import remove_dead_nodes
from tests.rewrite.build import assert_same, feeds, model, ops, run_rules


@rule(op("Relu", op("Neg", Any("x"))))
def relu_of_neg(m: Match) -> ir.Node:
    """Relu(Neg(x)) as Neg(Min(x, 0)): two new nodes and a constant."""
    inner = ir.Node("", "Min", [m["x"], const(np.zeros(1, np.float32), "zero")])
    return ir.Node("", "Neg", inner.outputs)


def test_new_nodes_inherit_everything() -> None:
    """Names, types, shapes and provenance of what is replaced go to what replaces it."""
    m = model("g (float[2] x) => (float[2] y) { a = Neg(x) b = Relu(a) y = Abs(b) }")
    first, second, _ = m.graph
    first.name, second.name = "n1", "n2"
    run_rules(m, relu_of_neg)
    assert ops(m) == ["Min", "Neg", "Abs"]
    new = list(m.graph)[1]
    assert new.outputs[0].name == "b"
    assert new.outputs[0].dtype == ir.DataType.FLOAT
    assert new.outputs[0].shape == [2]
    assert provenance(new) == ("n2", "n1")
    assert new.metadata_props["adcompile.rule"] == "relu-of-neg"
    assert "zero" in m.graph.initializers


def test_provenance_is_passed_on() -> None:
    """A node made from made nodes still knows the original ones."""

    @rule(op("Neg", op("Min", Any("x"), Any())))
    def back(m: Match) -> ir.Node:
        return ir.Node("", "Abs", [m["x"]])

    m = model("g (float[2] x) => (float[2] y) { a = Neg(x) y = Relu(a) }")
    first, second = m.graph
    first.name, second.name = "n1", "n2"
    Driver(m, [relu_of_neg, back], Report()).run()
    (node,) = m.graph
    assert node.op_type == "Abs"
    assert provenance(node) == ("n2", "n1")


def test_graph_outputs_keep_their_names() -> None:
    """Whatever replaces a graph output takes its name; an input gets an Identity."""
    m = model(
        "g (float[2] x) => (float[2] y) { a = Neg(x) b = Neg(a) c = Abs(b) y = Identity(c) }"
    )
    run_rules(m, identity)
    assert [v.name for v in m.graph.outputs] == ["y"]
    m = model("g (float[2] x) => (float[2] y) { a = Neg(x) y = Neg(a) }")
    run_rules(m, undone)
    assert ops(m) == ["Identity"]
    assert [v.name for v in m.graph.outputs] == ["y"]


def test_two_outputs_of_one_value_stay_apart() -> None:
    """An output that equals another output keeps a node of its own."""
    m = model("g (float[2] x) => (float[2] y, float[2] z) { y = Relu(x) a = Neg(y) z = Neg(a) }")
    run_rules(m, undone)
    assert ops(m) == ["Relu", "Identity"]


def test_rules_work_inside_subgraphs() -> None:
    """Branches and bodies are rewritten; values of the outer graph may be captured."""
    m = model(
        "g (float[2] x, bool c) => (float[2] y) { a = Abs(x) y = If(c) "
        "<then_branch = t () => (float[2] p) { q = Neg(a) p = Neg(q) }, "
        "else_branch = e () => (float[2] r) { s = Neg(a) u = Neg(s) r = Relu(u) }> }"
    )
    before = m.clone()
    Driver(m, [undone], Report()).run()
    assert sorted(ops(m)) == ["Abs", "Identity", "If", "Relu"]
    for choice in (True, False):
        assert_same(before, m, feeds(m) | {"c": np.asarray(choice)})


def test_outer_node_stays_when_a_branch_used_it() -> None:
    """A shared match across graphs leaves the outer node alone while others read it."""
    m = model(
        "g (float[2] x, bool c) => (float[2] y, float[2] z) { a = Neg(x) z = Abs(a) y = If(c) "
        "<then_branch = t () => (float[2] p) { q = Neg(a) p = Relu(q) }, "
        "else_branch = e () => (float[2] r) { r = Relu(x) }> }"
    )
    run_rules(m, undone)
    assert ops(m) == ["Neg", "Abs", "If", "Relu", "Relu"]


@pytest.mark.parametrize("matched", [True, False])
def test_a_branch_that_is_removed_reads_nothing_more(matched: bool) -> None:
    """What only the branches of a removed If captured is dead: matched itself, or behind the match."""
    branches = (
        "then_branch = t () => (float[2] p) { p = Abs(kept) }, "
        "else_branch = e () => (float[2] q) { q = Relu(kept) }"
    )
    m = model(
        "g (float[2] x, bool c) => (float[2] y) "
        f"{{ kept = Neg(x) chosen = If<{branches}>(c) s = Exp(chosen) y = Sub(x, s) }}"
    )
    below = op("Exp", Any()) if not matched else op("Exp", op("If", Any()))

    @rule(op("Sub", Any("x"), below))
    def minuend(match: Match) -> ir.Node:
        return ir.Node("", "Floor", [match["x"]])

    assert Driver(m, [minuend], Report()).run()
    assert remove_dead_nodes(m.graph) == 1
    assert ops(m) == ["Floor"]


def test_refusals_are_recorded_once_and_leave_no_trace() -> None:
    """A rule that builds a node and then refuses does not leave a phantom reader behind."""

    @rule(op("Relu", Any("x")))
    def never(m: Match) -> ir.Node:
        ir.Node("", "Abs", [m["x"]])
        raise Refuse("not today")

    m = model("g (float[2] x) => (float[2] y) { a = Neg(x) y = Relu(a) }")
    node = list(m.graph)[1]
    node.name = "r"
    report = Report()
    assert not Driver(m, [never, identity], report).run()
    assert report.refusals == [("never", "r", "not today")]
    assert len(next(iter(m.graph)).outputs[0].uses()) == 1


def test_endless_rules_are_stopped() -> None:
    """Two rules that undo each other are an error that names them."""

    @rule(op("Relu", Any("x")))
    def to_abs(m: Match) -> ir.Node:
        return ir.Node("", "Abs", [m["x"]])

    @rule(op("Abs", Any("x")))
    def to_relu(m: Match) -> ir.Node:
        return ir.Node("", "Relu", [m["x"]])

    m = model("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    with pytest.raises(PassError, match="do not settle") as error:
        Driver(m, [to_abs, to_relu], Report()).run()
    assert "to-abs" in error.value.why


def test_a_new_value_without_data_is_refused() -> None:
    """A rule that invents an input of nowhere does not get it into the graph."""

    @rule(op("Relu", Any("x")))
    def wrong(m: Match) -> ir.Node:
        return ir.Node("", "Add", [m["x"], ir.Value(name="nowhere")])

    m = model("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    report = Report()
    assert not Driver(m, [wrong], report).run()
    assert "neither a producer nor data" in report.refusals[0][2]


def test_old_opsets_are_respected() -> None:
    """A rule that knows opset 13 and later is not tried on an older model."""

    @rule(op("Relu", Any("x")), opset=13)
    def modern(m: Match) -> ir.Node:
        return ir.Node("", "Abs", [m["x"]])

    m = model("g (float[2] x) => (float[2] y) { y = Relu(x) }", opset=11)
    assert not Driver(m, [modern], Report()).run()


def test_outputs_that_are_still_needed() -> None:
    """A replacement for the first of two used outputs is not enough."""

    @rule(op("Split", Any("x"), Any("s")))
    def first_only(m: Match) -> ir.Value:
        return m["x"]

    text = "g (float[2] x) => (float[1] y, float[1] z) { y, z = Split(x, s) }"
    m = model(text, {"s": np.asarray([1, 1])})
    report = Report()
    assert not Driver(m, [first_only], report).run()
    assert "z is still needed" in report.refusals[0][2]


def test_names_stay_unique_when_a_rule_wishes_a_taken_one() -> None:
    """Wishes for names are wishes: a taken name gets a number."""

    @rule(op("Relu", Any("x")))
    def named(m: Match) -> ir.Node:
        return ir.Node("", "Max", [m["x"], const(np.zeros(2, np.float32), "x")], name="same")

    m = model("g (float[2] x) => (float[2] y) { a = Relu(x) y = Relu(a) }")
    run_rules(m, named)
    assert len({node.name for node in m.graph}) == 2
    assert set(m.graph.initializers) == {"x_1", "x_2"}


def test_a_long_chain_costs_the_same_per_node() -> None:
    """Ten times the nodes cost about ten times the matches, not a hundred times."""
    counts: list[int] = []
    for size in (100, 1000):
        values = [f"v{i} = Neg(v{i - 1})" for i in range(1, size)]
        m = model(
            f"g (float[2] v0) => (float[2] y) {{ {' '.join(values)} y = Relu(v{size - 1}) }}"
        )
        driver = Driver(m, [undone], Report())
        visits = 0
        original = driver._visit

        def counted(node: ir.Node, original=original) -> bool:
            nonlocal visits
            visits += 1
            return original(node)

        driver._visit = counted  # type: ignore[method-assign]
        driver.run()
        counts.append(visits)
    assert counts[1] < 15 * counts[0]
