"""The matcher: binding, sharing, order, options, and what it says when it does not match."""

from __future__ import annotations

import numpy as np
import pytest

from adcompile.rewrite.pattern import (
    Any,
    Const,
    Maybe,
    Op,
    depth_of,
    match,
    op,
    ops_of,
    variants,
    why_not,
)
from tests.rewrite.build import model

X = Any("x")
W = np.ones(2, np.float32)


def last(text: str, weights: dict[str, np.ndarray] | None = None):
    m = model(text, weights)
    return list(m.graph)[-1]


def test_names_bind_values_and_nodes() -> None:
    """Values and nodes are found under their names, and the root comes first."""
    root = last("g (float[2] x) => (float[2] y) { a = Neg(x) y = Relu(a) }")
    found = match(op("Relu", op("Neg", X, name="inner")), root)
    assert found is not None
    assert found["x"].name == "x"
    assert found.node("inner").op_type == "Neg"
    assert found.nodes == [root, found.node("inner")]
    assert found.output.name == "y"


def test_the_same_name_is_the_same_value() -> None:
    """x * x matches only when both inputs are one value."""
    squared = op("Mul", X, X)
    one = last("g (float[2] x, float[2] z) => (float[2] y) { y = Mul(x, x) }")
    two = last("g (float[2] x, float[2] z) => (float[2] y) { y = Mul(x, z) }")
    assert match(squared, one) is not None
    assert match(squared, two) is None
    assert why_not(squared, two) == "x is already another value"


@pytest.mark.parametrize("text", ["y = Add(c, a)", "y = Add(a, c)"])
def test_any_order_tries_both(text: str) -> None:
    """A two-input op matches in either order; without any_order only as written."""
    root = last(f"g (float[2] x) => (float[2] y) {{ a = Neg(x) {text} }}", {"c": W})
    assert match(op("Add", op("Neg", X), Const("c"), any_order=True), root) is not None
    fixed = match(op("Add", op("Neg", X), Const("c")), root)
    assert (fixed is not None) == (text == "y = Add(a, c)")


def test_any_order_searches_all_combinations() -> None:
    """A choice that fits at first is taken back when a later part does not fit."""
    root = last("g (float[2] x, float[2] z) => (float[2] y) { a = Add(z, x) y = Mul(a, x) }")
    pattern = op("Mul", op("Add", X, Any("z"), any_order=True), X)
    found = match(pattern, root)
    assert found is not None
    assert found["z"].name == "z"
    assert len(variants(pattern)) == 2


def test_const_matches_constants_only() -> None:
    """An initializer that is also an input can be overridden and is not a constant."""
    text = "g (float[2] x) => (float[2] y) { y = Add(x, c) }"
    root = last(text, {"c": W})
    found = match(op("Add", X, Const("c")), root)
    assert found is not None
    assert np.array_equal(found.array("c"), W)
    overridable = last("g (float[2] x, float[2] c) => (float[2] y) { y = Add(x, c) }", {"c": W})
    assert match(op("Add", X, Const("c")), overridable) is None
    assert "is not a constant" in why_not(op("Add", X, Const("c")), overridable)


def test_optional_inputs() -> None:
    """Maybe accepts an absent input, at the end or left out in the middle, and binds None."""
    clip = op("Clip", X, Maybe(Const("low")), Maybe(Const("high")))
    weights = {"lo": np.zeros((), np.float32), "hi": np.ones((), np.float32)}
    both = match(clip, last("g (float[2] x) => (float[2] y) { y = Clip(x, lo, hi) }", weights))
    high = match(clip, last('g (float[2] x) => (float[2] y) { y = Clip(x, "", hi) }', weights))
    none = match(clip, last("g (float[2] x) => (float[2] y) { y = Clip(x) }"))
    assert both is not None
    assert high is not None
    assert none is not None
    assert both.get("low") is not None
    assert high.get("low") is None
    assert high.get("high") is not None
    with pytest.raises(KeyError):
        none["high"]


def test_more_inputs_than_the_pattern_has() -> None:
    """An input that the pattern does not know is a mismatch, not ignored."""
    root = last("g (float[2] x) => (float[2] y) { y = Clip(x, lo) }", {"lo": W[:1].reshape(())})
    assert "has 2 inputs, the pattern has 1" in why_not(op("Clip", X), root)


def test_inner_value_with_another_reader() -> None:
    """A value inside the match that someone else reads blocks it, unless the op is shared."""
    text = "g (float[2] x) => (float[2] y, float[2] z) { a = Neg(x) z = Abs(a) y = Relu(a) }"
    root = last(text)
    assert match(op("Relu", op("Neg", X)), root) is None
    assert "is read by" in why_not(op("Relu", op("Neg", X)), root)
    assert match(op("Relu", op("Neg", X, shared=True)), root) is not None


def test_inner_value_that_is_a_graph_output() -> None:
    """A graph output inside the match blocks it."""
    root = last("g (float[2] x) => (float[2] a, float[2] y) { a = Neg(x) y = Relu(a) }")
    assert "is a graph output" in why_not(op("Relu", op("Neg", X)), root)


def test_an_inner_node_may_be_used_twice_inside() -> None:
    """Readers that are all inside the match are no obstacle."""
    root = last("g (float[2] x) => (float[2] y) { a = Neg(x) y = Mul(a, a) }")
    inner = op("Neg", X, name="inner")
    found = match(op("Mul", inner, inner), root)
    assert found is not None
    assert len(found.nodes) == 2


def test_inner_node_of_an_enclosing_graph() -> None:
    """A node around an If may be part of a match in its branch only when shared."""
    m = model(
        "g (float[2] x, bool c) => (float[2] y) { a = Neg(x) y = If(c) "
        "<then_branch = t () => (float[2] p) { p = Relu(a) }, "
        "else_branch = e () => (float[2] q) { q = Abs(a) }> }"
    )
    branch = list(m.graph)[-1].attributes["then_branch"].as_graph()
    root = branch[0]
    assert match(op("Relu", op("Neg", X)), root) is None
    assert "in another graph" in why_not(op("Relu", op("Neg", X)), root)
    assert match(op("Relu", op("Neg", X, shared=True)), root) is not None


def test_attributes_compare_with_schema_defaults() -> None:
    """An absent attribute counts as its default."""
    root = last("g (float[2,2] x) => (float[2,2] y) { y = Softmax(x) }")
    assert match(op("Softmax", X, attrs={"axis": -1}), root, 17) is not None
    assert "has axis=-1, the pattern wants 0" in why_not(
        op("Softmax", X, attrs={"axis": 0}), root, 17
    )


def test_types_outputs_and_domain() -> None:
    """Several types, a certain output of the producer, and the domain are all compared."""
    root = last(
        "g (float[2] x) => (float[1] y) { a, b = Split(x, s) y = Relu(b) }",
        {"s": np.asarray([1, 1])},
    )
    split = op("Split", X, Const("s"), output=1)
    assert match(op(("Abs", "Relu"), split), root) is not None
    assert "is output 1" in why_not(op("Relu", op("Split", X, Const("s"))), root)
    assert match(op("Relu", X, domain="test"), root) is None


def test_leaf_where_an_op_is_wanted() -> None:
    """A graph input has no producer; the message names the value."""
    root = last("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    assert why_not(op("Relu", op("Neg", X)), root) == (
        f"{root.name or 'a node'} (Relu): input 0 (x) is made by no node"
    )


def test_patterns_are_values() -> None:
    """Depth and contained ops are readable; any_order needs two inputs."""
    pattern = op("Relu", op("Conv", X, Const("w"), Maybe(Const("b"))))
    assert depth_of(pattern) == 2
    assert [p.types for p in ops_of(pattern)] == [("Relu",), ("Conv",)]
    assert isinstance(pattern, Op)
    with pytest.raises(ValueError, match="two inputs"):
        op("Add", X, any_order=True)


def test_any_inputs() -> None:
    """A pattern may leave the inputs open, for operators with any number of them."""
    root = last("g (float[2] x) => (float[6] y) { y = Concat<axis=0>(x, x, x) }")
    assert match(op("Concat", any_inputs=True), root) is not None
