"""Every pass alone: what it changes, what it must leave alone, and that results stay."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from adcompile.errors import ModelError, UsageError
from adcompile.interfaces import Report
from adcompile.ir import model_io
from adcompile.ir.evaluate import evaluate
from adcompile.ir.graph import static_shape
from adcompile.passes import infer_shapes as infer_shapes_pass
from adcompile.passes.bind_defaults import BindDefaults
from adcompile.passes.common_subexpressions import CommonSubexpressions
from adcompile.passes.dead_code import DeadCode
from adcompile.passes.dedupe_constants import DedupeConstants
from adcompile.passes.fold_constants import FoldConstants
from adcompile.passes.fold_shapes import FoldShapes, reshape_target
from adcompile.passes.infer_shapes import InferShapes
from adcompile.passes.inline_control_flow import InlineControlFlow
from adcompile.passes.inline_functions import InlineFunctions
from adcompile.passes.merge_reshapes import MergeReshapes, stack_axis
from adcompile.passes.set_attribute import SetAttribute
from adcompile.passes.specialize import Specialize
from adcompile.passes.trim_control_flow import TrimControlFlow
from adcompile.rewrite.canonical import canonical
from adcompile.rewrite.instruments import check_model
from tests.rewrite.build import assert_same, feeds, model, ops, run_pass

F = np.float32


def i64(*numbers: int) -> np.ndarray:
    return np.asarray(numbers, dtype=np.int64)


def scalar(number: int) -> np.ndarray:
    return np.asarray(number, dtype=np.int64)


# dead code, common subexpressions, constants


def test_dead_code() -> None:
    """Unread nodes go, inside branches too; inputs, outputs and what they need stay."""
    m = model(
        "g (float[2] x, bool c, float[2] unused) => (float[2] y) { d = Neg(x) e = Abs(d) y = If(c) "
        "<then_branch = t () => (float[2] p) { q = Neg(x) p = Relu(x) }, "
        "else_branch = e () => (float[2] r) { r = Abs(x) }> }",
        {"w": np.ones(2, F)},
    )
    run_pass(m, DeadCode())
    assert sorted(ops(m)) == ["Abs", "If", "Relu"]
    assert not m.graph.initializers
    assert [v.name for v in m.graph.inputs] == ["x", "c", "unused"]


def test_a_value_read_only_in_a_branch_is_alive() -> None:
    """A captured value counts as read."""
    m = model(
        "g (float[2] x, bool c) => (float[2] y) { a = Neg(x) y = If(c) "
        "<then_branch = t () => (float[2] p) { p = Relu(a) }, "
        "else_branch = e () => (float[2] r) { r = Abs(x) }> }"
    )
    run_pass(m, DeadCode())
    assert "Neg" in ops(m)


def test_a_dead_node_releases_what_its_branches_read() -> None:
    """A node read only inside a dead If is dead as well."""
    m = model(
        "g (float[2] x, bool c) => (float[2] y) { a = Neg(x) z = If(c) "
        "<then_branch = t () => (float[2] p) { p = Relu(a) }, "
        "else_branch = e () => (float[2] r) { r = Abs(a) }> y = Exp(x) }"
    )
    run_pass(m, DeadCode())
    assert ops(m) == ["Exp"]


def test_common_subexpressions() -> None:
    """Equal chains merge from the front; attributes and input order count."""
    m = model(
        "g (float[2,2] x) => (float[2,2] y) { a = Softmax<axis=0>(x) b = Softmax<axis=0>(x) "
        "c = Softmax<axis=1>(x) d = Neg(a) e = Neg(b) f = Sub(d, e) h = Sub(c, f) y = Sub(f, h) }"
    )
    run_pass(m, CommonSubexpressions())
    assert ops(m) == ["Softmax", "Softmax", "Neg", "Sub", "Sub", "Sub"]


def test_common_subexpressions_keep_outputs_apart() -> None:
    """Two equal outputs stay two; an inner value merges into an output, not the reverse."""
    m = model("g (float[2] x) => (float[2] y, float[2] z) { y = Neg(x) z = Neg(x) }")
    run_pass(m, CommonSubexpressions())
    assert ops(m) == ["Neg", "Neg"]
    m = model("g (float[2] x) => (float[2] z, float[2] y) { a = Neg(x) y = Abs(a) z = Neg(x) }")
    run_pass(m, CommonSubexpressions())
    assert ops(m) == ["Neg", "Abs"]


def test_common_subexpressions_in_branches() -> None:
    """A branch uses an equal value from outside; two branches do not share with each other."""
    m = model(
        "g (float[2] x, bool c) => (float[2] y, float[2] z) { z = Neg(x) y = If(c) "
        "<then_branch = t () => (float[2] p) { a = Neg(x) b = Exp(x) p = Add(a, b) }, "
        "else_branch = e () => (float[2] r) { d = Exp(x) r = Abs(d) }> }"
    )
    run_pass(m, CommonSubexpressions())
    assert sorted(ops(m)) == ["Abs", "Add", "Exp", "Exp", "If", "Neg"]


def test_random_operators_never_merge() -> None:
    """Two draws are two draws."""
    m = model(
        "g (float[2] x) => (float[2] y) "
        "{ a = RandomNormalLike(x) b = RandomNormalLike(x) y = Sub(a, b) }"
    )
    run_pass(m, CommonSubexpressions(), same=False)
    assert ops(m).count("RandomNormalLike") == 2
    run_pass(m, FoldConstants(), same=False)
    assert ops(m).count("RandomNormalLike") == 2


def test_equal_constants_become_one() -> None:
    """Type, shape and bytes must agree; a branch uses the constant of the outer graph."""
    big = np.arange(1000, dtype=F)
    other = big.copy()
    other[500] = -1  # differs in the middle, outside of the sample
    m = model(
        "g (float[1000] x, bool c) => (float[1000] y) { p = Add(x, a) q = Add(p, b) r = Add(q, d) "
        "y = If(c) <then_branch = t () => (float[1000] s) <float[1] e = {0}> "
        "{ s = Add(r, e) }, else_branch = u () => (float[1000] v) { v = Add(r, f) }> }",
        {"a": big, "b": big.copy(), "d": other, "f": np.zeros(1, F)},
    )
    run_pass(m, DedupeConstants())
    assert set(m.graph.initializers) == {"a", "d", "f"}
    assert sum(len(g.initializers) for g in m.graph.subgraphs()) == 0


def test_zero_and_minus_zero_are_different_constants() -> None:
    """Constants are compared by bytes."""
    m = model(
        "g (float[1] x) => (float[1] y) { p = Div(x, a) q = Div(x, b) y = Sub(p, q) }",
        {"a": np.asarray([0.0], F), "b": np.asarray([-0.0], F)},
    )
    run_pass(m, DedupeConstants())
    assert len(m.graph.initializers) == 2


# constants and shapes


def test_fold_constants() -> None:
    """A constant subgraph becomes one constant under the old name; quantisation stays visible."""
    m = model(
        "g (float[2] x) => (float[2] y) { a = Add(w, w) b = Exp(a) c = DequantizeLinear(q, s) "
        "d = Mul(x, b) y = Add(d, c) }",
        {"w": np.ones(2, F), "q": np.ones(2, np.int8), "s": np.asarray(0.5, F)},
    )
    run_pass(m, FoldConstants())
    assert ops(m) == ["DequantizeLinear", "Mul", "Add"]
    assert m.graph.initializers["b"].const_value.numpy() == pytest.approx(np.exp([2, 2]))


def test_fold_constants_respects_its_limit() -> None:
    """A result over the limit, and larger than what it replaces, stays an operator."""
    text = "g (float[1] x) => (float[?] y) { a = Expand(w, n) y = Add(x, a) }"
    weights = {"w": np.ones(1, F), "n": i64(1000)}
    small, large = model(text, weights), model(text, weights)
    run_pass(small, FoldConstants(limit=3999))
    assert ops(small) == ["Expand", "Add"]
    run_pass(large, FoldConstants(limit=4000))
    assert ops(large) == ["Add"]


def test_a_constant_that_cannot_be_computed_stays() -> None:
    """One bad node does not keep its neighbours from being folded, and is reported."""
    m = model(
        "g (float[2] x) => (float[2] y) { a = Add(w, w) b = Gather(w, i) c = Exp(w) "
        "d = Add(a, c) e = Add(x, d) y = Add(e, b) }",
        {"w": np.ones(2, F), "i": i64(7)},
    )
    report = Report()
    FoldConstants().run(m, report)
    assert ops(m) == ["Gather", "Add", "Add"]
    assert report.refusals[0][0] == "fold-constants"


def test_constant_outputs() -> None:
    """An output that is constant keeps a node of its own, in branches too."""
    m = model(
        "g (float[2] x, bool c) => (float[2] y, float[2] z) { z = Add(w, w) y = If(c) "
        "<then_branch = t () => (float[2] p) { p = Neg(w) }, "
        "else_branch = e () => (float[2] r) { r = Abs(x) }> }",
        {"w": np.ones(2, F)},
    )
    run_pass(m, FoldConstants())
    assert sorted(ops(m)) == ["Abs", "Constant", "Constant", "If"]


def test_shapes_are_folded_with_open_dimensions() -> None:
    """A Reshape to [Shape(x)[0], -1] gets a constant target though the batch is open."""
    m = model(
        "g (float[N,2,3] x) => (float[?,?] y) { s = Shape(x) n = Gather(s, i) u = Unsqueeze(n, z) "
        "t = Concat<axis=0>(u, m) y = Reshape(x, t) }",
        {"i": scalar(0), "z": i64(0), "m": i64(-1)},
    )
    before = m.clone()
    run_pass(m, FoldShapes(), twice=False)
    canonical().run(m, Report())
    assert ops(m) == ["Reshape"]
    for size in (1, 5):  # with 0 rows, -1 is an error before and after
        assert_same(before, m, feeds(m, sizes={"N": size}))


def test_shape_guards_of_exporters_disappear() -> None:
    """Where(Equal(shape, -1), 1, shape) before an Expand is decided: a dimension is never -1."""
    m = model(
        "g (float[N,1] x) => (float[?,?] y) { s = Shape(x) e = Equal(s, m) w = Where(e, o, s) "
        "a = Expand(x, w) y = Neg(a) }",
        {"m": i64(-1), "o": i64(1, 1)},
    )
    before = m.clone()
    canonical().run(m, Report())
    assert ops(m) == ["Neg"]
    for size in (0, 1, 4):
        assert_same(before, m, feeds(m, sizes={"N": size}))


def test_equal_shapes_are_computed_once() -> None:
    """Two values of one shape need one Shape."""
    m = model(
        "g (float[N] x) => (float[?] y) { a = Neg(x) s = Shape(x) t = Shape(a) "
        "p = ConstantOfShape(s) q = ConstantOfShape(t) r = Add(p, q) y = Add(r, a) }"
    )
    canonical().run(m, Report())
    assert ops(m).count("Shape") == 1


@pytest.mark.parametrize(
    ("text", "weights", "rest"),
    [
        ("y0 = Reshape(x, s)", {"s": i64(0, -1, 3)}, 0),
        ("y0 = Expand(x, s)", {"s": i64(1, 1, 3)}, 0),
        ("y0 = Slice(x, b, e, a)", {"b": i64(0), "e": i64(99), "a": i64(2)}, 0),
        ("y0 = Slice(x, b, e, a)", {"b": i64(1), "e": i64(99), "a": i64(2)}, 1),
        ("y0 = Slice(x, b, e, a, t)", {"b": i64(-1), "e": i64(-99), "a": i64(2), "t": i64(-1)}, 1),
        ("y0 = Pad(x, p)", {"p": i64(0, 0, 0, 0, 0, 0)}, 0),
        ("y0 = Pad(x, p)", {"p": i64(0, 0, 1, 0, 0, -1)}, 1),
        ("y0 = Tile(x, r)", {"r": i64(1, 1, 1)}, 0),
        ("y0 = Gather<axis=2>(x, i)", {"i": i64(0, 1, 2)}, 0),
        ("y0 = Gather<axis=2>(x, i)", {"i": i64(0, 2, 1)}, 1),
        ("y0 = Gather<axis=2>(x, i)", {"i": i64(-3, -2, 2)}, 0),
        ("y0 = ReduceMax<axes=[1]>(x)", {}, 1),
        ('y0 = Resize<mode="linear">(x, "", "", s)', {"s": i64(2, 2, 3)}, 0),
        ('y0 = Resize<mode="linear">(x, "", c)', {"c": np.asarray([1, 1, 1.1], F)}, 1),
    ],
)
def test_operators_that_change_nothing(
    text: str, weights: dict[str, np.ndarray], rest: int
) -> None:
    """An operator whose result is its input goes; one that only keeps the shape stays."""
    m = model(f"g (float[2,2,3] x) => (float[?,?,?] y) {{ {text} y = Neg(y0) }}", weights)
    run_pass(m, FoldShapes())
    assert len(ops(m)) == rest + 1


def test_reshape_targets() -> None:
    """0 copies a dimension, -1 stands for one open one, an empty result cannot be written."""
    n, k = object(), object()
    assert reshape_target((n, 4), (n, 2, 2)) == [-1, 2, 2]  # type: ignore[arg-type]
    assert reshape_target((n, k, 4), (n, k, 2, 2)) == [0, 0, 2, 2]  # type: ignore[arg-type]
    assert reshape_target((n, k, 4), (k, n, 4)) is None  # type: ignore[arg-type]
    assert reshape_target(None, (n, 2)) == [-1, 2]  # type: ignore[arg-type]
    assert reshape_target((0, 2), (2, 0)) is None


# regrouping


REGROUPING = [
    ("a = Reshape(x, s6) b = Reshape(a, s32) y = Neg(b)", 2, "Reshape Neg"),
    ("a = Reshape(x, s6) b = Reshape(a, s23) y = Neg(b)", 2, "Neg"),
    ("a = Unsqueeze(x, z) b = Squeeze(a, z) y = Neg(b)", 2, "Neg"),
    (
        "a = Unsqueeze(x, z) b = Transpose<perm=[1,0,2]>(a) c = Reshape(b, s6) y = Neg(c)",
        1,
        "Reshape Neg",
    ),
    ("a = Transpose(x) b = Reshape(a, s6) y = Neg(b)", 1, "Transpose Reshape Neg"),
    ("a = Reshape(x, s6) b = Sigmoid(a) c = Reshape(b, s23) y = Neg(c)", 2, "Sigmoid Neg"),
    ("a = Reshape(x, s6) b = Exp(a) c = Reshape(b, s32) y = Neg(c)", 2, "Reshape Exp Neg"),
    ("a = Flatten<axis=0>(x) y = Reshape(a, s32)", 2, "Reshape"),
    (
        "a = Unsqueeze(x, z) b = Unsqueeze(x, z) c = Concat<axis=0>(a, b) "
        "d = Reshape(c, s43) y = Neg(d)",
        2,
        "Concat Neg",
    ),
    (
        "a = Unsqueeze(x, o) b = Unsqueeze(x, o) c = Concat<axis=1>(a, b) "
        "d = Reshape(c, s26) y = Neg(d)",
        2,
        "Concat Neg",
    ),
    (
        "a = Unsqueeze(x, l) b = Unsqueeze(x, l) c = Concat<axis=2>(a, b) "
        "d = Reshape(c, s26) y = Neg(d)",
        2,
        "Unsqueeze Unsqueeze Concat Reshape Neg",
    ),
]


@pytest.mark.parametrize(("text", "rank", "expected"), REGROUPING)
def test_merge_reshapes(text: str, rank: int, expected: str) -> None:
    """Chains join or cancel, elementwise operators are looked through, stacks become Concats."""
    weights = {
        "s6": i64(6),
        "s23": i64(2, 3),
        "s32": i64(3, 2),
        "s43": i64(4, 3),
        "s26": i64(2, 6),
    }
    weights |= {"z": i64(0), "o": i64(1), "l": i64(2)}
    used = {k: v for k, v in weights.items() if f"{k})" in text}
    m = model(f"g (float[2,3] x) => (float[{','.join('?' * rank)}] y) {{ {text} }}", used)
    run_pass(m, MergeReshapes())
    assert ops(m) == expected.split()


def test_merge_reshapes_leaves_shared_values() -> None:
    """A value that someone else reads is not recomputed."""
    m = model(
        "g (float[2,3] x) => (float[?] a, float[?,?] y) { a = Reshape(x, p) y = Reshape(a, q) }",
        {"p": i64(6), "q": i64(3, 2)},
    )
    run_pass(m, MergeReshapes())
    assert ops(m) == ["Reshape", "Reshape"]


def test_stack_axis() -> None:
    """The axis fits when leading blocks agree for every part."""
    assert stack_axis([(4, 1), (4, 1)], [(4, 1, 1), (4, 1, 1)], 2, (4, 2)) == 1
    assert stack_axis([(4, 2), (4, 2)], [(4, 2, 1), (4, 2, 1)], 2, (4, 4)) is None
    assert stack_axis([(4, 2), (4, 2)], [(1, 4, 2), (1, 4, 2)], 0, (8, 2)) == 0
    assert stack_axis([None], [(1,)], 0, (1,)) is None


# control flow


@pytest.mark.parametrize("decided", [True, False])
def test_decided_if(decided: bool) -> None:
    """The taken branch replaces the If, constants, nested graphs and names included."""
    m = model(
        "g (float[2] x, bool c) => (float[2] y, float[2] z) { y, z = If(d) "
        "<then_branch = t () => (float[2] p, float[2] p2) <float[1] k = {2}> "
        "{ p = Mul(x, k) p2 = If(c) <then_branch = u () => (float[2] a) { a = Neg(p) }, "
        "else_branch = v () => (float[2] b) { b = Abs(p) }> }, "
        "else_branch = e () => (float[2] r, float[2] r2) { r = Abs(x) r2 = Identity(x) }> }",
        {"d": np.asarray(decided)},
    )
    run_pass(m, InlineControlFlow())
    top = [node.op_type for node in m.graph]
    assert top == (["Mul", "If"] if decided else ["Abs", "Identity"])
    assert [v.name for v in m.graph.outputs] == ["y", "z"]


def loop(trips: int | None, *, cond: str = "", stop: str = "Identity(c)") -> ir.Model:
    """y, s = Loop: y doubles x, s collects."""
    count = "n" if trips is None else "t"
    return model(
        "g (float[2] x, int64 n) => (float[2] y, float[?,2] s) "
        f'{{ y, s = Loop({count}, "{cond}", x) '
        "<body = b (int64 i, bool c, float[2] v) => (bool g, float[2] w, float[2] o) "
        f"{{ g = {stop} w = Add(v, v) f = Cast<to=1>(i) o = Add(w, f) }}> }}",
        {} if trips is None else {"t": scalar(trips)},
    )


@pytest.mark.parametrize("trips", [1, 2, 3])
def test_unrolled_loop(trips: int) -> None:
    """Copies of the body, the counter as a constant, scan outputs stacked."""
    m = loop(trips)
    run_pass(m, InlineControlFlow(max_trips=3))
    assert "Loop" not in ops(m)
    assert ops(m).count("Unsqueeze") == trips


def test_loops_that_stay() -> None:
    """An open trip count, too many trips, or a condition that may end it early."""
    for m, each in (
        (loop(None), InlineControlFlow(max_trips=3)),
        (loop(2), InlineControlFlow()),
        (loop(3, stop="Not(c)"), InlineControlFlow(max_trips=3)),
        (loop(3), InlineControlFlow(max_trips=3, max_nodes=5)),
    ):
        run_pass(m, each, same=False)
        assert "Loop" in ops(m)


def test_a_loop_that_never_runs() -> None:
    """Without scan outputs, zero trips mean the start values."""
    m = model(
        'g (float[2] x) => (float[2] y) { y = Loop(t, "", x) '
        "<body = b (int64 i, bool c, float[2] v) => (bool g, float[2] w) "
        "{ g = Identity(c) w = Neg(v) }> }",
        {"t": scalar(0)},
    )
    run_pass(m, InlineControlFlow())
    assert ops(m) == ["Identity"]


def test_trim_control_flow() -> None:
    """Unread outputs go, with what only they need; passed-on state is read directly."""
    m = model(
        "g (float[2] x, float[2] k, int64 n, bool c) => (float[2] y, float[2] z) "
        '{ y, kk, u, s = Loop(n, "", x, k, x) '
        "<body = b (int64 i, bool q, float[2] v, float[2] h, float[2] e) "
        "=> (bool g, float[2] w, float[2] j, float[2] m, float[2] o) "
        "{ g = Identity(q) w = Add(v, h) j = Identity(h) m = Exp(v) o = Neg(v) }> "
        "z, zz = If(c) <then_branch = t () => (float[2] p, float[2] pp) { p = Relu(x) pp = Abs(x) }, "
        "else_branch = f () => (float[2] r, float[2] rr) { r = Neg(x) rr = Exp(x) }> }"
    )
    before = m.clone()
    report = Report()
    TrimControlFlow().run(m, report)
    DeadCode().run(m, Report())
    check_model(m, "trim")
    assert not TrimControlFlow().run(m, Report())
    found = {n.op_type: n for n in m.graph}
    assert len(found["Loop"].outputs) == 1
    assert len(found["Loop"].inputs) == 3
    assert len(found["If"].outputs) == 1
    assert sorted(ops(m)) == ["Add", "Identity", "If", "Loop", "Neg", "Relu"]
    for size in (0, 2):
        given = feeds(m) | {"n": scalar(size), "c": np.asarray(size == 0)}
        assert_same(before, m, given)


@pytest.mark.parametrize("opset", [9, 17])
def test_trim_scan(opset: int) -> None:
    """Unread results, idle and constant state and unread sequences go; one sequence stays, and the
    axes and directions of those that are left stay theirs."""
    m = model(
        "g (float[3] a, float[3] k, float[3] e, float[4, 2] p, float[3, 4] q, float[4, 3] r) "
        "=> (float[3] y, float[3, 4] z) "
        "{ y, kk, ee, u, z = Scan <num_scan_inputs = 3, scan_input_axes = [0, 1, 0], "
        "scan_input_directions = [0, 1, 1], scan_output_axes = [0, 1], "
        "scan_output_directions = [1, 0], "
        "body = b (float[3] s, float[3] h, float[3] o, float[2] i, float[3] j, float[3] l) "
        "=> (float[3] t, float[3] hh, float[3] oo, float[3] first, float[3] second) "
        "{ w = Add(s, h) t = Add(w, j) hh = Identity(h) oo = Neg(t) first = Exp(s) "
        "second = Mul(t, l) }> (a, k, e, p, q, r) }",
        opset=opset,
    )
    before = m.clone()
    report = Report()
    TrimControlFlow().run(m, report)
    DeadCode().run(m, Report())
    check_model(m, "trim")
    assert not TrimControlFlow().run(m, Report())
    (scan,) = [n for n in m.graph if n.op_type == "Scan"]
    assert [v.name for v in scan.inputs] == ["a", "q", "r"]
    assert [v.name for v in scan.outputs] == ["y", "z"]
    lists = {n: a.as_ints() for n, a in scan.attributes.items() if n.startswith("scan")}
    assert {n: list(v) for n, v in lists.items()} == {
        "scan_input_axes": [1, 0],
        "scan_input_directions": [1, 1],
        "scan_output_axes": [1],
        "scan_output_directions": [0],
    }
    assert sorted(ops(m)) == ["Add", "Add", "Mul", "Scan"]
    assert_same(before, m, feeds(before))


def test_trim_scan_keeps_what_counts_the_turns() -> None:
    """A Scan whose sequences nobody reads keeps one of them."""
    m = model(
        "g (float[2] a, float[4, 2] p, float[4] q) => (float[2] y) "
        "{ y = Scan <num_scan_inputs = 2, body = b (float[2] s, float[2] i, float j) "
        "=> (float[2] t) { t = Exp(s) }> (a, p, q) }"
    )
    before = m.clone()
    assert TrimControlFlow().run(m, Report())
    (scan,) = m.graph
    assert [v.name for v in scan.inputs] == ["a", "p"]
    assert_same(before, m, feeds(before))


def test_functions_are_expanded_except_our_own() -> None:
    """Calls of the model's functions become their bodies; the adcompile domain stays."""
    body = [helper.make_node("Neg", ["p"], ["a"]), helper.make_node("Abs", ["a"], ["q"])]
    imports = [helper.make_opsetid("", 17)]
    nodes = [
        helper.make_node("f", ["x"], ["a"], domain="d"),
        helper.make_node("f", ["a"], ["y"], domain="adcompile"),
    ]
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in "xy"]
    proto = helper.make_model(
        helper.make_graph(nodes, "g", info[:1], info[1:]),
        opset_imports=[*imports, helper.make_opsetid("d", 1), helper.make_opsetid("adcompile", 1)],
        ir_version=9,
    )
    for domain in ("d", "adcompile"):
        proto.functions.append(helper.make_function(domain, "f", ["p"], ["q"], body, imports))
    m = model_io.from_proto(proto)
    before = m.clone()
    canonical().run(m, Report())
    assert [n.op_type for n in m.graph] == ["Neg", "Abs", "f"]
    assert [key[0] for key in m.functions] == ["adcompile"]
    assert_same(before, m, {"x": np.asarray([1, -2], F)})
    assert not InlineFunctions().run(m, Report())


# interface


def test_inputs_with_defaults_become_constants() -> None:
    """A default is bound; real inputs stay."""
    m = model("g (float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }", {"w": np.ones(2, F)})
    assert len(m.graph.inputs) == 2
    run_pass(m, BindDefaults(), same=False)
    assert [v.name for v in m.graph.inputs] == ["x"]
    assert evaluate(m, {"x": np.zeros(2, F)})["y"].tolist() == [1, 1]


def test_old_files_list_weights_as_inputs() -> None:
    """Before IR version 4 that was the rule, so loading takes them out."""
    m = model(
        "g (float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }",
        {"w": np.ones(2, F)},
        opset=9,
        ir_version=3,
    )
    assert [v.name for v in m.graph.inputs] == ["x"]
    assert m.ir_version == 4


def test_specialize() -> None:
    """Sizes go to every place that shares the symbol, and shapes follow."""
    m = model("g (float[N,C] x, float[N] z, float[M] u) => (float[?,?] y) { y = Neg(x) }")
    report = Report()
    assert Specialize(shapes=("x:2x3",)).run(m, report)
    InferShapes().run(m, report)
    assert [static_shape(v) for v in m.graph.inputs] == [(2, 3), (2,), None]
    assert static_shape(m.graph.outputs[0]) == (2, 3)
    assert not Specialize(shapes=("x:2x3",)).run(m, Report())
    with pytest.raises(UsageError, match="gets two sizes"):
        Specialize(shapes=("x:2x3", "z:4")).run(
            model("g (float[N,C] x, float[N] z) => (float[?] y) { y = Neg(z) }"), Report()
        )


def test_specialize_a_single_input_without_its_name() -> None:
    """With one input the name may be left out; ``=`` works like ``:``; scalars are called so."""
    m = model("g (float[N] x) => (float[?] y) { y = Neg(x) }")
    Specialize(shapes=("7",)).run(m, Report())
    assert static_shape(m.graph.inputs[0]) == (7,)
    m = model("g (float[N] x) => (float[?] y) { y = Neg(x) }")
    Specialize(shapes=("x=7",)).run(m, Report())
    assert static_shape(m.graph.inputs[0]) == (7,)
    m = model("g (float x) => (float y) { y = Neg(x) }")
    Specialize(shapes=("x=scalar",)).run(m, Report())
    with pytest.raises(UsageError, match="name=scalar"):
        Specialize(shapes=("x=",)).run(m, Report())


def test_set_attribute() -> None:
    """The attribute changes by its schema's type, shapes behind it follow, and it is on record."""
    text = (
        "g (float[1,1,6,6] x) => (float[?,?,?,?] y) "
        "{ y = MaxPool<kernel_shape=[1,1], strides=[2,2]>(x) }"
    )
    m = model(text)
    m.graph[0].name = "pool"
    report = Report()
    for attribute, value in (("kernel_shape", "3,3"), ("pads", "[1,1,1,1]"), ("ceil_mode", "1")):
        assert SetAttribute(node="pool", attribute=attribute, value=value).run(m, report)
    assert not SetAttribute(node="pool", attribute="ceil_mode", value="1").run(m, Report())
    InferShapes().run(m, report)
    assert evaluate(m, feeds(m))["y"].shape == (1, 1, 4, 4)
    assert report.rewrites[0].exactness == "approximate"
    assert report.rewrites[0].detail == "kernel_shape=3,3"


@pytest.mark.parametrize(
    ("node", "attribute", "value", "message"),
    [
        ("nope", "axis", "1", "no node called"),
        ("n", "axes", "1", "has no attribute 'axes'"),
        ("n", "axis", "one", "is not int"),
    ],
)
def test_bad_set_attribute(node: str, attribute: str, value: str, message: str) -> None:
    """Wrong node, attribute or value: a UsageError that says which."""
    m = model("g (float[2,2] x) => (float[2,2] y) { y = Softmax(x) }")
    m.graph[0].name = "n"
    with pytest.raises(UsageError, match=message):
        SetAttribute(node=node, attribute=attribute, value=value).run(m, Report())


def test_inference_that_is_stricter_than_the_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """When only ONNX's inference objects, that is a note, and the rest still gets its shapes."""
    m = model("g (float[2] x) => (float[?] y) { y = Neg(x) }")
    m.graph.outputs[0].shape = None
    original = infer_shapes_pass.infer_shapes

    def strict_objects(m: ir.Model, *, strict: bool = True) -> bool:
        if strict:
            raise ModelError("shapes contradict", why="a matter of taste")
        return original(m, strict=False)

    monkeypatch.setattr(infer_shapes_pass, "infer_shapes", strict_objects)
    report = Report()
    assert InferShapes().run(m, report)
    assert not InferShapes().run(m, report)
    assert report.notes == ["shape inference objects, ONNX Runtime does not: a matter of taste"]
    assert static_shape(m.graph.outputs[0]) == (2,)


def test_weights_are_not_copied() -> None:
    """The pipeline leaves a large weight the very array it was."""
    weight = np.ones((64, 64), F)
    proto = helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])],
            [numpy_helper.from_array(weight, "w")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    m = model_io.from_bytes(proto.SerializeToString())
    tensor = m.graph.initializers["w"].const_value
    canonical().run(m, Report())
    assert m.graph.initializers["w"].const_value is tensor
    assert ops(m) == ["MatMul"]
